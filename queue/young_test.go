package queue_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"relayd/queue"
	"relayd/relay"
)

// recorded is what the database in dir holds, without what the next start would add.
func (f *office) recorded(dir string) (all []string) {
	f.Helper()
	if err := os.Remove(filepath.Join(dir, "unclean")); err != nil {
		f.Fatal(err)
	}
	return f.seen(dir)
}

// seen is what a View of dir shows.
func (f *office) seen(dir string) (all []string) {
	f.Helper()
	v, err := queue.OpenReadOnly(dir)
	if err != nil {
		f.Fatal(err)
	}
	defer v.Close()
	for it, err := range v.List(f.Context(), queue.Filter{}) {
		if err != nil {
			f.Fatal(err)
		}
		all = append(all, it.Key().String())
		if got, err := v.Get(f.Context(), it.ID); err != nil || len(got) == 0 {
			f.Errorf("%s: %v, %v", it.Key(), got, err)
		}
		b, err := v.Body(it.ID)
		if err != nil {
			f.Fatal(err)
		}
		if got, err := io.ReadAll(b); string(got) != text || err != nil {
			f.Errorf("%s: the body is %q, %v", it.Key(), got, err)
		}
		b.Close()
	}
	return all
}

// is compares without regard to the order: letters of one millisecond have none.
func is(t testing.TB, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

// A letter has no record when its 250 is given, and yet a crash loses nothing: whoever looks into
// the dead queue sees it, and the next start has it for all its domains.
func TestYoungLetterOverACrash(t *testing.T) {
	f := newOffice(t)
	id := f.send("bob@a.example", "carl@b.example", "dora@a.example")
	is(t, "the database", f.recorded(f.left()))

	dead := f.left()
	want := []string{string(id) + "/a.example", string(id) + "/b.example"}
	is(t, "the dead queue", f.seen(dead), want...)
	r, err := queue.Inspect(t.Context(), dead)
	if err != nil || r.Err() != nil || len(r.Faults) != 1 || r.Faults[0].Kind != queue.FaultYoung || r.Letters != 1 || r.Items != 2 {
		t.Errorf("the check: %+v, %v", r, err)
	}

	g := f.crash()
	is(t, "the next start", keysOf(g.list(queue.Filter{})), want...)
	if it := g.list(queue.Filter{})[0]; len(it.Rcpts) != 2 || it.Attempts != 0 || time.Until(it.Next) < time.Minute || g.body(id) != text {
		t.Errorf("%+v", it)
	}
	is(t, "its database", g.recorded(g.left()), want...)
}

func keysOf(items []queue.Item) (all []string) {
	for _, it := range items {
		all = append(all, it.Key().String())
	}
	return all
}

// What has left while it was young leaves nothing to be found, and costs the database nothing.
func TestYoungLetterLeaves(t *testing.T) {
	f := newOffice(t)
	before := f.dbText()
	for range 3 {
		f.send("bob@a.example", "carl@b.example")
	}
	for items := f.take(9, nil); len(items) > 0; items = f.take(9, nil) {
		for _, it := range items {
			f.settle(it, relay.Delivered)
		}
	}
	if s := f.q.Stats(); s != (queue.Stats{}) {
		t.Errorf("%+v", s)
	}
	is(t, "the disk", f.files())
	if f.dbText() != before {
		t.Error("the database was written")
	}
	is(t, "after a crash", keysOf(f.crash().list(queue.Filter{})))
}

func (f *office) dbText() string {
	f.Helper()
	b, err := os.ReadFile(filepath.Join(f.dir, "relayd.db"))
	if err != nil {
		f.Fatal(err)
	}
	return string(b)
}

// The first outcome that leaves somebody pending writes the records of the whole letter: a body
// that has a record is not looked into again, so that half of them would lose the rest. Who
// has been settled before is not among them.
func TestYoungLetterHalfDone(t *testing.T) {
	f := newOffice(t)
	id := f.send("a@a.example", "b@b.example", "c@c.example")
	for _, it := range f.take(9, func(d relay.Domain) bool { return d == "c.example" }) {
		f.settle(it, map[relay.Domain]relay.Outcome{"a.example": relay.Delivered, "b.example": relay.Deferred}[it.Domain])
	}
	want := []string{string(id) + "/b.example", string(id) + "/c.example"}
	is(t, "the database", f.recorded(f.left()), want...)
	g := f.crash()
	is(t, "after a crash", keysOf(g.list(queue.Filter{})), want...)
	if items, _ := g.q.Get(t.Context(), id); items[0].Attempts != 1 || items[1].Attempts != 0 {
		t.Errorf("%+v", items)
	}
}

// A record is written after a second in any case, and when the queue is closed.
func TestYoungLetterAges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newOffice(t)
		id := f.send("bob@a.example")
		time.Sleep(700 * time.Millisecond)
		next := f.send("dora@a.example") // too young to be recorded with the first
		time.Sleep(3 * time.Second)
		want := []string{string(id) + "/a.example", string(next) + "/a.example"}
		is(t, "after three seconds", f.recorded(f.left()), want...)
		last := f.send("carl@b.example")
		f.reopen()
		is(t, "after an end in order", f.recorded(f.left()), append(want, string(last)+"/b.example")...)
		if items := f.take(9, nil); len(items) != 3 {
			t.Errorf("due: %q", keysOf(items))
		}
	})
}

