package queue

import "time"

// Records keep times of the wall clock, and the schedule asks for ages. When somebody sets the clock
// while we run, the times of an item are told by the clock as it goes now: otherwise ten days ahead would
// warn of every letter, and return those that were tried often enough or had a time to arrive by.
//
// Of the two ways to read a time of the past, as it was written and as it would be written now, the one
// counts that makes the letter younger, as long as it is not in the future: a clock that was wrong when we
// started and is then set right must not age what its records tell truly.

// clockSet is how far the two clocks may part before somebody has set one of them.
const clockSet = 2 * time.Second

// ahead is how far the wall clock has been set ahead since the queue was opened.
func (c clock) ahead(now time.Time) time.Duration {
	return now.Round(0).Sub(c.wall) - now.Sub(c.base)
}

// retell tells the times of an item that came when the wall clock was so far ahead.
func (c clock) retell(it *Item, ahead time.Duration, now time.Time) {
	set := c.ahead(now) - ahead
	if set.Abs() <= clockSet {
		return
	}
	past := func(t time.Time) time.Time {
		read, latest := t.Add(set), now.Round(0).Add(clockSet)
		switch {
		case set > 0 && !read.After(latest), set < 0 && t.After(latest):
			return read
		}
		return t
	}
	written := it.Accepted
	it.Accepted = past(written)
	moved := it.Accepted.Sub(written)
	if !it.Release.IsZero() {
		it.Release = it.Release.Add(moved)
	}
	if !it.By.IsZero() {
		it.By.At = it.By.At.Add(moved)
	}
	if !it.Told.IsZero() {
		it.Told = past(it.Told)
	}
}

// retell shows an item that was read by the wall clock as it goes at now, with the time at which it is
// truly due. The record of one that is just being handed out may be ahead of the index, where it is due
// still.
func (q *Queue) retell(it *Item, now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	e := q.index.get(it.Key())
	if e == nil {
		return
	}
	q.clock.retell(it, e.ahead, now)
	wait := time.Duration(e.next - q.clock.at(now))
	due := now.UTC().Round(0).Add(wait)
	if (!e.taken || wait > 0) && due.Sub(it.Next).Abs() > clockSet {
		it.Next = due
	}
}
