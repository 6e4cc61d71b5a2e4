package delivery_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"relayd/delivery"
	"relayd/queue"
	"relayd/relay"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func wantEvents(t *testing.T, h *house, want ...string) {
	t.Helper()
	if got := h.log(); !slices.Equal(got, want) {
		t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// New mail leaves at once, and an idle drain sleeps.
func TestWakesForNewMailAndSleepsOtherwise(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHouse(t)
		h.deliver = answer
		stop := h.run()
		time.Sleep(24 * time.Hour)
		idle := h.takes()
		start := time.Now()
		h.put("ann@office.example", "bob@partner.example")
		synctest.Wait()
		if h.left() != 0 || time.Since(start) != 0 {
			t.Errorf("%d letters left after %v", h.left(), time.Since(start))
		}
		stop()
		wantEvents(t, h, "deliver bob", "settle bob delivered")
		if idle > 2 {
			t.Errorf("the queue was asked %d times on an idle day", idle)
		}
	})
}

// An attempt begins when it is due, not at some later look at the queue.
func TestKeepsTime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHouse(t)
		h.schedule = queue.Schedule{Retry: []time.Duration{10 * time.Second}, GiveUpAfter: time.Hour}
		h.deliver = answer
		h.put("ann@office.example", "slow@partner.example")
		stop := h.run()
		time.Sleep(34 * time.Second) // 10 to 11 seconds between attempts
		stop()
		if n := len(slices.DeleteFunc(h.log(), func(s string) bool { return s != "deliver slow" })); n != 4 {
			t.Errorf("%d attempts in 34 seconds, want 4", n)
		}
	})
}

// What was delivered is settled first, then the report is submitted, then the failure is settled:
// a crash at any line loses neither letter nor report and delivers nothing twice.
func TestReportsBeforeItSettles(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHouse(t)
		h.deliver = answer
		h.put("ann@office.example", "bob@partner.example", "bad@partner.example", "slow@partner.example")
		stop := h.run()
		synctest.Wait()
		stop()
		wantEvents(t, h, "deliver bob bad slow", "settle bob delivered", "report failed to ann@office.example",
			"settle bad failed, slow deferred")
		r := h.sent()[0]
		for _, want := range []string{"no such user", "mx1.partner.example", "Subject: letter\r\n", "bad@partner.example"} {
			if !strings.Contains(r, want) {
				t.Errorf("%q is not in the report:\n%s", want, r)
			}
		}
		for _, not := range []string{"secret text", "slow@", "bob@"} {
			if strings.Contains(r, not) {
				t.Errorf("%q is in the report:\n%s", not, r)
			}
		}
	})
}

func TestNeverReportsToNobody(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHouse(t)
		h.deliver = answer
		h.put("", "bad@partner.example")
		h.put("", "slow@other.example")
		stop := h.run()
		time.Sleep(6 * 24 * time.Hour)
		stop()
		if len(h.sent()) != 0 || h.left() != 0 {
			t.Errorf("%d reports, %d letters left", len(h.sent()), h.left())
		}
	})
}

// A letter that looks ten days old at its first attempt, because the clock was set or relayd stood still,
// is not returned for its age. The warning names the time when it is, which lies ahead.
func TestWarningOfAnOldLetter(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHouse(t)
		h.deliver = answer
		k := h.put("ann@office.example", "slow@partner.example")
		h.mu.Lock()
		h.items[k].Accepted = time.Now().Add(-10 * 24 * time.Hour)
		h.mu.Unlock()
		start := time.Now()
		stop := h.run()
		defer stop()
		time.Sleep(24 * time.Hour)
		_, until, _ := strings.Cut(h.sent()[0], "Will-Retry-Until: ")
		until, _, _ = strings.Cut(until, "\r\n")
		end, err := time.Parse(time.RFC1123Z, until)
		if err != nil || end.Before(start.Add(24*time.Hour)) {
			t.Fatalf("returned at %q, %v:\n%s", until, err, h.sent()[0])
		}
		time.Sleep(time.Until(end.Add(-time.Second)))
		if len(h.sent()) != 1 || h.left() != 1 {
			t.Fatalf("just before the end: %d reports, %d letters", len(h.sent()), h.left())
		}
		time.Sleep(5 * time.Second)
		if len(h.sent()) != 2 || h.left() != 0 {
			t.Errorf("after the end: %d reports, %d letters", len(h.sent()), h.left())
		}
	})
}

