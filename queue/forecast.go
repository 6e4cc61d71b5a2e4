package queue

import (
	"iter"
	"time"

	"relayd/relay"
)

// Forecast is one attempt that has not been made yet.
type Forecast struct {
	Attempt int       // its number, from 1
	At      time.Time // when it is made, if nothing comes between
	Step    Step      // what it comes to should it fail too
}

// Forecast tells what becomes of a letter accepted at born that has had attempts attempts and is
// due at next, should every attempt fail at the moment it is made. The last one has StepGiveUp.
// With Retry of a second and GiveUpAfter of days there are many: a caller stops when it has enough.
func (s Schedule) Forecast(born time.Time, attempts int, next time.Time, id relay.ID) iter.Seq[Forecast] {
	return func(yield func(Forecast) bool) {
		for n, at := attempts+1, next; ; n++ {
			following, step := s.Next(born, n, at, id)
			if !yield(Forecast{n, at, step}) || step == StepGiveUp {
				return
			}
			at = following
		}
	}
}

// End is when such a letter is returned, at the earliest; false where that lies too many attempts
// ahead to be worth counting.
func (s Schedule) End(born time.Time, attempts int, next time.Time, id relay.ID) (time.Time, bool) {
	for f := range s.Forecast(born, attempts, next, id) {
		if f.Step == StepGiveUp {
			return f.At, true
		}
		if f.Attempt-attempts >= maxForecast {
			break
		}
	}
	return time.Time{}, false
}

// maxForecast bounds, in attempts, the look ahead of End.
const maxForecast = 20_000
