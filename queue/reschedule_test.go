package queue_test

import (
	"errors"
	"testing"
	"time"

	"relayd/queue"
	"relayd/relay"
)

// The time an operator sets holds, further off than any schedule asks and over a restart, and after
// that attempt the schedule goes on. A hold outranks it.
func TestReschedule(t *testing.T) {
	t.Parallel()
	f := newOffice(t)
	id := f.send("bob@a.example")
	held := f.send("bob@b.example")
	if _, err := f.q.Hold(t.Context(), queue.Filter{Domain: "b.example"}); err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(10 * day).Round(time.Second)
	if n, err := f.q.Reschedule(t.Context(), queue.Filter{}, at); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	check := func(when string) {
		t.Helper()
		for _, it := range f.list(queue.Filter{}) {
			if it.ID != held && (!it.Next.Equal(at) || !it.Scheduled) {
				t.Errorf("%s: next %v, want %v", when, it.Next, at)
			}
		}
		if due, ok := f.q.NextDue(); !ok || due.Sub(at).Abs() > time.Minute {
			t.Errorf("%s: due %v, want %v", when, due, at)
		}
		if got := takeAt(f, time.Now().Add(9*day)); len(got) > 0 {
			t.Fatalf("%s: taken too early: %s", when, keys(got))
		}
	}
	check("at once")
	f.reopen()
	check("after a restart")
	got := takeAt(f, at.Add(time.Minute))
	if len(got) != 1 || got[0].ID != id || got[0].Scheduled {
		t.Fatal(keys(got))
	}
	f.settle(got[0], "deferred")
	for _, it := range f.list(queue.Filter{IDs: []relay.ID{id}}) {
		if wait := it.Next.Sub(at); wait < 5*minute || wait > 10*minute || it.Scheduled {
			t.Errorf("then due %v after", wait)
		}
	}
	if _, err := f.q.Drop(t.Context(), queue.Filter{}); err != nil { // its attempt was in the future
		t.Fatal(err)
	}
	if _, err := f.q.Reschedule(t.Context(), queue.Filter{}, time.Now().Add(31*day)); !errors.Is(err, queue.ErrTooFar) {
		t.Error(err)
	}
}

// What a rule holds is held from the first moment, for its own domain alone and with the reason,
// over a restart.
func TestHoldNew(t *testing.T) {
	t.Parallel()
	f := newOffice(t)
	f.close()
	q, err := queue.Open(f.dir, queue.Options{Hold: func(it *queue.Item) string {
		return map[string]string{"b.example": "a rule"}[string(it.Domain)]
	}})
	if err != nil {
		t.Fatal(err)
	}
	f.q = q
	if err := f.stage(envelope("bob@a.example", "carl@b.example"), text).Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := f.take(10, nil); len(got) != 1 || got[0].Domain != "a.example" {
		t.Fatal(keys(got))
	}
	f.reopen()
	yes := true
	if got := f.list(queue.Filter{Held: &yes}); len(got) != 1 || got[0].Domain != "b.example" || got[0].Hold != "a rule" {
		t.Errorf("%+v", got)
	}
}

func takeAt(f *office, now time.Time) []queue.Item {
	f.Helper()
	items, err := f.q.Take(f.Context(), now, 10, nil)
	if err != nil {
		f.Fatal(err)
	}
	return items
}