// Five days of "come back": one warning, one report at the end, with the remote's last words.
func TestGivesUpAfterFiveDays(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHouse(t)
		h.deliver = answer
		start := time.Now()
		h.put("ann@office.example", "slow@partner.example")
		stop := h.run()
		// The first attempt after four hours falls between 4:00 and 8:40, by the jitter.
		time.Sleep(9 * time.Hour)
		if len(h.sent()) != 1 || !strings.Contains(h.sent()[0], "Action: delayed") ||
			!strings.Contains(h.sent()[0], "Will-Retry-Until: "+start.Add(5*24*time.Hour).Format(time.RFC1123Z)) {
			t.Fatalf("after 9 hours: %q", h.sent())
		}
		time.Sleep(5*24*time.Hour - 9*time.Hour - time.Second)
		if len(h.sent()) != 1 || h.left() != 1 {
			t.Fatalf("a second before the end: %d reports, %d letters", len(h.sent()), h.left())
		}
		time.Sleep(2 * time.Second)
		stop()
		if h.left() != 0 || len(h.sent()) != 2 {
			t.Fatalf("at the end: %d reports, %d letters", len(h.sent()), h.left())
		}
		for _, want := range []string{"Action: failed", "Status: 4.4.7", "smtp; 451 4.7.1 greylisted, come back", "We tried for 5 days"} {
			if !strings.Contains(h.sent()[1], want) {
				t.Errorf("%q is not in the last report:\n%s", want, h.sent()[1])
			}
		}
		if events := h.log(); events[len(events)-1] != "settle slow failed" || events[len(events)-2] != "report failed to ann@office.example" {
			t.Errorf("the end: %q", events[len(events)-3:])
		}
	})
}

// While reports cannot be submitted, failures stay in the queue; the delivered are not delivered
// again, and the report goes out once it can.
func TestWaitsForTheFrontDoor(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHouse(t)
		h.deliver = answer
		full := true
		h.refuse = func() error {
			if full {
				return relay.Fail("intake", relay.ScopeMessage, relay.Reply{Code: 452, Status: relay.Status{4, 3, 1}, Text: "full"}, errDisk)
			}
			return nil
		}
		h.put("ann@office.example", "bob@partner.example", "bad@partner.example")
		stop := h.run()
		synctest.Wait()
		h.mu.Lock()
		full = false
		h.mu.Unlock()
		time.Sleep(time.Hour)
		stop()
		wantEvents(t, h, "deliver bob bad", "settle bob delivered", "report refused", "settle bad deferred",
			"deliver bad", "report failed to ann@office.example", "settle bad failed")
	})
}

// A sender whose address takes no mail, such as a scanner's, hears nothing of a failure; the postmaster
// does. While he cannot hear of it either the letter stays.
func TestSenderWhoDoesNotExist(t *testing.T) {
	for refusals, want := range map[int][]string{
		1: {"deliver bad", "report refused", "report failed to postmaster", "settle bad failed"},
		2: {"deliver bad", "report refused", "report refused", "settle bad deferred"},
	} {
		bubble(t, func(t *testing.T) {
			h := newHouse(t)
			h.deliver = answer
			h.refuse = func() error {
				if refusals--; refusals < 0 {
					return nil
				}
				return fmt.Errorf("intake: submit: %w", relay.Refuse("intake", 550, "5.1.1", "no such user"))
			}
			h.put("ghost@office.example", "bad@partner.example")
			stop := h.run()
			synctest.Wait()
			stop()
			wantEvents(t, h, want...)
			if sent := h.sent(); len(sent) > 0 && !strings.Contains(sent[0], "an address that takes no mail") {
				t.Errorf("the report:\n%s", sent[0])
			}
		})
	}
}

// A letter that makes the deliverer panic is deferred, warned about and in the end returned like
// any other, and the others go on.
func TestPoisonousItem(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHouse(t)
		h.deliver = func(ctx context.Context, env relay.Envelope, d relay.Domain) []relay.Result {
			if d == "poison.example" {
				panic("index out of range")
			}
			return answer(ctx, env, d)
		}
		k := h.put("ann@office.example", "x@poison.example")
		h.put("ann@office.example", "bob@partner.example")
		stop := h.run()
		synctest.Wait()
		if last := h.items[k].Last; h.left() != 1 || len(last) != 1 || last[0].At.IsZero() || last[0].Reply.Status != (relay.Status{4, 3, 0}) {
			t.Errorf("%d letters left, %+v", h.left(), last)
		}
		time.Sleep(6 * 24 * time.Hour)
		stop()
		if h.left() != 0 || len(h.sent()) != 2 {
			t.Errorf("%d letters left, %d reports", h.left(), len(h.sent()))
		}
	})
}

