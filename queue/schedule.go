package queue

import (
	"hash/fnv"
	"maps"
	"strconv"
	"time"

	"relayd/relay"
)

// Schedule is the whole time policy of the queue: when to try again, when to tell the sender
// that it takes long, when to stop (RFC 5321 §4.5.4.1). The zero value means DefaultSchedule.
type Schedule struct {
	Retry       []time.Duration // the pause after each attempt; the last one repeats
	NotifyAfter time.Duration   // age at which our own people hear of the delay; 0: as everybody
	WarnAfter   time.Duration   // age at which every sender hears of the delay; 0: never
	GiveUpAfter time.Duration   // age at which the letter is returned

	except map[relay.Domain]time.Duration // GiveUpAfter of single domains
}

// Except is s with another GiveUpAfter for the letters to d; For knows it.
func (s Schedule) Except(d relay.Domain, giveUpAfter time.Duration) Schedule {
	s.except = maps.Clone(s.except)
	if s.except == nil {
		s.except = map[relay.Domain]time.Duration{}
	}
	s.except[d] = giveUpAfter
	return s
}

// For is the schedule of letters to d.
func (s Schedule) For(d relay.Domain) Schedule {
	if long, ok := s.except[d]; ok {
		s = s.orDefault()
		s.GiveUpAfter = long
	}
	s.except = nil
	return s
}

// DefaultSchedule is what an office gets that configures nothing.
func DefaultSchedule() Schedule {
	return Schedule{
		Retry: []time.Duration{
			5 * time.Minute, 15 * time.Minute, 30 * time.Minute,
			time.Hour, 2 * time.Hour, 4 * time.Hour,
		},
		NotifyAfter: 15 * time.Minute,
		WarnAfter:   4 * time.Hour,
		GiveUpAfter: 5 * 24 * time.Hour,
	}
}

// Step is what an attempt that did not deliver comes to.
type Step int

// The steps. StepOverdue is that the time has passed by which the sender wanted the letter delivered,
// and now wants to hear of it. StepNotify is StepRetry where the sender is not one of our people. It and StepWarn stay
// true as long as the letter is of that age: whoever acts on them asks Owes first.
const (
	StepRetry Step = iota
	StepNotify
	StepWarn
	StepOverdue
	StepGiveUp
)

func (s Step) String() string { return [...]string{"retry", "notify", "warn", "overdue", "give up"}[s] }

// Owes says whether the step that an attempt came to owes the sender of it a word about the delay: one
// of our own people an early one, everybody one at WarnAfter, each once.
func (s Schedule) Owes(step Step, it *Item) bool {
	switch step {
	case StepNotify:
		return !it.Warned && it.Origin.Submitted()
	case StepWarn:
		early := !it.Told.IsZero() && it.Told.Before(it.Born().Add(s.orDefault().WarnAfter))
		return !it.Warned || early
	case StepOverdue:
		return it.Told.Before(it.By.At)
	}
	return false
}

// Of is Next for an item. Its clocks begin with its release, and stand still for as long as our own
// line was down, which is lost. An attempt falls on the time by which its sender wanted it delivered (RFC
// 2852): from then on it is given up, or its sender is told once.
func (s Schedule) Of(it *Item, now time.Time, lost time.Duration) (time.Time, Step) {
	s = s.For(it.Domain)
	next, step := s.Next(it.Born().Add(lost), it.Attempts, now, it.ID)
	switch {
	case it.By.IsZero() || step == StepGiveUp:
	case !it.By.Overdue(now):
		if it.By.At.Before(next) {
			next = later(it.By.At, now.Add(time.Second))
		}
	case it.By.Return:
		step = StepGiveUp
	case s.Owes(StepOverdue, it):
		step = StepOverdue
	}
	return next, step
}

func later(t, u time.Time) time.Time {
	if t.Before(u) {
		return u
	}
	return t
}

// Next says what becomes of an item accepted at born when the attempt that made its count
// attempts has failed temporarily at now, and when it is due again. The time is in the future
// and at most Longest away for every Step, so that an item about to be given up does not come
// back at once if we crash before saying so.
//
// The pause is the configured one plus up to a tenth, drawn from a hash of id and attempts:
// letters that failed together do not come back together, and a listing shows the true time. An
// attempt falls on each age at which somebody is told of the delay, so that he hears of it then and
// not hours later, and the last one on born + GiveUpAfter.
//
// Age alone never gives up: a clock that jumps ahead by a week would return every letter at its
// next attempt. Half of the attempts that fit into GiveUpAfter must have been made as well. A
// clock behind born makes the letter young, never due later than Longest.
func (s Schedule) Next(born time.Time, attempts int, now time.Time, id relay.ID) (time.Time, Step) {
	s = s.orDefault()
	if attempts < 1 {
		return now, StepRetry
	}
	pause, age := s.pause(attempts), now.Sub(born)
	for _, told := range []time.Duration{s.NotifyAfter, s.WarnAfter} {
		if left := told - age; left > 0 && left < pause {
			pause = max(left, time.Second)
		}
	}
	pause += time.Duration(float64(pause) / 10 * chance(id, attempts))
	if left := s.GiveUpAfter - age; left > 0 && left < pause {
		pause = max(left, time.Second)
	}
	switch {
	case age >= s.GiveUpAfter && attempts >= s.fewest():
		return now.Add(pause), StepGiveUp
	case s.WarnAfter > 0 && age >= s.WarnAfter:
		return now.Add(pause), StepWarn
	case s.NotifyAfter > 0 && age >= s.NotifyAfter:
		return now.Add(pause), StepNotify
	}
	return now.Add(pause), StepRetry
}

// Longest is the longest time Next ever lets an item wait.
func (s Schedule) Longest() time.Duration {
	longest := time.Second
	for _, p := range s.orDefault().Retry {
		longest = max(longest, p)
	}
	return longest + longest/10
}

func (s Schedule) orDefault() Schedule {
	d := DefaultSchedule()
	if len(s.Retry) == 0 {
		if s.WarnAfter == 0 && s.GiveUpAfter == 0 {
			return d
		}
		s.Retry = d.Retry
	}
	return s
}

// pause is the configured one after so many attempts; a second at least, because a pause of
// nothing would dial without end.
func (s Schedule) pause(attempts int) time.Duration {
	return max(s.Retry[min(attempts, len(s.Retry))-1], time.Second)
}

// fewest is half of the attempts that fit into GiveUpAfter, one at least.
func (s Schedule) fewest() int {
	planned, at := 1, time.Duration(0)
	for i := range s.Retry {
		if at += s.pause(i + 1); at > s.GiveUpAfter {
			return (planned + 1) / 2
		}
		planned++
	}
	planned += int((s.GiveUpAfter - at) / s.pause(len(s.Retry)))
	return (planned + 1) / 2
}

// chance is a number in [0,1) that depends on nothing but id and attempt.
func chance(id relay.ID, attempt int) float64 {
	h := fnv.New64a()
	h.Write(strconv.AppendInt([]byte(id), int64(attempt), 10))
	// FNV leaves the high bits of short inputs alike; multiplying and shifting stirs them.
	x := h.Sum64()
	x ^= x >> 32
	x *= 0x9e3779b97f4a7c15
	return float64(x>>11) / (1 << 53)
}
