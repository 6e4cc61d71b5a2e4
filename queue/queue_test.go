package queue_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"relayd/queue"
	"relayd/relay"
	"relayd/relay/durable"
)

// A letter to three domains becomes three items that share one body, each taken, tried and
// settled by itself; with the last the body goes.
func TestOneLetterOneBodyManyDomains(t *testing.T) {
	f := newOffice(t)
	id := f.send("bob@a.example", "carl@b.example", "dora@a.example", "eve@c.example")

	items := f.take(10, nil)
	slices.SortFunc(items, func(a, b queue.Item) int { return strings.Compare(string(a.Domain), string(b.Domain)) })
	if len(items) != 3 || len(items[0].Rcpts) != 2 || items[0].Domain != "a.example" || len(items[2].Rcpts) != 1 {
		t.Fatalf("took %s", keys(items))
	}
	if it := items[0]; it.Attempts != 1 || time.Until(it.Next) < 4*time.Minute || it.Size != int64(len(text)) {
		t.Errorf("attempts %d, next %v, size %d", it.Attempts, it.Next, it.Size)
	}
	for i, it := range items {
		if got := f.body(id); got != text {
			t.Errorf("before settling %d the body is %q", i, got)
		}
		f.settle(it, relay.Delivered)
	}
	if n := len(f.files()); n != 0 {
		t.Errorf("%d bodies left", n)
	}
	_, err := f.q.Body(id)
	wantError(t, err, queue.ErrNotFound)
	wantError(t, f.q.Settle(t.Context(), items[0].Key(), nil, false), queue.ErrNotFound)
}

// What an attempt taught stays on the item over a restart: who is done, who said what, how often,
// and when next.
func TestSettleKeepsWhatTheRemoteSaid(t *testing.T) {
	f := newOffice(t)
	id := f.send("bob@a.example", "carl@a.example", "dora@a.example")
	it := f.take(1, nil)[0]
	at := time.Now().UTC().Round(0)
	say := func(i int, o relay.Outcome, code int, text string) relay.Result {
		return relay.Result{Rcpt: it.Rcpts[i].Addr, Outcome: o, Host: "mx.a.example[192.0.2.1]:25", At: at,
			Reply: relay.Reply{Code: code, Status: relay.Status{code / 100, 1, 1}, Text: text}}
	}
	rs := []relay.Result{say(0, relay.Delivered, 250, "ok"), say(1, relay.Failed, 550, "who?\nnobody"), say(2, relay.Deferred, 450, "later")}
	if err := f.q.Settle(t.Context(), it.Key(), rs, true); err != nil {
		t.Fatal(err)
	}
	// A straggling answer about somebody who is done changes nothing.
	if err := f.q.Settle(t.Context(), it.Key(), []relay.Result{say(0, relay.Failed, 550, "late")}, false); err != nil {
		t.Fatal(err)
	}
	f.reopen()
	got, err := f.q.Get(t.Context(), id)
	if err != nil || len(got) != 1 {
		t.Fatal(got, err)
	}
	g := got[0]
	if len(g.Rcpts) != 1 || g.Rcpts[0].Addr.Local != "dora" || !g.Warned || g.Attempts != 1 || !g.Next.Equal(it.Next) {
		t.Errorf("pending %v, warned %v, attempts %d, next %v", g.Rcpts, g.Warned, g.Attempts, g.Next)
	}
	if !slices.Equal(g.Done, rs[:2]) || !slices.Equal(g.Last, rs[2:]) {
		t.Errorf("done %v\nlast %v", g.Done, g.Last)
	}
	if items := f.take(5, nil); len(items) != 0 {
		t.Errorf("took %s before its time", keys(items))
	}
}

// Domains take turns, skipped ones stay, and skip hears of each item it lets through.
func TestTakeIsFair(t *testing.T) {
	f := newOffice(t)
	for range 20 {
		f.send("x@dead.example")
	}
	f.send("x@b.example")
	f.send("x@c.example", "x@b.example")
	asked := map[relay.Domain]int{}
	skip := func(d relay.Domain) bool {
		if d == "dead.example" && asked[d] == 2 {
			return true
		}
		asked[d]++
		return false
	}
	items := f.take(4, skip)
	domains := map[relay.Domain]int{}
	for _, it := range items {
		domains[it.Domain]++
	}
	if len(items) != 4 || domains["dead.example"] != 2 || domains["b.example"] != 1 || domains["c.example"] != 1 {
		t.Errorf("took %s", keys(items))
	}
	if items := f.take(10, func(d relay.Domain) bool { return d == "dead.example" }); len(items) != 1 {
		t.Errorf("took %s, want the one of b.example", keys(items))
	}
	if due, ok := f.q.NextDue(); !ok || time.Until(due) > 0 {
		t.Errorf("skipped items are due at %v, %v", due, ok)
	}
	if items := f.take(100, nil); len(items) != 18 {
		t.Errorf("took %d, want the remaining 18", len(items))
	}
	if st := f.q.Stats(); st.Taken != 23 || st.Items != 23 || st.Letters != 22 || st.Domains != 3 {
		t.Errorf("stats %+v", st)
	}
}

