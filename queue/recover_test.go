package queue_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"relayd/queue"
	"relayd/relay"
)

// A body that was cut short, changed or lost is never handed out. What there is of it is kept, its
// items stay until their sender has been told, and the next letter goes its way.
func TestDamagedBody(t *testing.T) {
	for name, harm := range map[string]func(t *testing.T, file string){
		"cut": func(t *testing.T, file string) { truncate(t, file, int64(len(text)-1)) },
		"changed": func(t *testing.T, file string) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			b[5] ^= 1
			os.WriteFile(file, b, 0o600)
		},
		"lost": func(t *testing.T, file string) { os.Remove(file) },
	} {
		t.Run(name, func(t *testing.T) {
			f := newOffice(t)
			id := f.send("x@a.example", "y@b.example")
			good := f.send("x@a.example")
			harm(t, f.bodyFile(id))
			_, err := f.q.Body(id)
			wantError(t, err, queue.ErrDamaged)
			for _, it := range f.take(5, nil) {
				if it.ID == id {
					f.settle(it, relay.Failed)
				}
			}
			if items := f.list(queue.Filter{}); len(items) != 1 || items[0].ID != good {
				t.Errorf("left %s, want the good one", keys(items))
			}
			if _, err := os.Stat(filepath.Join(f.dir, "corrupt", string(id))); (err == nil) == (name == "lost") {
				t.Errorf("kept aside: %v", err)
			}
		})
	}
}

// corruptRecords counts what the database keeps aside.
func corruptRecords(f *office) (n int) {
	f.close()
	defer f.open()
	db, err := bbolt.Open(filepath.Join(f.dir, "relayd.db"), 0o600, nil)
	if err != nil {
		f.Fatal(err)
	}
	defer db.Close()
	db.View(func(tx *bbolt.Tx) error {
		n = tx.Bucket([]byte("corrupt")).Stats().KeyN
		return nil
	})
	return n
}

func TestBodyLostWhileDown(t *testing.T) {
	f := newOffice(t)
	lost, good := f.send("x@a.example"), f.send("x@a.example")
	f.close()
	os.Remove(f.bodyFile(lost))
	f.open()
	for _, it := range f.take(2, nil) {
		_, err := f.q.Body(it.ID)
		if it.ID == lost {
			wantError(t, err, queue.ErrDamaged)
			f.settle(it, relay.Failed)
		}
	}
	if got := f.body(good); got != text {
		t.Errorf("body %q", got)
	}
}