func TestResultsThatDoNotFit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHouse(t)
		h.deliver = func(_ context.Context, env relay.Envelope, _ relay.Domain) []relay.Result {
			a := env.Rcpts[0].Addr
			stranger := address(t, "stranger@partner.example")
			return []relay.Result{
				{Rcpt: a, Outcome: relay.Delivered}, {Rcpt: a, Outcome: relay.Delivered},
				{Rcpt: stranger, Outcome: relay.Failed}, {Rcpt: env.Rcpts[1].Addr, Outcome: "nonsense"},
			}
		}
		h.put("ann@office.example", "a@partner.example", "b@partner.example", "c@partner.example")
		stop := h.run()
		synctest.Wait()
		stop()
		wantEvents(t, h, "deliver a b c", "settle a delivered, b deferred, c deferred")
	})
}

// A remote that has answered gets the next letter while our disk still records the answer; letters
// that are being recorded count against all attempts.
func TestSettlingHoldsNoPlaceAtTheDestination(t *testing.T) {
	bubble(t, func(t *testing.T) {
		disk := make(chan struct{})
		h := newHouse(t, func(o *delivery.Options) {
			o.Total, o.PerDestination = 3, 1
			o.Step = func(name string) {
				if name == "attempt: made" {
					<-disk
				}
			}
		})
		var talking atomic.Int32
		h.deliver = func(ctx context.Context, env relay.Envelope, d relay.Domain) []relay.Result {
			if talking.Add(1) > 1 {
				t.Error("two attempts at one destination")
			}
			defer talking.Add(-1)
			time.Sleep(time.Second)
			return answer(ctx, env, d)
		}
		for range 5 {
			h.put("ann@office.example", "bob@partner.example")
		}
		stop := h.run()
		defer stop()
		time.Sleep(3500 * time.Millisecond)
		if n := len(h.log()); n != 3 {
			t.Errorf("%d attempts while the disk records, want 3: %q", n, h.log())
		}
		close(disk)
		time.Sleep(10 * time.Second)
		if n := h.left(); n != 0 {
			t.Errorf("%d letters are left", n)
		}
	})
}

// A destination that hangs takes its own slots and nobody else's.
func TestSlowDestinationSlowsNobody(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHouse(t, func(o *delivery.Options) { o.Total, o.PerDestination = 20, 5 })
		var slow, all, most atomic.Int32
		h.deliver = func(ctx context.Context, env relay.Envelope, d relay.Domain) []relay.Result {
			now := all.Add(1)
			defer all.Add(-1)
			for old := most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
			}
			if d == "slow.example" {
				if slow.Add(1) > 5 {
					t.Error("more than 5 attempts at one destination")
				}
				defer slow.Add(-1)
				time.Sleep(10 * time.Minute)
			} else {
				time.Sleep(time.Second)
			}
			return answer(ctx, env, d)
		}
		for range 40 {
			h.put("ann@office.example", "bob@slow.example")
		}
		stop := h.run()
		synctest.Wait()
		start := time.Now()
		for i := range 60 {
			h.put("ann@office.example", fmt.Sprintf("bob@fast%d.example", i))
		}
		for h.left() > 40 {
			time.Sleep(100 * time.Millisecond)
		}
		if took := time.Since(start); took > 6*time.Second {
			t.Errorf("60 letters of a second each took %v beside a slow destination", took)
		}
		if most.Load() != 17 { // what remains is kept for destinations that are known to work
			t.Errorf("%d attempts at once, want 17", most.Load())
		}
		// One becomes due by time alone while the slow one has more than it may take.
		h.put("ann@office.example", "slow@later.example")
		asked := h.takes()
		time.Sleep(7 * time.Minute)
		if n := len(slices.DeleteFunc(h.log(), func(s string) bool { return s != "deliver slow" })); n != 2 {
			t.Errorf("%d attempts in 7 minutes, want 2", n)
		}
		if n := h.takes() - asked; n > 7*60+20 {
			t.Errorf("asked %d times in 7 minutes", n)
		}
		time.Sleep(2 * time.Hour)
		stop()
		if n := len(slices.DeleteFunc(h.log(), func(s string) bool { return s != "settle bob delivered" })); n != 100 {
			t.Errorf("%d letters delivered, want 100", n)
		}
	})
}

// An attempt that outlasts the time to the next one is not joined by a second.
func TestNeverTwiceAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHouse(t)
		h.deliver = func(ctx context.Context, env relay.Envelope, d relay.Domain) []relay.Result {
			time.Sleep(time.Hour)
			return answer(ctx, env, d)
		}
		k := h.put("ann@office.example", "bob@partner.example")
		stop := h.run()
		time.Sleep(30 * time.Minute)
		if n, err := h.Bounce(t.Context(), queue.Filter{}, ""); n != 0 || err == nil || !strings.Contains(err.Error(), k.String()) {
			t.Errorf("bounced %d letters under way: %v", n, err)
		}
		time.Sleep(time.Hour)
		stop()
		wantEvents(t, h, "deliver bob", "settle bob delivered")
	})
}

