package queue_test

import (
	"flag"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"relayd/queue"
	"relayd/relay"
)

// backlog is given as -backlog 200000 to see the slope; its letters take a while to send.
var backlog = flag.Int("backlog", 20_000, "how many letters wait in the benchmarks of a backlog")

// BenchmarkCommit is the way of a letter of 10 KiB from Stage to the promise, with as many
// sessions at once; backlog=20000 does it behind a dead domain's letters.
func BenchmarkCommit(b *testing.B) {
	for _, behind := range []int{0, *backlog} {
		for _, sessions := range []int{1, 10, 50} {
			b.Run(fmt.Sprintf("backlog=%d/sessions=%d", behind, sessions), func(b *testing.B) {
				f := newOffice(b)
				fill(f, behind)
				body := strings.Repeat("0123456789abcde\r\n", 10<<10/17)
				b.ResetTimer()
				var left atomic.Int64
				left.Store(int64(b.N))
				var wg sync.WaitGroup
				for range sessions {
					wg.Go(func() {
						for left.Add(-1) >= 0 {
							if err := f.stage(envelope("x@a.example"), body).Commit(b.Context()); err != nil {
								b.Error(err)
							}
						}
					})
				}
				wg.Wait()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "letters/s")
				b.StopTimer()
				f.q.Drop(b.Context(), queue.Filter{})
			})
		}
	}
}

// BenchmarkTakeSettle is the drain's share: take, read the body, settle as delivered, with as
// many workers.
func BenchmarkTakeSettle(b *testing.B) {
	for _, workers := range []int{1, 10, 50} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			f := newOffice(b)
			fill(f, b.N)
			work := make(chan queue.Item, workers)
			var wg sync.WaitGroup
			b.ResetTimer()
			for range workers {
				wg.Go(func() {
					for it := range work {
						body, err := f.q.Body(it.ID)
						if err != nil {
							b.Error(err)
							continue
						}
						io.Copy(io.Discard, body)
						body.Close()
						f.settle(it, relay.Delivered)
					}
				})
			}
			for done := 0; done < b.N; {
				items := f.take(workers, nil)
				done += len(items)
				for _, it := range items {
					work <- it
				}
			}
			close(work)
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "items/s")
		})
	}
}

// BenchmarkBacklog is what 20,000 letters, or as many as -backlog says, for one dead domain cost:
// to open, to list, to look for something due while the domain is busy, to hold and release, and
// in memory.
func BenchmarkBacklog(b *testing.B) {
	f := newOffice(b)
	fill(f, *backlog)
	b.Cleanup(func() { f.q.Drop(b.Context(), queue.Filter{}) })
	b.Run("open", func(b *testing.B) {
		for range b.N {
			b.StopTimer()
			f.close()
			b.StartTimer()
			f.open()
		}
	})
	b.Run("memory", func(b *testing.B) {
		var before, after runtime.MemStats
		f.close()
		runtime.GC()
		runtime.ReadMemStats(&before)
		f.open()
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(*backlog), "B/item")
	})
	b.Run("list", func(b *testing.B) {
		for range b.N {
			n := 0
			for _, err := range f.q.List(b.Context(), queue.Filter{}) {
				if n++; err != nil {
					b.Fatal(err)
				}
			}
			if n != *backlog {
				b.Fatal(n)
			}
		}
	})
	b.Run("list to first", func(b *testing.B) {
		for range b.N {
			for range f.q.List(b.Context(), queue.Filter{}) {
				break
			}
		}
	})
	b.Run("take nothing, domain busy", func(b *testing.B) {
		for range b.N {
			f.take(50, func(relay.Domain) bool { return true })
		}
	})
	b.Run("take 50", func(b *testing.B) {
		for range b.N {
			f.take(50, nil)
		}
	})
	b.Run("hold and release", func(b *testing.B) {
		for range b.N {
			f.q.Hold(b.Context(), queue.Filter{})
			f.q.Release(b.Context(), queue.Filter{})
		}
	})
}

// A backlog is opened and listed in a time that nobody notices; the bounds are ten times what is
// measured, so that only a change of kind trips them.
func TestBacklog(t *testing.T) {
	if testing.Short() {
		t.Skip("20,000 letters take seconds to send")
	}
	f := newOffice(t)
	fill(f, 3000)
	f.close()
	start := time.Now()
	f.open()
	if took := time.Since(start); took > time.Second {
		t.Errorf("opening took %v", took)
	}
	asked := 0
	if items := f.take(50, func(relay.Domain) bool { asked++; return true }); len(items) != 0 || asked != 1 {
		t.Errorf("asked about one busy domain %d times", asked)
	}
	if items := f.take(50, nil); len(items) != 50 {
		t.Errorf("took %d", len(items))
	}
	if items := f.list(queue.Filter{To: "user1@"}); len(items) != 1 {
		t.Error(keys(items))
	}
}
