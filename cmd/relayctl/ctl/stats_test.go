package ctl_test

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"relayd/cmd/relayctl/ctl"
)

// On a terminal the figures stand still; what was longer before is erased.
func TestStatsWatch(t *testing.T) {
	t.Parallel()
	s := serving(t)
	term := newTerminal("")
	term.run(t, 0, "--data-dir", s.dir, "stats", "--watch", "--count", "2", "--every", "100ms")
	screens := strings.Split(term.out.String(), "\x1b[H")
	if len(screens) != 3 || screens[0] != "" {
		t.Fatalf("screens: %q", screens)
	}
	for _, screen := range screens[1:] {
		if !strings.HasSuffix(screen, "\x1b[K\n\x1b[J") || !strings.Contains(screen, "\x1b[K\nmessages: 1 accepted, ") {
			t.Errorf("screen %q", screen)
		}
	}
}

// interruptor is a terminal whose owner types Ctrl-C after the first look.
type interruptor struct {
	bytes.Buffer
	stop context.CancelFunc
}

func (w *interruptor) Write(p []byte) (int, error) {
	w.stop()
	return w.Buffer.Write(p)
}

// Ctrl-C is how a watch ends: it is no failure, and not a word is said.
func TestStatsWatchInterrupted(t *testing.T) {
	t.Parallel()
	s := serving(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	term := newTerminal("")
	out := &interruptor{stop: stop}
	term.Stdout = out
	if status := ctl.Run(ctx, []string{"--data-dir", s.dir, "stats", "--watch", "--every", "1h"}, term.Env); status != 0 || term.err.Len() > 0 {
		t.Errorf("status %d, said %q", status, &term.err)
	}
	if n := strings.Count(out.String(), "\x1b[H"); n != 1 {
		t.Errorf("%d screens", n)
	}
}
