package queue_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"relayd/queue"
	"relayd/relay"
)

const (
	minute = time.Minute
	hour   = time.Hour
	day    = 24 * hour
)

func TestScheduleNext(t *testing.T) {
	short := queue.Schedule{Retry: []time.Duration{time.Second}, GiveUpAfter: 10 * time.Second}
	for _, c := range []struct {
		name     string
		s        queue.Schedule
		age      time.Duration
		attempts int
		wait     time.Duration // a tenth may come on top
		step     queue.Step
	}{
		{"never tried", queue.Schedule{}, 0, 0, 0, queue.StepRetry},
		{"first", queue.Schedule{}, 0, 1, 5 * minute, queue.StepRetry},
		{"second", queue.Schedule{}, 5 * minute, 2, 10 * minute, queue.StepRetry},
		{"sixth", queue.Schedule{}, 3 * hour, 6, hour, queue.StepNotify},
		{"the last pause repeats", queue.Schedule{}, 12 * hour, 9, 4 * hour, queue.StepWarn},
		{"warn", queue.Schedule{}, 4 * hour, 6, 4 * hour, queue.StepWarn},
		{"not yet notify", queue.Schedule{}, 15*minute - 1, 2, time.Second, queue.StepRetry},
		{"notify", queue.Schedule{}, 15 * minute, 2, 15 * minute, queue.StepNotify},
		{"not yet warn", queue.Schedule{}, 4*hour - 1, 6, time.Second, queue.StepNotify},
		{"the last attempt falls on the end", queue.Schedule{}, 5*day - hour, 30, hour, queue.StepWarn},
		{"give up", queue.Schedule{}, 5 * day, 31, 4 * hour, queue.StepGiveUp},
		{"give up late", queue.Schedule{}, 50 * day, 31, 4 * hour, queue.StepGiveUp},
		{"the clock jumped ahead", queue.Schedule{}, 50 * day, 3, 30 * minute, queue.StepWarn},
		{"half of the attempts", queue.Schedule{}, 50 * day, 18, 4 * hour, queue.StepGiveUp},
		{"fewer than half", queue.Schedule{}, 50 * day, 17, 4 * hour, queue.StepWarn},
		{"the clock is behind", queue.Schedule{}, -400 * day, 4, hour, queue.StepRetry},
		{"the clock is behind, late", queue.Schedule{}, -400 * day, 99, 4 * hour, queue.StepRetry},
		{"short, no warning", short, 9 * time.Second, 9, time.Second, queue.StepRetry},
		{"short", short, 10 * time.Second, 9, time.Second, queue.StepGiveUp},
		{"a pause of nothing is a second", queue.Schedule{Retry: []time.Duration{0}, GiveUpAfter: hour}, 0, 1, time.Second, queue.StepRetry},
		{"one attempt", queue.Schedule{Retry: []time.Duration{minute}}, 0, 1, minute, queue.StepGiveUp},
	} {
		t.Run(c.name, func(t *testing.T) {
			born := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
			now := born.Add(c.age)
			next, step := c.s.Next(born, c.attempts, now, relay.NewID(born))
			if wait := next.Sub(now); step != c.step || wait < c.wait || wait > c.wait+c.wait/10 {
				t.Errorf("got %v, %v; want %v, %v", wait, step, c.wait, c.step)
			}
		})
	}
}

// For any schedule and any clock: the next time lies ahead and within Longest, the answer depends
// on the arguments alone, and a letter that is tried when due is given up in the end, with its last
// attempt at its age and not much later.
func TestScheduleProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := queue.Schedule{
			Retry: rapid.SliceOfN(rapid.Map(rapid.Int64Range(0, int64(6*hour)), func(n int64) time.Duration {
				return time.Duration(n)
			}), 0, 8).Draw(t, "retry"),
			WarnAfter:   time.Duration(rapid.Int64Range(0, int64(2*day)).Draw(t, "warn")),
			GiveUpAfter: time.Duration(rapid.Int64Range(0, int64(6*day)).Draw(t, "give up")),
		}
		if len(s.Retry) > 0 {
			last := &s.Retry[len(s.Retry)-1]
			*last = max(*last, time.Minute) // or the walk below has half a million steps
		}
		born := time.Unix(rapid.Int64Range(0, 1<<33).Draw(t, "born"), 0)
		id := relay.NewID(born)
		now := born.Add(time.Duration(rapid.Int64Range(-int64(1000*day), int64(1000*day)).Draw(t, "skew")))
		attempts := rapid.IntRange(1, 1000).Draw(t, "attempts")
		next, step := s.Next(born, attempts, now, id)
		if again, same := s.Next(born, attempts, now, id); again != next || same != step {
			t.Fatalf("asked twice: %v %v, %v %v", next, step, again, same)
		}
		if wait := next.Sub(now); wait < time.Second || wait > s.Longest() {
			t.Fatalf("waits %v, the longest is %v", wait, s.Longest())
		}
		now = born
		for n := 1; ; n++ {
			next, step := s.Next(born, n, now, id)
			if step == queue.StepGiveUp {
				break
			}
			if age := now.Sub(born); s.GiveUpAfter > 0 && age > s.GiveUpAfter+time.Second {
				t.Fatalf("still %v at the age of %v after %d attempts on time", step, age, n)
			}
			now = next
		}
	})
}

// Letters that fail together do not come back together.
func TestScheduleJitterSpreads(t *testing.T) {
	now := time.Now()
	buckets := map[int]int{}
	for range 1000 {
		next, _ := queue.Schedule{}.Next(now, 1, now, relay.NewID(now))
		buckets[int((next.Sub(now)-5*minute)/(3*time.Second))]++
	}
	for i := range 10 {
		if buckets[i] < 50 || buckets[i] > 200 {
			t.Errorf("tenth %d of the jitter has %d of 1000", i, buckets[i])
		}
	}
}

// Our own people hear of a delay early and again when everybody does; each once.
func TestOwes(t *testing.T) {
	born := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	people, stranger := relay.Origin{User: "ann@office.example"}, relay.Origin{Service: "smtp"}
	for _, c := range []struct {
		name   string
		origin relay.Origin
		warned bool
		told   time.Duration // age at which; 0: at no time
		step   queue.Step
		want   bool
	}{
		{"young", people, false, 0, queue.StepRetry, false},
		{"early, people", people, false, 0, queue.StepNotify, true},
		{"early, on the submission port", relay.Origin{Service: "submissions"}, false, 0, queue.StepNotify, true},
		{"early, stranger", stranger, false, 0, queue.StepNotify, false},
		{"early, again", people, true, 16 * time.Minute, queue.StepNotify, false},
		{"late, people", people, true, 16 * time.Minute, queue.StepWarn, true},
		{"late, untold", people, false, 0, queue.StepWarn, true},
		{"late, stranger", stranger, false, 0, queue.StepWarn, true},
		{"late, again", people, true, 4*time.Hour + time.Second, queue.StepWarn, false},
		{"late, told by an older version", stranger, true, 0, queue.StepWarn, false},
		{"the end", people, false, 0, queue.StepGiveUp, false},
	} {
		it := queue.Item{Warned: c.warned}
		it.Accepted, it.Origin = born, c.origin
		if c.told > 0 {
			it.Told = born.Add(c.told)
		}
		if got := (queue.Schedule{}).Owes(c.step, &it); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
