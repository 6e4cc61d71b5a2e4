package queue_test

import (
	"os"
	"path/filepath"
	"testing"

	"relayd/queue"
)

// TestHeldFromTheStart: a letter that comes with a reason to hold it is never taken before it is
// released, over a restart and over the loss of the database, and the reason can be read.
func TestHeldFromTheStart(t *testing.T) {
	f := newOffice(t)
	env := envelope("bob@a.example", "carl@b.example")
	env.Hold, env.Origin.User = "wrote too much", "Ann@office.example"
	if err := f.stage(env, text).Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	other := f.send("bob@a.example")
	yes := true
	check := func(when string) {
		t.Helper()
		if s := f.q.Stats(); s.Held != 2 {
			t.Errorf("%s: %d held", when, s.Held)
		}
		held := f.list(queue.Filter{Held: &yes, User: "ann@office.example"})
		if len(held) != 2 || held[0].Hold != "wrote too much" || !held[0].Held {
			t.Errorf("%s: %+v", when, held)
		}
		if got := f.list(queue.Filter{User: "ann@office"}); len(got) > 0 {
			t.Errorf("%s: a part of a name chose %s", when, keys(got))
		}
	}
	check("at once")
	if got := f.take(10, nil); len(got) != 1 || got[0].ID != other {
		t.Fatalf("took %s", keys(got))
	}
	f.reopen()
	check("after a restart")
	f.close()
	if err := os.Remove(filepath.Join(f.dir, "relayd.db")); err != nil {
		t.Fatal(err)
	}
	f.open()
	check("without its database")
	if n, err := f.q.Release(t.Context(), queue.Filter{User: "ann@office.example"}); n != 2 || err != nil {
		t.Fatalf("released %d, %v", n, err)
	}
	taken := 0
	for _, it := range f.take(10, nil) {
		if it.ID != env.ID {
			continue
		}
		taken++
		if it.Domain == "a.example" {
			f.settle(it, "deferred")
		}
	}
	if taken != 2 {
		t.Errorf("took %d after the release", taken)
	}
	// An operator's hold later on is for another reason.
	if _, err := f.q.Hold(t.Context(), queue.Filter{Domain: "a.example", User: "ann@office.example"}); err != nil {
		t.Fatal(err)
	}
	if got := f.list(queue.Filter{Held: &yes}); len(got) != 1 || got[0].Hold != "" {
		t.Errorf("held by hand: %+v", got)
	}
}
