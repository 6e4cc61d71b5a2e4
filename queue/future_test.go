package queue_test

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"relayd/queue"
	"relayd/relay"
)

// A letter of the future waits for its time, further off than any schedule asks, over a restart and the
// loss of the database; then its clocks begin. Nothing wakes it before but an operator.
func TestFutureRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newOffice(t)
		env := envelope("bob@a.example")
		env.Release = env.Accepted.Add(20 * day)
		if err := f.stage(env, text).Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		early := func(when string) {
			t.Helper()
			f.q.Hasten("")
			if items := f.take(1, nil); len(items) > 0 {
				t.Fatalf("taken %s", when)
			}
			if due, ok := f.q.NextDue(); !ok || due.Sub(env.Release).Abs() > time.Second {
				t.Fatalf("%s: due at %v, want %v", when, due, env.Release)
			}
		}
		early("at once")
		f.reopen()
		early("after a restart")
		time.Sleep(19 * day)
		early("a day before")
		time.Sleep(day)
		items := f.take(1, nil)
		if len(items) != 1 {
			t.Fatal("not due at its time")
		}
		if _, step := (queue.Schedule{}).Of(&items[0], time.Now().Add(time.Minute), 0); step != queue.StepRetry {
			t.Errorf("after its first attempt it is %v", step)
		}
		if wait := time.Until(items[0].Next); wait < 5*minute || wait > 6*minute {
			t.Errorf("tried again after %v", wait)
		}
		f.settle(items[0], relay.Deferred)
		for it, step := items[0], queue.StepRetry; step != queue.StepGiveUp; {
			time.Sleep(time.Until(it.Next))
			it = f.take(1, nil)[0]
			if _, step = (queue.Schedule{}).Of(&it, time.Now(), 0); step == queue.StepGiveUp {
				if age := time.Since(env.Release); age < 5*day || age > 5*day+time.Minute {
					t.Errorf("given up %v after its release", age)
				}
			}
			f.settle(it, relay.Deferred)
		}
		f.dropAll()
	})
}

func TestFutureReleaseWithoutADatabase(t *testing.T) {
	t.Parallel()
	f := newOffice(t)
	env := envelope("bob@a.example")
	env.Release = env.Accepted.Add(20 * day)
	if err := f.stage(env, text).Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.close()
	if err := os.Remove(filepath.Join(f.dir, "relayd.db")); err != nil {
		t.Fatal(err)
	}
	f.open()
	if items := f.take(1, nil); len(items) > 0 {
		t.Fatal("taken before its time")
	}
	if it := f.list(queue.Filter{})[0]; !it.Release.Equal(env.Release) || !it.Next.Equal(env.Release) {
		t.Errorf("%+v", it)
	}
	if n, err := f.q.Retry(t.Context(), queue.Filter{}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if items := f.take(1, nil); len(items) != 1 {
		t.Error("the operator says now")
	}
}

// TestOf: the clocks of an item stand still while our line is down, and an attempt falls on the time by
// which its sender wants it delivered.
func TestOf(t *testing.T) {
	t.Parallel()
	born := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name     string
		attempts int
		age      time.Duration // now
		lost     time.Duration
		by       time.Duration // 0: none
		back     bool
		told     time.Duration // 0: never
		step     queue.Step
		next     time.Duration // its age; 0: not looked at
	}{
		{name: "five days", attempts: 40, age: 5 * day, step: queue.StepGiveUp},
		{name: "five days, one lost", attempts: 40, age: 5 * day, lost: day, step: queue.StepWarn},
		{name: "six days, one lost", attempts: 40, age: 6 * day, lost: day, step: queue.StepGiveUp},
		{name: "the last attempt", attempts: 40, age: 6*day - time.Hour, lost: day, step: queue.StepWarn, next: 6 * day},
		{name: "in time, returned", attempts: 1, age: time.Minute, by: 3 * minute, back: true, step: queue.StepRetry, next: 3 * minute},
		{name: "in time, told", attempts: 1, age: time.Minute, by: 3 * minute, step: queue.StepRetry, next: 3 * minute},
		{name: "time enough", attempts: 1, age: time.Second, by: time.Hour, step: queue.StepRetry},
		{name: "returned", attempts: 2, age: 3 * minute, by: 3 * minute, back: true, step: queue.StepGiveUp},
		{name: "told", attempts: 2, age: 3 * minute, by: 3 * minute, step: queue.StepOverdue},
		{name: "told before its time", attempts: 9, age: 5 * time.Hour, by: 5 * time.Hour, told: 4 * time.Hour, step: queue.StepOverdue},
		{name: "told already", attempts: 9, age: time.Hour, by: 3 * minute, told: 3 * minute, step: queue.StepNotify},
		{name: "late before it came", attempts: 1, age: time.Second, by: -time.Hour, step: queue.StepOverdue},
		{name: "the end comes first", attempts: 40, age: 5 * day, by: 6 * day, step: queue.StepGiveUp},
	} {
		it := queue.Item{Attempts: c.attempts}
		it.ID, it.Accepted = relay.NewID(born), born
		if c.by != 0 {
			it.By = relay.DeliverBy{At: born.Add(c.by), Return: c.back}
		}
		if c.told > 0 {
			it.Warned, it.Told = true, born.Add(c.told)
		}
		now := born.Add(c.age)
		next, step := (queue.Schedule{}).Of(&it, now, c.lost)
		if step != c.step || !next.After(now) || c.next != 0 && !next.Equal(born.Add(c.next)) {
			t.Errorf("%s: %v, next at the age of %v", c.name, step, next.Sub(born))
		}
		if owes := (queue.Schedule{}).Owes(step, &it); step == queue.StepOverdue && !owes {
			t.Errorf("%s: nobody is told", c.name)
		}
	}
}