// At the end nothing new is taken, running attempts get their grace, and what they came to is settled.
func TestStopsWithGrace(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHouse(t)
		h.deliver = func(ctx context.Context, env relay.Envelope, d relay.Domain) []relay.Result {
			long := 5 * time.Second
			if d == "slow.example" {
				long = time.Hour
			}
			select {
			case <-time.After(long):
				return answer(ctx, env, d)
			case <-ctx.Done():
				return nil
			}
		}
		// Old enough to be given up, were the attempt not broken off by us.
		k := h.put("ann@office.example", "bob@slow.example")
		h.items[k].Accepted = time.Now().Add(-30 * 24 * time.Hour)
		h.items[k].Attempts = 100
		h.put("ann@office.example", "bob@partner.example")
		stop := h.run()
		synctest.Wait()
		start := time.Now()
		stop()
		if took := time.Since(start); took != 10*time.Second {
			t.Errorf("took %v", took)
		}
		h.put("ann@office.example", "bob@late.example")
		synctest.Wait()
		wantEvents(t, h, h.log()[0], h.log()[1], "settle bob delivered", "settle bob deferred")
		if h.left() != 2 || len(h.sent()) != 0 {
			t.Errorf("%d letters left, %d reports", h.left(), len(h.sent()))
		}
	})
}

// What is delivered and cannot be recorded is not delivered again while the disk is full.
func TestFullDisk(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHouse(t)
		full := false
		h.broken = func() error {
			if full {
				return errDisk
			}
			return nil
		}
		h.deliver = func(ctx context.Context, env relay.Envelope, d relay.Domain) []relay.Result {
			h.mu.Lock()
			full = true
			h.mu.Unlock()
			return answer(ctx, env, d)
		}
		h.put("ann@office.example", "bob@partner.example")
		stop := h.run()
		time.Sleep(time.Hour)
		if h.takes() > 80 {
			t.Errorf("asked a broken queue %d times in an hour", h.takes())
		}
		h.mu.Lock()
		full = false
		h.mu.Unlock()
		time.Sleep(2 * time.Minute)
		stop()
		got := slices.DeleteFunc(h.log(), func(s string) bool { return s == "settle failed" })
		if !slices.Equal(got, []string{"deliver bob", "settle bob delivered"}) {
			t.Errorf("got %q", got)
		}
	})
}

// An operator who drops an item while it is being delivered does not hang its worker.
func TestItemDroppedMeanwhile(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHouse(t)
		h.deliver = func(ctx context.Context, env relay.Envelope, d relay.Domain) []relay.Result {
			h.mu.Lock()
			clear(h.items)
			h.mu.Unlock()
			return answer(ctx, env, d)
		}
		h.put("ann@office.example", "bob@partner.example")
		start := time.Now()
		stop := h.run()
		synctest.Wait()
		stop()
		if took := time.Since(start); took != 0 {
			t.Errorf("took %v", took)
		}
	})
}

// A body that is lost for good is reported, one that cannot be read now is deferred, and a letter
// that was dropped meanwhile is nobody's business.
func TestBodyThatCannotBeRead(t *testing.T) {
	for err, want := range map[error][]string{
		queue.ErrDamaged:  {"report failed to ann@office.example", "settle bob failed"},
		errDisk:           {"settle bob deferred"},
		queue.ErrNotFound: nil,
	} {
		bubble(t, func(t *testing.T) {
			h := newHouse(t)
			h.noBody = err
			h.put("ann@office.example", "bob@partner.example")
			stop := h.run()
			synctest.Wait()
			stop()
			wantEvents(t, h, want...)
		})
	}
}

func TestBounce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHouse(t)
		h.put("ann@office.example", "bob@partner.example", "carol@partner.example")
		h.put("", "dave@partner.example")
		h.put("ann@office.example", "eve@other.example")
		n, err := h.Bounce(t.Context(), queue.Filter{Domain: "partner.example"}, "our contract has ended")
		if n != 2 || err != nil || h.left() != 1 || len(h.sent()) != 1 {
			t.Fatalf("%d bounced, %v, %d left, %d reports", n, err, h.left(), len(h.sent()))
		}
		for _, want := range []string{"our contract has ended", "<bob@partner.example>", "<carol@partner.example>"} {
			if !strings.Contains(h.sent()[0], want) {
				t.Errorf("%q is not in the report:\n%s", want, h.sent()[0])
			}
		}
		h.refuse = func() error { return errDisk }
		if n, err := h.Bounce(t.Context(), queue.Filter{}, ""); n != 0 || err == nil || h.left() != 1 {
			t.Errorf("without a report: %d bounced, %v, %d left", n, err, h.left())
		}
	})
}
