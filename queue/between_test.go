package queue_test

import (
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"relayd/queue"
	"relayd/relay"
)

// stumbling is an office whose next transaction breaks off when it is told to.
func stumbling(t *testing.T) (f *office, stumble func()) {
	t.Helper()
	f = newOffice(t)
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
	return f, func() { armed.Store(true) }
}

// A transaction that fails takes nothing from the letters whose records it was to write: they are seen,
// leave and get their records as before, at the latest from an end in order.
func TestYoungLetterOverAFailedCommit(t *testing.T) {
	f, stumble := stumbling(t)
	first, second := f.send("bob@a.example"), f.send("carl@b.example")
	stumble()
	is(t, "while the disk fails", keysOf(f.list(queue.Filter{})), string(first)+"/a.example", string(second)+"/b.example")
	is(t, "the database", f.recorded(f.left()))
	for _, it := range f.take(1, func(d relay.Domain) bool { return d != "a.example" }) {
		f.settle(it, relay.Delivered)
	}
	is(t, "later", keysOf(f.list(queue.Filter{})), string(second)+"/b.example")
	is(t, "the database", f.recorded(f.left()), string(second)+"/b.example")

	third := f.send("dora@c.example")
	stumble()
	f.list(queue.Filter{})
	f.reopen()
	is(t, "the next start", keysOf(f.list(queue.Filter{})), string(second)+"/b.example", string(third)+"/c.example")
}

// What an operator does to an item after Take has picked it and before it is handed out, counts.
func TestOperatorBetweenPickAndTake(t *testing.T) {
	t.Parallel()
	for _, verb := range []string{"hold", "drop"} {
		for _, before := range []string{"young", "recorded", "attempted"} {
			t.Run(verb+" "+before, func(t *testing.T) {
				t.Parallel()
				f := newOffice(t)
				id := f.send("bob@a.example")
				f.send("carl@b.example")
				when := time.Now()
				if before != "young" {
					f.list(queue.Filter{})
				}
				if before == "attempted" {
					for _, it := range f.take(2, nil) {
						f.settle(it, relay.Deferred)
					}
					when = when.Add(time.Hour)
				}
				picked := queue.Filter{IDs: []relay.ID{id}}
				items, err := f.q.Take(t.Context(), when, 2, func(d relay.Domain) bool {
					if d == "b.example" {
						n, err := 0, error(nil)
						if verb == "hold" {
							n, err = f.q.Hold(t.Context(), picked)
						} else {
							n, err = f.q.Drop(t.Context(), picked)
						}
						if n != 1 || err != nil {
							t.Error(n, err)
						}
					}
					return false
				})
				if err != nil || len(items) != 1 || items[0].Domain != "b.example" {
					t.Errorf("took %s, %v", keys(items), err)
				}
				if verb == "drop" {
					return
				}
				if n, err := f.q.Release(t.Context(), picked); n != 1 || err != nil {
					t.Error(n, err)
				}
				if items := f.take(9, nil); len(items) != 1 || items[0].ID != id {
					t.Errorf("after the release: took %s", keys(items))
				}
			})
		}
	}
}

// An operator's word during the first attempt, of which no record knows, does not make the next start
// forget that attempt.
func TestOperatorDuringFirstAttempt(t *testing.T) {
	t.Parallel()
	for name, verb := range map[string]func(*office, queue.Filter) (int, error){
		"route": func(f *office, k queue.Filter) (int, error) { return f.q.Reroute(f.Context(), k, "smart.example") },
		"hold":  func(f *office, k queue.Filter) (int, error) { return f.q.Hold(f.Context(), k) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newOffice(t)
			f.send("bob@a.example")
			it := f.take(1, nil)[0]
			if n, err := verb(f, queue.Filter{Keys: []queue.Key{it.Key()}}); n != 1 || err != nil {
				t.Fatal(n, err)
			}
			for when, g := range map[string]*office{"now": f, "after a crash": f.crash()} {
				if got := g.one(it.ID); got.Attempts != 1 || !got.Next.Equal(it.Next) {
					t.Errorf("%s: attempt %d, next %v; want 1, %v", when, got.Attempts, got.Next, it.Next)
				}
			}
			f.settle(it, relay.Deferred)
			if got := f.one(it.ID); got.Attempts != 1 || !got.Next.Equal(it.Next) {
				t.Errorf("settled: attempt %d, next %v; want 1, %v", got.Attempts, got.Next, it.Next)
			}
		})
	}
}

// A letter that is withdrawn while its records are being written leaves neither records nor a file.
func TestYoungLetterWithdrawnWhileRecorded(t *testing.T) {
	f := newOffice(t)
	f.close()
	var s relay.Staged
	var armed atomic.Bool
	gone := make(chan error, 1)
	q, err := queue.Open(f.dir, queue.Options{Step: func(name string) {
		if name == "queue: applied" && armed.CompareAndSwap(true, false) {
			go func() { gone <- s.Abort() }()
			select {
			case err := <-gone: // before the records are there, and nobody would take them away
				gone <- err
			case <-time.After(300 * time.Millisecond):
			}
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	f.q = q
	s = f.stage(envelope("bob@a.example"), text)
	if err := s.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	armed.Store(true)
	f.list(queue.Filter{})
	if err := <-gone; err != nil {
		t.Error(err)
	}
	is(t, "the queue", keysOf(f.list(queue.Filter{})))
	is(t, "the files", f.files())
	is(t, "after a crash", keysOf(f.crash().list(queue.Filter{})))
}

// A letter of the future that a crash found without its records does not leave before its time.
func TestFutureLetterTakenIn(t *testing.T) {
	f := newOffice(t)
	f.send("bob@a.example")
	f.list(queue.Filter{})
	before := f.dbText()
	env := envelope("carl@b.example")
	env.Release = time.Now().Add(time.Hour).Round(0)
	if err := f.stage(env, text).Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	dead := f.left()
	if err := os.WriteFile(filepath.Join(dead, "relayd.db"), []byte(before), 0o600); err != nil {
		t.Fatal(err)
	}
	g := &office{TB: t, dir: dead}
	g.open()
	t.Cleanup(g.finish)
	if it := g.one(env.ID); !it.Next.Equal(env.Release) {
		t.Errorf("due at %v, not at %v", it.Next, env.Release)
	}
}

// What a Take has begun is handed out, though the attempts it had to record could not be; those are due
// again at once.
func TestTakeOverAFailedCommit(t *testing.T) {
	f, stumble := stumbling(t)
	f.send("bob@a.example")
	f.settle(f.take(1, nil)[0], relay.Deferred)
	f.send("carl@b.example")
	stumble()
	later := time.Now().Add(time.Hour)
	for _, want := range []relay.Domain{"b.example", "a.example"} {
		items, err := f.q.Take(t.Context(), later, 9, nil)
		if err != nil || len(items) != 1 || items[0].Domain != want {
			t.Errorf("took %s, %v; want %s", keys(items), err, want)
		}
	}
}