// An item is in one attempt at a time however long it takes; one that is forgotten comes back.
func TestTakenItemsAreNotTakenTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newOffice(t)
		f.send("x@a.example")
		it := f.take(1, nil)[0]
		time.Sleep(time.Hour)
		if items := f.take(1, nil); len(items) != 0 {
			t.Error("an item in an attempt was taken again")
		}
		f.settle(it, relay.Deferred)
		if items := f.take(1, nil); len(items) != 1 || items[0].Attempts != 2 {
			t.Errorf("took %v after the long attempt", items)
		}
		time.Sleep(2 * time.Hour)
		if items := f.take(1, nil); len(items) != 1 || items[0].Attempts != 3 {
			t.Errorf("took %v, want the forgotten item", items)
		}
	})
}

func TestWake(t *testing.T) {
	f := newOffice(t)
	rang := func() bool {
		select {
		case <-f.q.Wake():
			return true
		default:
			return false
		}
	}
	if rang() {
		t.Error("rang in an empty queue")
	}
	f.send("x@a.example")
	if !rang() || rang() {
		t.Error("new mail must ring once")
	}
	if _, err := f.q.Hold(t.Context(), queue.Filter{}); err != nil {
		t.Fatal(err)
	}
	f.q.Release(t.Context(), queue.Filter{})
	if !rang() {
		t.Error("release must ring")
	}
	f.take(1, nil)
	rang()
	if n, err := f.q.Retry(t.Context(), queue.Filter{}); n != 1 || err != nil || !rang() {
		t.Error("retry must ring", n, err)
	}
}

// Abort before Commit leaves nothing; after it, it takes the letter back, in an attempt or not.
func TestAbort(t *testing.T) {
	f := newOffice(t)
	s := f.stage(envelope("x@a.example"), text)
	for range 2 {
		if err := s.Abort(); err != nil {
			t.Error(err)
		}
	}
	if err := s.Commit(t.Context()); err == nil {
		t.Error("committed after Abort")
	}
	for _, taken := range []bool{false, true} {
		s := f.stage(envelope("x@a.example", "y@b.example"), text)
		if err := s.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		var items []queue.Item
		if taken {
			items = f.take(1, nil)
		}
		for range 2 {
			if err := s.Abort(); err != nil {
				t.Error(err)
			}
		}
		for _, it := range items {
			wantError(t, f.q.Settle(t.Context(), it.Key(), results(it, relay.Deferred), false), queue.ErrNotFound)
		}
		if n := len(f.list(queue.Filter{})); n != 0 || len(f.files()) != 0 {
			t.Errorf("taken %v: %d items, %d bodies left", taken, n, len(f.files()))
		}
	}
}

// A Commit that fails leaves nothing behind once it is aborted, and says 451.
func TestCommitThatFails(t *testing.T) {
	f := newOffice(t)
	s := f.stage(envelope("x@a.example"), text)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := s.Commit(ctx)
	if fail, ok := err.(*relay.Failure); !ok || fail.Reply.Code != 451 {
		t.Errorf("got %v", err)
	}
	if err := s.Abort(); err != nil {
		t.Error(err)
	}
	if n := len(f.list(queue.Filter{})); n != 0 || len(f.files()) != 0 {
		t.Errorf("%d items, %d bodies left", n, len(f.files()))
	}
}

// IDs are file names and halves of keys; what is not an ID never gets that far.
func TestStageRefuses(t *testing.T) {
	f := newOffice(t)
	good := envelope("x@a.example")
	for name, change := range map[string]func(*relay.Envelope){
		"path":          func(e *relay.Envelope) { e.ID = "../../../etc/pass" },
		"no id":         func(e *relay.Envelope) { e.ID = "" },
		"no recipients": func(e *relay.Envelope) { e.Rcpts = nil },
		"no domain":     func(e *relay.Envelope) { e.Rcpts = []relay.Recipient{{Addr: relay.Postmaster}} },
	} {
		env := good
		change(&env)
		if _, err := f.q.Stage(t.Context(), env); err == nil {
			t.Error("staged:", name)
		}
	}
	s := f.stage(good, text)
	if _, err := f.q.Stage(t.Context(), good); err == nil {
		t.Error("staged the same ID twice")
	}
	if err := s.Abort(); err != nil {
		t.Error(err)
	}
}

// The ID of a letter that waits is nobody else's, also after a restart, and whoever tries takes
// nothing away from it.
func TestIDsAreNotReused(t *testing.T) {
	f := newOffice(t)
	env := envelope("x@a.example")
	if err := f.stage(env, text).Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := f.q.Stage(t.Context(), env); err == nil {
			t.Error("the ID of a waiting letter was given to another one")
		}
		f.reopen()
	}
	if got := f.body(env.ID); got != text {
		t.Errorf("the letter is now %q", got)
	}
}

