package queue

// Frozen calls f while nobody writes to the database, so that it can be copied.
func (q *Queue) Frozen(f func()) {
	q.committing.Lock()
	defer q.committing.Unlock()
	f()
}
