package queue_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"relayd/queue"
	"relayd/relay"
)

// A body that was cut short, changed or lost is never handed out; it and its items are set aside
// whole, and the next letter goes its way.
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
			if items := f.take(5, nil); len(items) != 1 || items[0].ID != good {
				t.Errorf("took %s, want the good one", keys(items))
			}
			if _, err := os.Stat(filepath.Join(f.dir, "corrupt", string(id))); (err == nil) == (name == "lost") {
				t.Errorf("kept aside: %v", err)
			}
			if n := corruptRecords(f); n != 2 {
				t.Errorf("%d records set aside, want 2", n)
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
	if items := f.list(queue.Filter{}); len(items) != 1 || items[0].ID != good {
		t.Errorf("left %s", keys(items))
	}
}

// A record that does not decode is set aside at the start, its body kept, and the rest flows.
func TestDamagedRecord(t *testing.T) {
	f := newOffice(t)
	id, good := f.send("x@a.example"), f.send("x@a.example")
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
		b.Put([]byte("nonsense"), []byte("x"))
		b.SetSequence(b.Sequence() + 1)
		return b.Put(key, v)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	f.open()
	if items := f.list(queue.Filter{}); len(items) != 1 || items[0].ID != good {
		t.Errorf("left %s", keys(items))
	}
	if got, err := os.ReadFile(filepath.Join(f.dir, "corrupt", string(id))); err != nil || !strings.HasPrefix(string(got), text) {
		t.Errorf("kept %q, %v", got, err)
	}
	if n := corruptRecords(f); n != 2 {
		t.Errorf("%d records set aside, want 2", n)
	}
}

// A database that does not hold together stops Open with a sentence, and nothing is touched.
// Moved away, it is rebuilt from the bodies.
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
		q, err := queue.Open(f.dir, queue.Options{})
		if err == nil {
			q.Close()
			t.Fatalf("%s: opened", name)
		}
		wantError(t, err, queue.ErrDamaged)
		if !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "Move that file away") {
			t.Errorf("%s: the error does not help: %v", name, err)
		}
		if _, err := queue.OpenReadOnly(f.dir); err == nil {
			t.Errorf("%s: opened for reading", name)
		}
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, content) {
			t.Errorf("%s: Open changed the file: %v", name, err)
		}
	}
	// A body that was never finished is not resurrected, and not thrown away unseen either.
	half := relay.NewID(time.Now())
	if err := os.WriteFile(f.bodyFile(half), []byte("Subject: half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path, path+".away"); err != nil {
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

// One flipped octet anywhere in the database never crashes Open and never yields a changed item:
// it is refused, set aside, or was in a place nobody uses.
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
			wantError(t, err, queue.ErrDamaged)
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
		aside, _ := os.ReadDir(filepath.Join(dir, "corrupt"))
		if len(seen)+len(aside) != 60 {
			t.Errorf("octet %d: %d letters listed, %d set aside, of 60", at, len(seen), len(aside))
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
