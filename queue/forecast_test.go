package queue_test

import (
	"testing"
	"time"

	"relayd/queue"
	"relayd/relay"
)

// What is foretold of a letter is what Next says at every attempt: it warns once the age is there,
// and ends, at the age at which letters are returned.
func TestForecast(t *testing.T) {
	t.Parallel()
	born := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	id := relay.NewID(born)
	var s queue.Schedule
	at, n, warned := born, 0, false
	for f := range s.Forecast(born, 0, born, id) {
		n++
		next, step := s.Next(born, n, at, id)
		if f.Attempt != n || !f.At.Equal(at) || f.Step != step {
			t.Fatalf("attempt %d at %v: %v; foretold %+v", n, at, step, f)
		}
		if step == queue.StepWarn && !warned {
			warned = true
			if age := at.Sub(born); age < 4*hour || age > 9*hour {
				t.Errorf("warns at the age of %v", age)
			}
		}
		if step == queue.StepGiveUp && !at.Equal(born.Add(5*day)) {
			t.Errorf("gives up at %v", at)
		}
		at = next
	}
	if n < 30 || n > 40 || !warned {
		t.Errorf("%d attempts, warned: %v", n, warned)
	}
	for f := range s.Forecast(born, 40, born.Add(6*day), id) {
		if f.Attempt != 41 || f.Step != queue.StepGiveUp {
			t.Errorf("of an old letter: %+v", f)
		}
	}
}

// End is the last attempt foretold: at the age at which letters are returned, and later for a letter
// that was seldom tried, because age alone gives nothing up.
func TestEnd(t *testing.T) {
	t.Parallel()
	born := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	id := relay.NewID(born)
	var s queue.Schedule
	if end, ok := s.End(born, 1, born.Add(5*minute), id); !ok || !end.Equal(born.Add(5*day)) {
		t.Errorf("it ends at %v", end)
	}
	// As old as that after two attempts: the clock was set.
	late := born.Add(10 * day)
	if end, ok := s.End(born, 2, late, id); !ok || !end.After(late.Add(day)) {
		t.Errorf("a seldom tried one ends at %v", end)
	}
	s = queue.Schedule{Retry: []time.Duration{time.Second}, GiveUpAfter: 365 * day}
	if end, ok := s.End(born, 1, born.Add(time.Second), id); ok {
		t.Errorf("a million attempts were counted, to %v", end)
	}
}
