package callout

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"relayd/relay"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server answers by the first letters of the local part, while it is up.
type server struct {
	down  atomic.Bool
	calls atomic.Int32
	delay time.Duration
}

var errDown = errors.New("connection refused")

func (s *server) ask(ctx context.Context, rcpt relay.Address) (bool, error) {
	s.calls.Add(1)
	select {
	case <-time.After(s.delay):
	case <-ctx.Done():
		return false, ctx.Err()
	}
	if s.down.Load() {
		return false, errDown
	}
	return strings.HasPrefix(rcpt.Local, "yes"), nil
}

func open(t *testing.T, s *server) (*Memory, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "callouts")
	m := Open(path, s.ask, slog.New(slog.DiscardHandler))
	return m, path
}

func (s *server) expect(t *testing.T, m *Memory, local string, exists, known bool, calls int32) {
	t.Helper()
	s.calls.Store(0)
	got, err := m.Ask(t.Context(), relay.Address{Local: local, Domain: "club.example"})
	if got != exists || (err == nil) != known || s.calls.Load() != calls {
		t.Errorf("%s: %v, %v after %d calls; want %v, known %v after %d", local, got, err, s.calls.Load(), exists, known, calls)
	}
}

// How long an answer counts, while the server answers and while it does not.
func TestMemory(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		m, path := open(t, s)
		s.expect(t, m, "yes", true, true, 1)
		s.expect(t, m, "yes", true, true, 0)
		s.expect(t, m, "no", false, true, 1)
		s.expect(t, m, "no", false, true, 0)
		time.Sleep(freshNo)
		s.expect(t, m, "no", false, true, 1)
		s.expect(t, m, "yes", true, true, 0)

		s.down.Store(true)
		time.Sleep(freshYes)
		s.expect(t, m, "yes", true, true, 1) // asked in vain, and remembered
		s.expect(t, m, "yes", true, true, 0) // not asked at each RCPT
		s.expect(t, m, "no", false, false, 1)
		s.expect(t, m, "yes-new", false, false, 1)
		s.expect(t, m, "yes-new", false, false, 0)
		s.down.Store(false)
		time.Sleep(noTime)
		s.expect(t, m, "yes-new", true, true, 1)
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}

		// Another start: what was a yes is one, for a month.
		s.down.Store(true)
		m = Open(path, s.ask, slog.New(slog.DiscardHandler))
		time.Sleep(staleYes - 2*freshYes)
		s.expect(t, m, "yes", true, true, 1)
		s.expect(t, m, "no", false, false, 1)
		time.Sleep(2 * freshYes)
		s.expect(t, m, "yes", false, false, 1)
	})
}

// A hundred clients who name one address cost one call; a client that hangs up proves nothing.
func TestTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &server{delay: time.Second}
		m, _ := open(t, s)
		rcpt := relay.Address{Local: "yes", Domain: "club.example"}
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				if ok, err := m.Ask(t.Context(), rcpt); !ok || err != nil {
					t.Error(ok, err)
				}
			})
		}
		all.Wait()
		if n := s.calls.Load(); n != 1 {
			t.Errorf("%d calls", n)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		rcpt.Local = "yes2"
		if _, err := m.Ask(ctx, rcpt); err == nil {
			t.Error("an answer before there was one")
		}
		s.expect(t, m, "yes2", true, true, 1)
	})
}

// The calls and the memory are bounded.
func TestBounds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int32
		m, _ := open(t, &server{})
		m.call = func(ctx context.Context, _ relay.Address) (bool, error) {
			if n := now.Add(1); n > most.Load() {
				most.Store(n)
			}
			defer now.Add(-1)
			<-ctx.Done()
			return false, ctx.Err()
		}
		var all sync.WaitGroup
		for n := range 3 * maxCalls {
			all.Go(func() {
				start := time.Now()
				if _, err := m.Ask(t.Context(), relay.Address{Local: string(rune('a' + n)), Domain: "club.example"}); err == nil {
					t.Error("an answer")
				}
				if took := time.Since(start); took > patience {
					t.Errorf("waited %v", took)
				}
			})
		}
		all.Wait()
		if n := most.Load(); n != maxCalls {
			t.Errorf("%d calls at once", n)
		}
		old := time.Now()
		for n := range maxAnswers {
			m.answers[relay.Address{Local: "a", Domain: relay.Domain(strings.Repeat("x", n%60+1)) + relay.Domain(rune('a'+n/60%26)) + relay.Domain(rune(0x100+n))}] = answer{exists: true, at: old}
		}
		m.answers[relay.Address{Local: "no", Domain: "club.example"}] = answer{at: old.Add(time.Second)}
		for len(m.answers) >= maxAnswers {
			m.forget()
		}
		if _, kept := m.answers[relay.Address{Local: "no", Domain: "club.example"}]; kept {
			t.Error("a no was kept in place of a yes")
		}
	})
}

func TestDamagedFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "callouts")
	text := "nonsense\n2026-11-21T12:00:00Z not an address\n" + time.Now().UTC().Format(time.RFC3339) + " yes@club.example\n\x00\x00"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &server{}
	m := Open(path, s.ask, slog.New(slog.DiscardHandler))
	s.expect(t, m, "yes", true, true, 0)
}