// An operator's word holds over a crash for letters that had no record when it was given.
func TestYoungLetterAndOperator(t *testing.T) {
	f := newOffice(t)
	held, dropped := f.send("bob@a.example"), f.send("carl@b.example")
	if n, err := f.q.Hold(t.Context(), queue.Filter{IDs: []relay.ID{held}}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if n, err := f.q.Drop(t.Context(), queue.Filter{IDs: []relay.ID{dropped}}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	g := f.crash()
	if items := g.list(queue.Filter{}); len(items) != 1 || items[0].ID != held || !items[0].Held {
		t.Errorf("%+v", items)
	}
}

// Orders to hold that were given in advance hold for letters that a crash found young.
func TestYoungLetterIsHeld(t *testing.T) {
	f := newOffice(t)
	id := f.send("bob@a.example")
	q, err := queue.Open(f.left(), queue.Options{Hold: func(*queue.Item) string { return "hold rule 1" }})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	if items, err := q.Get(t.Context(), id); err != nil || len(items) != 1 || !items[0].Held || items[0].Hold != "hold rule 1" {
		t.Errorf("%+v, %v", items, err)
	}
}

// What never got its 250 is not delivered after a crash, whatever stood in its file before; and
// after an end in order a file without a record is no letter, even a whole one.
func TestYoungLetterNeverPromised(t *testing.T) {
	f := newOffice(t)
	half := f.stage(envelope("bob@a.example"), strings.Repeat(text, 5000))
	t.Cleanup(func() { half.Abort() })
	withdrawn := f.stage(envelope("bob@a.example"), text)
	if err := withdrawn.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := withdrawn.Abort(); err != nil {
		t.Fatal(err)
	}
	g := f.crash()
	g.swept()
	is(t, "after a crash", keysOf(g.list(queue.Filter{})))
	if _, err := os.Stat(filepath.Join(g.dir, "corrupt")); !os.IsNotExist(err) {
		t.Errorf("something was set aside: %v", err)
	}

	id := g.send("bob@a.example")
	whole, err := os.ReadFile(g.bodyFile(id))
	if err != nil {
		t.Fatal(err)
	}
	g.settle(g.take(1, nil)[0], relay.Delivered)
	g.close()
	if err := os.WriteFile(g.bodyFile(id), whole, 0o600); err != nil {
		t.Fatal(err)
	}
	g.open()
	g.swept()
	is(t, "after an end in order", keysOf(g.list(queue.Filter{})))
}

// A file that was used again, and only half written over when the crash came, is neither letter.
func TestYoungLetterInAReusedFile(t *testing.T) {
	f := newOffice(t)
	f.send("bob@a.example")
	f.settle(f.take(1, nil)[0], relay.Delivered)
	half := f.stage(envelope("carl@b.example"), text)
	t.Cleanup(func() { half.Abort() })
	f.overwrite(f.files()[0], "Half a letter")
	g := f.crash()
	g.swept()
	is(t, "after a crash", keysOf(g.list(queue.Filter{})))
	if _, err := os.Stat(filepath.Join(g.dir, "corrupt")); !os.IsNotExist(err) {
		t.Errorf("something was set aside: %v", err)
	}
}

// overwrite changes the beginning of a file.
func (f *office) overwrite(name, text string) {
	f.Helper()
	file, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err == nil {
		_, err = file.WriteString(text)
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		f.Fatal(err)
	}
}

// A letter that was cut off in the middle of its flush, or damaged since, is kept for whoever
// misses it, and nobody gets half of it.
func TestYoungLetterDamaged(t *testing.T) {
	f := newOffice(t)
	id := f.send("bob@a.example")
	dead := f.left()
	name := filepath.Join(dead, "bodies", string(id))
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[3] ^= 1
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	g := &office{TB: t, dir: dead}
	g.open()
	t.Cleanup(g.finish)
	is(t, "the queue", keysOf(g.list(queue.Filter{})))
	if kept, err := fs.ReadFile(os.DirFS(dead), "corrupt/"+string(id)); string(kept) != string(b) {
		t.Errorf("kept %q, %v", kept, err)
	}
}