func TestModes(t *testing.T) {
	f := newOffice(t)
	f.send("x@a.example")
	filepath.WalkDir(f.dir, func(path string, d os.DirEntry, _ error) error {
		info, err := d.Info()
		if err != nil {
			t.Fatal(err)
		}
		want := os.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return nil
	})
}

func TestInUse(t *testing.T) {
	f := newOffice(t)
	_, err := queue.Open(f.dir, queue.Options{})
	wantError(t, err, queue.ErrInUse)
	_, err = queue.OpenReadOnly(f.dir)
	wantError(t, err, queue.ErrInUse)
}

func TestView(t *testing.T) {
	f := newOffice(t)
	id := f.send("x@a.example", "y@b.example")
	f.close()
	v, err := queue.OpenReadOnly(f.dir)
	if err != nil {
		t.Fatal(err)
	}
	items, err := v.Get(t.Context(), id)
	if err != nil || len(items) != 2 {
		t.Errorf("got %v, %v", items, err)
	}
	n := 0
	for _, err := range v.List(t.Context(), queue.Filter{Domain: "b.example"}) {
		if n++; err != nil {
			t.Error(err)
		}
	}
	if n != 1 {
		t.Errorf("listed %d", n)
	}
	b, err := v.Body(id)
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
	_, err = queue.OpenReadOnly(filepath.Join(f.dir, "nowhere"))
	wantError(t, err, os.ErrNotExist)
	if err := v.Close(); err != nil {
		t.Error(err)
	}
	f.open()
}

// Everybody at once: sessions, a drain, an operator and a reader (for the race detector, and for
// the check at cleanup).
func TestConcurrent(t *testing.T) {
	f := newOffice(t)
	var senders, others sync.WaitGroup
	stop := make(chan struct{})
	for range 8 {
		senders.Go(func() {
			for i := range 20 {
				s := f.stage(envelope("x@a.example", "y@b.example"), text)
				if err := s.Commit(t.Context()); err != nil {
					t.Error(err)
				}
				if i%7 == 0 {
					if err := s.Abort(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	// Each of them keeps going while mail comes in, and leaves room for the others.
	loop := func(do func()) {
		others.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-f.q.Wake():
					do()
				}
			}
		})
	}
	for range 2 {
		loop(func() {
			items, err := f.q.Take(t.Context(), time.Now(), 5, nil)
			if err != nil {
				t.Error(err)
			}
			for _, it := range items {
				f.q.Settle(t.Context(), it.Key(), results(it, relay.Delivered), false)
			}
		})
	}
	loop(func() { f.q.Hold(t.Context(), queue.Filter{Domain: "b.example"}) })
	loop(func() { f.q.Release(t.Context(), queue.Filter{}) })
	loop(func() { f.list(queue.Filter{To: "x@"}) })
	loop(func() {
		if err := f.q.Check(t.Context()); err != nil {
			t.Error(err)
		}
	})
	senders.Wait()
	close(stop)
	others.Wait()
	if _, err := f.q.Release(t.Context(), queue.Filter{}); err != nil {
		t.Error(err)
	}
	for _, it := range f.take(1000, nil) {
		f.settle(it, relay.Delivered)
	}
	if st := f.q.Stats(); st != (queue.Stats{}) {
		t.Errorf("left: %+v", st)
	}
}

func TestSharedFlusherStaysOpen(t *testing.T) {
	dir := t.TempDir()
	flush, err := durable.NewFlusher(dir)
	if err != nil {
		t.Fatal(err)
	}
	q, err := queue.Open(filepath.Join(dir, "queue"), queue.Options{Flush: flush})
	if err != nil {
		t.Fatal(err)
	}
	if err := q.Close(); err != nil {
		t.Error(err)
	}
	if err := flush.Close(); err != nil {
		t.Error("the queue closed a Flusher that is not its own:", err)
	}
	_, err = q.Body(relay.NewID(time.Now()))
	wantError(t, err, queue.ErrClosed)
	_, err = q.Drop(t.Context(), queue.Filter{})
	if err == nil {
		t.Error("Drop after Close")
	}
}

// A letter that is dropped while somebody opens it is gone, and not damaged: its sender would be told of
// a failure that nobody was to hear of.
func TestBodyOfDroppedLetter(t *testing.T) {
	f := newOffice(t)
	for i := range 80 {
		id := f.send("bob@a.example")
		if i%2 == 0 {
			f.list(queue.Filter{}) // it gets its record
		}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for {
					b, err := f.q.Body(id)
					if err == nil {
						b.Close()
						continue
					}
					if !errors.Is(err, queue.ErrNotFound) {
						t.Error(err)
					}
					return
				}
			})
		}
		if n, err := f.q.Drop(t.Context(), queue.Filter{IDs: []relay.ID{id}}); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		wg.Wait()
	}
}
