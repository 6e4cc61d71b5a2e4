package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"relayd/delivery"
	"relayd/queue"
	"relayd/relay"
)

// office is a drain on a real queue, between a deliverer and a front door that remember.
type office struct {
	t        *testing.T
	dir      string
	queue    *queue.Queue
	schedule queue.Schedule

	mu        sync.Mutex
	delivered map[string]int
	attempts  int
	reports   []string

	// The crash: after so many steps nothing reaches the disk any more. A step is done or not
	// done when it comes, by turns.
	steps   int
	crashAt int // 0: never
	crashed bool
}

var errCrash = errors.New("the power is off")

func newOffice(t *testing.T, schedule queue.Schedule) *office {
	o := &office{t: t, dir: t.TempDir(), schedule: schedule, delivered: map[string]int{}}
	o.open()
	return o
}

func (o *office) open() {
	o.t.Helper()
	q, err := queue.Open(o.dir, queue.Options{Schedule: o.schedule, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		o.t.Fatal(err)
	}
	o.queue = q
}

func (o *office) close() {
	o.t.Helper()
	if err := errors.Join(o.queue.Check(o.t.Context()), o.queue.Close()); err != nil {
		o.t.Error(err)
	}
}

func (o *office) put(from string, rcpts ...string) {
	o.t.Helper()
	env := relay.Envelope{ID: relay.NewID(time.Now()), From: address(o.t, from), Accepted: time.Now()}
	for _, r := range rcpts {
		env.Rcpts = append(env.Rcpts, relay.Recipient{Addr: address(o.t, r)})
	}
	staged, err := o.queue.Stage(o.t.Context(), env)
	if err != nil {
		o.t.Fatal(err)
	}
	if _, err := io.WriteString(staged, "Subject: letter\r\n\r\ntext\r\n"); err != nil {
		o.t.Fatal(err)
	}
	if err := staged.Commit(o.t.Context()); err != nil {
		o.t.Fatal(err)
	}
}

// run drains for so long.
func (o *office) run(long time.Duration) {
	o.t.Helper()
	d := delivery.New(delivery.Options{
		Queue: crashing{o.queue, o}, Deliverer: o, Submit: o, Hostname: "mail.office.example",
		Schedule: func() queue.Schedule { return o.schedule }, Log: slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithTimeout(o.t.Context(), long)
	defer cancel()
	if err := d.Run(ctx); err != nil {
		o.t.Error(err)
	}
}

// step does what f does unless the power is off, or goes off just before or just after.
func (o *office) step(f func() error) error {
	o.mu.Lock()
	o.steps++
	before := o.crashed || o.crashAt > 0 && o.steps == o.crashAt && o.crashAt%2 == 0
	o.crashed = o.crashed || o.crashAt > 0 && o.steps >= o.crashAt
	after := o.crashed
	o.mu.Unlock()
	if before {
		return errCrash
	}
	if err := f(); err != nil || !after {
		return err
	}
	return errCrash
}

func (o *office) Deliver(ctx context.Context, env relay.Envelope, d relay.Domain, body io.ReadSeeker) (results []relay.Result) {
	text, err := io.ReadAll(body)
	if err != nil || string(text) != "Subject: letter\r\n\r\ntext\r\n" {
		o.t.Errorf("body %q, %v", text, err)
	}
	_ = o.step(func() error {
		results = answer(ctx, env, d)
		o.mu.Lock()
		defer o.mu.Unlock()
		o.attempts++
		for _, res := range results {
			if res.Outcome == relay.Delivered {
				o.delivered[res.Rcpt.Local]++
			}
		}
		return nil
	})
	return results
}

func (o *office) Submit(_ context.Context, env relay.Envelope, body io.Reader) error {
	text, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	return o.step(func() error {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.reports = append(o.reports, string(text))
		return nil
	})
}

// crashing is the real queue while the power lasts.
type crashing struct {
	*queue.Queue
	o *office
}

func (c crashing) Take(ctx context.Context, now time.Time, n int, skip func(relay.Domain) bool) (items []queue.Item, err error) {
	if c.o.crashedYet() {
		return nil, errCrash
	}
	return c.Queue.Take(ctx, now, n, skip)
}

func (c crashing) Settle(ctx context.Context, k queue.Key, results []relay.Result, warned bool) error {
	return c.o.step(func() error { return c.Queue.Settle(ctx, k, results, warned) })
}

func (o *office) crashedYet() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.crashed
}

func (o *office) left() int {
	n := 0
	for _, err := range o.queue.List(o.t.Context(), queue.Filter{}) {
		if err != nil {
			o.t.Error(err)
		}
		n++
	}
	return n
}

// The whole life of letters over a real queue: delivered at once, refused and reported, and five
// days of trying with one warning and one report at the end.
func TestFiveDaysOverARealQueue(t *testing.T) {
	bubble(t, func(t *testing.T) {
		o := newOffice(t, queue.DefaultSchedule())
		defer o.close()
		o.put("ann@office.example", "bob@partner.example", "bad@partner.example", "slow@partner.example", "eve@other.example")
		o.put("", "slow@third.example")
		o.run(9 * time.Hour)
		if o.delivered["bob"] != 1 || o.delivered["eve"] != 1 || len(o.reports) != 2 || o.left() != 2 {
			t.Fatalf("after 9 hours: delivered %v, %d reports, %d items", o.delivered, len(o.reports), o.left())
		}
		o.run(5*24*time.Hour - 9*time.Hour + time.Minute)
		if o.left() != 0 || len(o.reports) != 3 || !strings.Contains(o.reports[2], "greylisted, come back") {
			t.Errorf("after 5 days: %d items, %d reports", o.left(), len(o.reports))
		}
		if o.attempts < 2*30 || o.attempts > 2*40 {
			t.Errorf("%d attempts in 5 days", o.attempts)
		}
	})
}

// The power goes off before or after every single step of a letter's life. Afterwards, from what
// is on the disk alone, everybody has the letter or its sender a report.
func TestCrashAtEveryStep(t *testing.T) {
	whole := 0
	for crashAt := range 12 {
		bubble(t, func(t *testing.T) {
			o := newOffice(t, queue.Schedule{Retry: []time.Duration{5 * time.Minute, 2 * time.Hour}, WarnAfter: 4 * time.Hour, GiveUpAfter: 12 * time.Hour})
			o.crashAt = crashAt
			o.put("ann@office.example", "bob@partner.example", "bad@partner.example", "slow@partner.example")
			o.run(10 * time.Minute)
			if crashAt == 0 {
				whole = o.steps
			}
			o.close()
			o.crashAt, o.crashed = 0, false
			o.open()
			defer o.close()
			o.run(15 * time.Hour)
			what := fmt.Sprintf("crash at step %d", crashAt)
			if o.left() != 0 {
				t.Errorf("%s: %d items left", what, o.left())
			}
			if n := o.delivered["bob"]; n < 1 || n > 2 {
				t.Errorf("%s: bob got the letter %d times", what, n)
			}
			reported := map[string]int{}
			for _, r := range o.reports {
				for _, name := range []string{"bad", "slow"} {
					if strings.Contains(r, "Action: failed") && strings.Contains(r, "Final-Recipient: rfc822; "+name+"@") {
						reported[name]++
					}
				}
			}
			if reported["bad"] < 1 || reported["bad"] > 2 || reported["slow"] != 1 {
				t.Errorf("%s: reports %v", what, reported)
			}
		})
	}
	if whole < 4 || whole > 11 {
		t.Errorf("a letter takes %d steps; the crashes do not cover them", whole)
	}
}

// Far more letters than slots, to one domain and to many, all leave, each once.
func TestBacklog(t *testing.T) {
	bubble(t, func(t *testing.T) {
		o := newOffice(t, queue.DefaultSchedule())
		defer o.close()
		for i := range 120 {
			o.put("ann@office.example", fmt.Sprintf("bob%d@%s.example", i, []string{"one", "two", fmt.Sprint("d", i)}[i%3]))
		}
		start := time.Now()
		o.run(30 * time.Second)
		for name, n := range o.delivered {
			if n != 1 {
				t.Errorf("%s got %d letters", name, n)
			}
		}
		if len(o.delivered) != 120 || o.left() != 0 {
			t.Errorf("%d delivered, %d left after %v", len(o.delivered), o.left(), time.Since(start))
		}
	})
}

// An operator's retry may fall between the settling of an attempt and its end: the item is then
// taken while its last attempt still counts as under way. It must be tried when that has ended, and
// not when Take forgets about it, two hours later.
func TestTakenBeforeTheAttemptEnds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		o := newOffice(t, queue.DefaultSchedule())
		defer o.close()
		settled := 0
		d := delivery.New(delivery.Options{
			Queue: o.queue, Deliverer: o, Submit: o, Hostname: "mail.office.example",
			Schedule: queue.DefaultSchedule, Log: slog.New(slog.DiscardHandler),
			Step: func(name string) {
				if name != "attempt: settled" {
					return
				}
				if settled++; settled > 1 {
					return
				}
				if _, err := o.queue.Retry(context.Background(), queue.Filter{}); err != nil {
					t.Error(err)
				}
				for o.queue.Stats().Taken == 0 {
					time.Sleep(time.Millisecond)
				}
				time.Sleep(time.Second)
			},
		})
		o.put("ann@office.example", "slow@partner.example")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := d.Run(ctx); err != nil {
			t.Error(err)
		}
		if o.attempts != 2 {
			t.Errorf("%d attempts in a minute, want 2", o.attempts)
		}
	})
}
