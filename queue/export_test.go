package queue

import "time"

// Frozen calls f while nobody writes to the database, so that it can be copied.
func (q *Queue) Frozen(f func()) {
	q.committing.Lock()
	defer q.committing.Unlock()
	f()
}

// SetClock makes it seem that the wall clock has been set ahead by d just now. Records written before
// have times of the clock as it was, which are those of today less d.
func (q *Queue) SetClock(d time.Duration) { q.clock.wall = q.clock.wall.Add(-d) }

// Retell is what is shown at now of an item that came before the clock was set ahead by set.
func Retell(it *Item, set time.Duration, now time.Time) {
	clock{now, now.Round(0).Add(-set)}.retell(it, 0, now)
}
