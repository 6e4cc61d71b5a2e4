package queue_test

import (
	"testing"
	"time"

	"relayd/queue"
	"relayd/relay"
)

// The age of a letter is how long it has truly been here: whoever sets the clock while we run makes none
// older, so that none is warned of, returned or late by that. What was written under a wrong clock counts
// as what it makes younger, but for times that are still to come.
func TestClockSetWhileRunning(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		written time.Duration // how long ago it was accepted, by today's clock
		set     time.Duration // ahead, after it came
		want    time.Duration // its age
	}{
		{"ahead", 10*day + minute, 10 * day, minute},
		{"back", minute - 10*day, -10 * day, minute},
		{"by a second", minute, time.Second, minute},
		{"right again, ahead when we started", hour, -10 * day, hour},
		{"right again, far behind when we started", hour, 20000 * day, hour},
	} {
		for _, recorded := range []bool{false, true} {
			f := newOffice(t)
			env := envelope("bob@a.example")
			env.Accepted = env.Accepted.Add(-c.written)
			env.By = relay.DeliverBy{At: env.Accepted.Add(2 * hour), Return: true}
			if err := f.stage(env, text).Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			if recorded {
				f.reopen()
			}
			f.q.SetClock(c.set)
			if _, err := f.q.Retry(t.Context(), queue.Filter{}); err != nil {
				t.Fatal(err)
			}
			for _, it := range append(f.list(queue.Filter{}), f.take(1, nil)...) {
				if age := time.Since(it.Accepted); (age - c.want).Abs() > minute/2 {
					t.Errorf("%s, recorded %v: its age is %v, want %v", c.name, recorded, age, c.want)
				}
				if it.By.At.Sub(it.Accepted) != 2*hour {
					t.Errorf("%s, recorded %v: it is to arrive %v after it came", c.name, recorded, it.By.At.Sub(it.Accepted))
				}
				if _, step := (queue.Schedule{}).Of(&it, time.Now(), 0); it.Attempts > 0 && step != queue.StepRetry && step != queue.StepNotify {
					t.Errorf("%s, recorded %v: %v", c.name, recorded, step)
				}
			}
			f.dropAll()
		}
	}
}

// A letter that comes after the clock was set has the times of the new one.
func TestClockSetBefore(t *testing.T) {
	t.Parallel()
	f := newOffice(t)
	f.q.SetClock(10 * day)
	f.send("bob@a.example")
	for _, it := range append(f.list(queue.Filter{}), f.take(1, nil)...) {
		if age := time.Since(it.Accepted); age.Abs() > minute/2 {
			t.Errorf("its age is %v", age)
		}
	}
	f.dropAll()
}

// What the sender was told before and after the clock was set still counts as told.
func TestClockSetAfterAWarning(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for name, c := range map[string]struct {
		set, accepted, told time.Duration // ago
		by                  time.Duration // after it came; 0: none
	}{
		"told, then ahead":              {10 * day, 10*day + 5*hour, 10*day + 30*minute, 0},
		"ahead, then told":              {10 * day, 10*day + 5*hour, 30 * minute, 0},
		"told, then back":               {-10 * day, 5*hour - 10*day, 30*minute - 10*day, 0},
		"back, then told":               {-10 * day, 5*hour - 10*day, 30 * minute, 0},
		"told that it is late, ahead":   {10 * day, 10*day + 5*hour, 10*day + 30*minute, 2 * hour},
		"ahead, then told that it is":   {10 * day, 10*day + 5*hour, 30 * minute, 2 * hour},
		"the clock was not touched":     {0, 5 * hour, 30 * minute, 0},
		"not touched, and told of late": {0, 5 * hour, 30 * minute, 2 * hour},
	} {
		it := queue.Item{Attempts: 40, Warned: true, Told: now.Add(-c.told)}
		it.Accepted = now.Add(-c.accepted)
		if c.by > 0 {
			it.By.At = it.Accepted.Add(c.by)
		}
		queue.Retell(&it, c.set, now)
		_, step := (queue.Schedule{}).Of(&it, now, 0)
		if age := now.Sub(it.Accepted); (age-5*hour).Abs() > minute || step != queue.StepWarn || (queue.Schedule{}).Owes(step, &it) {
			t.Errorf("%s: at the age of %v, told %v ago: %v is owed", name, age, now.Sub(it.Told), step)
		}
	}
}
