package delivery_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"relayd/delivery"
	"relayd/queue"
	"relayd/relay"
)

// sink takes every letter at once.
type sink struct {
	left atomic.Int64
	done context.CancelFunc
}

func (s *sink) Deliver(_ context.Context, env relay.Envelope, _ relay.Domain, body io.ReadSeeker) []relay.Result {
	_, _ = io.Copy(io.Discard, body)
	if s.left.Add(-1) == 0 {
		s.done()
	}
	return []relay.Result{{Rcpt: env.Rcpts[0].Addr, Outcome: relay.Delivered, At: time.Now()}}
}

func (*sink) Submit(context.Context, relay.Envelope, io.Reader) error { return nil }

// BenchmarkDrain is how fast a backlog leaves when the destinations cost nothing: what the drain
// and the disk allow.
func BenchmarkDrain(b *testing.B) {
	for _, domains := range []int{1, 100} {
		b.Run(fmt.Sprintf("%d-domains", domains), func(b *testing.B) {
			q, err := queue.Open(b.TempDir(), queue.Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer q.Close()
			fill(b, q, domains)
			ctx, cancel := context.WithCancel(b.Context())
			s := &sink{done: cancel}
			s.left.Store(int64(b.N))
			d := delivery.New(delivery.Options{Queue: q, Deliverer: s, Submit: s, Schedule: queue.DefaultSchedule, Log: slog.New(slog.DiscardHandler)})
			b.ResetTimer()
			if err := d.Run(ctx); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "letters/s")
		})
	}
}

func fill(b *testing.B, q *queue.Queue, domains int) {
	var wg sync.WaitGroup
	var next atomic.Int64
	for range 50 {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				env := relay.Envelope{ID: relay.NewID(time.Now()), Accepted: time.Now(), Rcpts: []relay.Recipient{
					{Addr: relay.Address{Local: "bob", Domain: relay.Domain(fmt.Sprintf("d%d.example", i%int64(domains)))}}}}
				staged, err := q.Stage(b.Context(), env)
				if err == nil {
					_, err = staged.Write(make([]byte, 10<<10))
				}
				if err == nil {
					err = staged.Commit(b.Context())
				}
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}