// Records that do not decode, or whose very key is damaged, are set aside at the start and made
// anew from their letters; the rest flows.
func TestDamagedRecord(t *testing.T) {
	f := newOffice(t)
	id, lost, other := f.send("x@a.example", "y@b.example"), f.send("x@a.example"), f.send("x@a.example")
	f.close()
	db, err := bbolt.Open(filepath.Join(f.dir, "relayd.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte("items"))
		key := []byte(id + "/a.example")
		v := bytes.Clone(b.Get(key))
		v[len(v)-5] ^= 4
		b.Put([]byte("nonsense"), b.Get([]byte(lost+"/a.example")))
		b.Delete([]byte(lost + "/a.example"))
		b.Put([]byte(id+"/c.example"), b.Get([]byte(id+"/b.example")))
		b.Delete([]byte(id + "/b.example"))
		return b.Put(key, v)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	f.open()
	// IDs of one millisecond have no order among themselves.
	names := []string{string(id) + "/a.example", string(id) + "/b.example", string(lost) + "/a.example", string(other) + "/a.example"}
	slices.Sort(names)
	want := fmt.Sprint(names)
	if items := f.list(queue.Filter{}); keys(items) != want {
		t.Errorf("there are %s, want %s", keys(items), want)
	}
	if n := corruptRecords(f); n != 3 {
		t.Errorf("%d records set aside, want 3", n)
	}
}

// A database that does not hold together is set aside whole, and rebuilt from the bodies; nobody
// who may only read touches it.
func TestDamagedDatabase(t *testing.T) {
	f := newOffice(t)
	ids := fill(f, 200)
	f.close()
	path := filepath.Join(f.dir, "relayd.db")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	harmed := map[string][]byte{
		"empty":      {},
		"one octet":  {0},
		"cut":        whole[:3*4096],
		"text":       bytes.Repeat([]byte("this is no database\n"), 4096),
		"zeroes":     make([]byte, len(whole)),
		"no meta":    append(make([]byte, 2*4096), whole[2*4096:]...),
		"no pages":   append(bytes.Clone(whole[:2*4096]), make([]byte, len(whole)-2*4096)...),
		"noise":      append(bytes.Clone(whole[:2*4096]), bytes.Repeat([]byte{0xa5, 0x01, 0xff}, (len(whole)-2*4096)/3)...),
		"ones":       append(bytes.Clone(whole[:2*4096]), bytes.Repeat([]byte{0xff}, len(whole)-2*4096)...),
		"small ints": append(bytes.Clone(whole[:2*4096]), bytes.Repeat([]byte{2, 0, 0, 0, 0, 0, 0, 0}, (len(whole)-2*4096)/8)...),
	}
	for name, content := range harmed {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := queue.OpenReadOnly(f.dir); err == nil {
			t.Errorf("%s: opened for reading", name)
		}
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, content) {
			t.Errorf("%s: reading changed the file: %v", name, err)
		}
		f.open()
		if n := len(f.list(queue.Filter{IDs: ids})); n != len(ids) {
			t.Errorf("%s: rebuilt %d of %d", name, n, len(ids))
		}
		if !f.keptAside(content) {
			t.Errorf("%s: the damaged file is not in corrupt/", name)
		}
		f.close()
	}
	// A body that was never finished is not resurrected, and not thrown away unseen either.
	half := relay.NewID(time.Now())
	if err := os.WriteFile(f.bodyFile(half), []byte("Subject: half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	f.open()
	if items := f.list(queue.Filter{IDs: ids}); len(items) != 200 || len(f.list(queue.Filter{})) != 200 {
		t.Errorf("rebuilt %d of 200", len(items))
	}
	if got := f.body(ids[7]); got != text {
		t.Errorf("body %q", got)
	}
	it := f.take(1, nil)
	if len(it) != 1 || len(it[0].Rcpts) != 1 || it[0].From.Local != "ann" {
		t.Errorf("took %+v", it)
	}
	if _, err := os.Stat(filepath.Join(f.dir, "corrupt", string(half))); err != nil {
		t.Error(err)
	}
}

// keptAside says whether corrupt/ holds a database with this content.
func (f *office) keptAside(content []byte) bool {
	names, _ := filepath.Glob(filepath.Join(f.dir, "corrupt", "relayd.db.*"))
	return slices.ContainsFunc(names, func(name string) bool {
		got, err := os.ReadFile(name)
		return err == nil && bytes.Equal(got, content)
	})
}

// One flipped octet anywhere in the database never stops Open, loses no letter and never yields a
// changed item.
func TestFlippedDatabase(t *testing.T) {
	f := newOffice(t)
	fill(f, 60)
	f.close()
	path := filepath.Join(f.dir, "relayd.db")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	used := bytes.TrimRight(whole, "\x00")
	step := max(len(used)/25, 1) | 1
	for at := 0; at < len(used); at += step {
		dir := t.TempDir()
		os.Mkdir(filepath.Join(dir, "bodies"), 0o700)
		for _, name := range f.files() {
			os.Link(name, filepath.Join(dir, "bodies", filepath.Base(name)))
		}
		b := bytes.Clone(used)
		b[at] ^= 0x21
		if err := os.WriteFile(filepath.Join(dir, "relayd.db"), append(b, whole[len(used):]...), 0o600); err != nil {
			t.Fatal(err)
		}
		q, err := queue.Open(dir, queue.Options{})
		if err != nil {
			t.Errorf("octet %d: %v", at, err)
			continue
		}
		seen := map[relay.ID]bool{}
		for it, err := range q.List(t.Context(), queue.Filter{}) {
			seen[it.ID] = true
			if err != nil || it.From.Local != "ann" || len(it.Rcpts) != 1 {
				t.Errorf("octet %d: %v %v", at, it, err)
			}
		}
		q.Close()
		if len(seen) != 60 {
			t.Errorf("octet %d: %d letters listed of 60", at, len(seen))
		}
	}
	f.open()
}

// What a crash between body and record leaves goes at the next start; what sessions write
// meanwhile stays.
func TestOrphansGo(t *testing.T) {
	f := newOffice(t)
	id := f.send("x@a.example")
	f.close()
	for range 50 {
		os.WriteFile(f.bodyFile(relay.NewID(time.Now())), []byte("half a let"), 0o600)
	}
	os.WriteFile(f.bodyFile("stray"), []byte("x"), 0o600)
	f.open()
	s := f.stage(envelope("y@b.example"), text)
	for len(f.files()) > 2 {
		runtime.Gosched()
	}
	f.close()
	if n := len(f.files()); n != 2 {
		t.Errorf("%d files left, want the letter and the one being written", n)
	}
	f.open()
	f.swept()
	if got := f.body(id); got != text {
		t.Errorf("body %q", got)
	}
	if err := s.Commit(t.Context()); err == nil {
		t.Error("a letter of a closed queue was committed")
	}
	if err := s.Abort(); err == nil {
		t.Error("aborted in a closed queue; its body is for the next Open")
	}
}

// When the newest meta page is damaged bbolt goes back to the transaction before it, in silence.
// The letter of that last transaction was promised.
func TestLostTransaction(t *testing.T) {
	for meta := range int64(2) {
		f := newOffice(t)
		for range 3 {
			f.send("x@a.example", "y@b.example")
		}
		f.close()
		path := filepath.Join(f.dir, "relayd.db")
		file, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.WriteAt([]byte("damage"), meta*int64(os.Getpagesize())+40); err != nil {
			t.Fatal(err)
		}
		file.Close()
		f.open()
		if items := f.list(queue.Filter{}); len(items) != 6 {
			t.Errorf("meta %d damaged: %d items of 6 left", meta, len(items))
		}
	}
}

// Everything a full disk can do to Commit is a temporary refusal, and the queue goes on.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=6m"); err != nil {
		t.Skip("cannot mount a small disk:", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	f := &office{TB: t, dir: filepath.Join(dir, "queue")}
	f.open()
	defer f.finish()
	sent := []relay.ID{f.send("x@a.example")}
	refused := 0
	for i := range 400 {
		id, err := trySend(f, strings.Repeat(text, 1000))
		switch fail, _ := err.(*relay.Failure); {
		case err == nil:
			sent = append(sent, id)
		case fail == nil || fail.Reply.Code != 452 || fail.Reply.Status != relay.Status{4, 3, 1}:
			t.Fatalf("letter %d: %v", i, err)
		default:
			refused++
		}
	}
	if refused == 0 {
		t.Fatal("the disk never filled")
	}
	if n := len(f.list(queue.Filter{IDs: sent})); n != len(sent) || n != len(f.list(queue.Filter{})) {
		t.Errorf("%d of %d items", n, len(sent))
	}
	for _, it := range f.take(len(sent)/2, nil) {
		f.settle(it, relay.Delivered)
	}
	if _, err := trySend(f, text); err != nil {
		t.Error("with room again:", err)
	}
}

func trySend(f *office, body string) (relay.ID, error) {
	env := envelope("x@a.example")
	s, err := f.q.Stage(f.Context(), env)
	if err != nil {
		return "", err
	}
	if _, err = io.WriteString(s, body); err == nil {
		err = s.Commit(f.Context())
	}
	if err != nil {
		if aborted := s.Abort(); aborted != nil {
			f.Error(aborted)
		}
	}
	return env.ID, err
}
