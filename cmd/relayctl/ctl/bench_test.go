package ctl_test

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"relayd/cmd/relayctl/ctl"
	"relayd/relay"
)

var backlog = flag.Int("backlog", 20_000, "how many letters wait in BenchmarkQueueLs")

// firstWrite is a stdout that remembers when something came.
type firstWrite struct {
	at    time.Time
	lines int
}

func (w *firstWrite) Write(p []byte) (int, error) {
	if w.at.IsZero() {
		w.at = time.Now()
	}
	w.lines += strings.Count(string(p), "\n")
	return len(p), nil
}

// BenchmarkQueueLs is queue ls of 20,000 letters that were tried once, or as many as -backlog
// says: records, control socket, JSON and table, with both programs in one process. Beside the
// whole stands how long the first line took.
func BenchmarkQueueLs(b *testing.B) {
	s := &stage{dir: b.TempDir()}
	if err := s.open(); err != nil {
		b.Fatal(err)
	}
	fillTried(b, s, *backlog)
	for _, daemon := range []bool{true, false} {
		if daemon {
			if err := s.start(); err != nil {
				b.Fatal(err)
			}
		} else if err := s.stop(); err != nil {
			b.Fatal(err)
		}
		for _, flags := range [][]string{nil, {"--json"}} {
			b.Run(fmt.Sprintf("daemon=%v%s", daemon, strings.Join(flags, "")), func(b *testing.B) {
				b.ReportAllocs()
				var first time.Duration
				for range b.N {
					out, start := &firstWrite{}, time.Now()
					env := ctl.Env{Stdout: out, Stderr: io.Discard, Now: time.Now, Getenv: func(string) string { return "" }}
					if ctl.Run(b.Context(), append(flags, "--data-dir", s.dir, "queue", "ls"), env) != 0 || out.lines < *backlog {
						b.Fatal("printed", out.lines)
					}
					first += out.at.Sub(start)
				}
				b.ReportMetric(float64(first.Microseconds())/float64(b.N)/1000, "ms-to-first")
			})
		}
	}
}

// fillTried queues n letters, each of which a host that was down has deferred.
func fillTried(b *testing.B, s *stage, n int) {
	ctx := context.Background()
	var wg sync.WaitGroup
	numbers := make(chan int)
	for range 50 {
		wg.Go(func() {
			for i := range numbers {
				now := time.Now()
				to := relay.Address{Local: fmt.Sprint("user", i), Domain: "partner.example"}
				staged, err := s.queue.Stage(ctx, relay.Envelope{ID: relay.NewID(now), Accepted: now,
					From:  relay.Address{Local: "ann", Domain: "office.example"},
					Rcpts: []relay.Recipient{{Addr: to, Orig: to.String()}},
					Origin: relay.Origin{Client: netip.MustParseAddrPort("192.0.2.1:4711"), Helo: "client.office.example",
						Proto: "ESMTPSA", User: "ann@office.example", Service: "submission"}})
				if err == nil {
					err = staged.Commit(ctx)
				}
				if err != nil {
					b.Error(err)
				}
			}
		})
	}
	for i := range n {
		numbers <- i
	}
	close(numbers)
	wg.Wait()
	for now := time.Now(); ; {
		items, err := s.queue.Take(ctx, now, 200, nil)
		if err != nil || len(items) == 0 {
			return
		}
		for _, it := range items {
			wg.Go(func() {
				s.queue.Settle(ctx, it.Key(), []relay.Result{{Rcpt: it.Rcpts[0].Addr, Outcome: relay.Deferred, At: now,
					Host:  "mx.partner.example[192.0.2.2]:25",
					Reply: relay.Reply{Code: 451, Status: relay.Status{4, 4, 1}, Text: "could not connect: connection refused"}}}, false)
			})
		}
		wg.Wait()
	}
}
