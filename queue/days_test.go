package queue_test

import (
	"testing"
	"testing/synctest"
	"time"

	"relayd/queue"
	"relayd/relay"
)

// Five days of attempts at a dead domain, over a real database with a restart in the middle: the
// pauses are the schedule's, the sender is warned once, and the end comes at five days.
func TestFiveDays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newOffice(t)
		f.send("x@dead.example")
		born, warned, attempts := time.Now(), time.Duration(0), []time.Duration{}
		for ended := false; !ended; {
			due, ok := f.q.NextDue()
			if !ok {
				t.Fatal("nothing is due")
			}
			time.Sleep(time.Until(due))
			items := f.take(10, nil)
			if len(items) != 1 {
				t.Fatalf("took %d at %v", len(items), time.Since(born))
			}
			it := items[0]
			time.Sleep(time.Minute) // the attempt
			attempts = append(attempts, time.Since(born))
			_, step := queue.Schedule{}.Next(it.Accepted, it.Attempts, time.Now(), it.ID)
			warn := step == queue.StepWarn && !it.Warned
			if warn {
				warned = time.Since(born)
			}
			outcome := relay.Deferred
			if ended = step == queue.StepGiveUp; ended {
				outcome = relay.Failed
			}
			if err := f.q.Settle(t.Context(), it.Key(), results(it, outcome), warn); err != nil {
				t.Fatal(err)
			}
			if len(attempts) == 10 {
				f.reopen()
			}
		}
		last := attempts[len(attempts)-1]
		if n := len(attempts); n < 30 || n > 36 || last < 120*time.Hour || last > 121*time.Hour {
			t.Errorf("%d attempts, the last at %v", n, last)
		}
		if warned < 4*time.Hour || warned > 9*time.Hour {
			t.Errorf("warned at %v", warned)
		}
		if _, ok := f.q.NextDue(); ok {
			t.Error("something is still due")
		}
	})
}

// A record written under another clock does not freeze: after a restart nothing waits longer than
// the schedule ever asks, and what was due stays due.
func TestClockSetBackWhileDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newOffice(t)
		far := time.Now().Add(1000 * time.Hour) // written while the clock ran ahead
		env := envelope("x@a.example")
		env.Accepted = far
		if err := f.stage(env, text).Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		f.reopen()
		due, ok := f.q.NextDue()
		if wait := time.Until(due); !ok || wait > (queue.Schedule{}).Longest() {
			t.Errorf("waits %v", wait)
		}
		for _, it := range f.list(queue.Filter{}) {
			if !it.Next.Equal(due) {
				t.Errorf("it is due at %v, and is listed as due at %v", due, it.Next)
			}
		}
		time.Sleep(time.Until(due))
		if items := f.take(1, nil); len(items) != 1 {
			t.Error("frozen")
		}
	})
}
