package queue_test

import (
	"slices"
	"sync/atomic"
	"testing"

	"relayd/queue"
)

// A panic in a transaction costs the letter it was for, which is refused, and nothing else: the next
// letter gets its record.
func TestQueueOutlivesAPanic(t *testing.T) {
	f := newOffice(t)
	f.close()
	var armed atomic.Bool
	q, err := queue.Open(f.dir, queue.Options{Step: func(name string) {
		if name == "queue: applied" && armed.CompareAndSwap(true, false) {
			panic("a page that is none")
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	f.q = q
	f.send("bob@a.example")
	armed.Store(true)
	bad := envelope("carl@b.example")
	bad.Hold = "it gets its record before its 250"
	s := f.stage(bad, text)
	if err := s.Commit(t.Context()); err == nil {
		t.Error("committed")
	}
	if err := s.Abort(); err != nil {
		t.Error(err)
	}
	good := envelope("dora@c.example")
	good.Hold = bad.Hold
	if err := f.stage(good, text).Commit(t.Context()); err != nil {
		t.Error(err)
	}
	if items := f.list(queue.Filter{}); len(items) != 2 || !slices.ContainsFunc(items, func(it queue.Item) bool { return it.ID == good.ID }) {
		t.Errorf("%s", keys(items))
	}
}
