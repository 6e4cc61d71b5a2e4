package queue_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"relayd/queue"
	"relayd/relay"
)

func (f *office) spares() []string {
	f.Helper()
	names, err := filepath.Glob(filepath.Join(f.dir, "spare", "*"))
	if err != nil {
		f.Fatal(err)
	}
	return names
}

func (f *office) sendText(body string) relay.ID {
	f.Helper()
	env := envelope("bob@a.example")
	if err := f.stage(env, body).Commit(f.Context()); err != nil {
		f.Fatal(err)
	}
	return env.ID
}

func (f *office) deliverAll() {
	f.Helper()
	for _, it := range f.take(99, nil) {
		f.settle(it, relay.Delivered)
	}
}

// The file of a settled letter serves the next one, longer or shorter, and neither sees the other.
func TestSparesAreWrittenOver(t *testing.T) {
	f := newOffice(t)
	long := "Subject: long\r\n\r\n" + strings.Repeat("A line of the long letter.\r\n", 500)
	for _, text := range []string{"Subject: first\r\n\r\nfirst\r\n", long, "Subject: short\r\n\r\n\r\n", long} {
		id := f.sendText(text)
		if got := f.body(id); got != text {
			t.Fatalf("%d octets came back of %d", len(got), len(text))
		}
		if n := len(f.spares()); n != 0 {
			t.Errorf("%d spares beside the only letter", n)
		}
		if err := f.q.Check(t.Context()); err != nil {
			t.Error(err)
		}
		// Its trailer must be found from the end of the file.
		if copied := f.crash(); copied.one(id).ID != id {
			t.Error("lost")
		} else {
			copied.close()
			os.Remove(filepath.Join(copied.dir, "relayd.db"))
			copied.open()
			if got := copied.body(id); got != text {
				t.Errorf("rebuilt from its file: %d octets of %d", len(got), len(text))
			}
		}
		f.deliverAll()
		if n := len(f.spares()); n != 1 {
			t.Errorf("%d spares, want the one", n)
		}
	}
}

// A letter that somebody still reads keeps its file, and so does one that was set aside.
func TestSparesAreNobodyElses(t *testing.T) {
	f := newOffice(t)
	const secret = "Subject: read slowly\r\n\r\nonly for bob\r\n"
	id := f.sendText(secret)
	b, err := f.q.Body(id)
	if err != nil {
		t.Fatal(err)
	}
	f.deliverAll()
	f.sendText("Subject: another\r\n\r\nfor carl, and longer than the letter before it\r\n")
	if got, err := io.ReadAll(b); string(got) != secret || err != nil {
		t.Errorf("the reader got %q, %v", got, err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}

	damaged := f.sendText(secret)
	if err := os.WriteFile(f.bodyFile(damaged), []byte("Subject: damaged\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = f.q.Body(damaged)
	wantError(t, err, queue.ErrDamaged)
	f.deliverAll()
	for range 3 {
		f.sendText(secret)
	}
	kept, err := os.ReadFile(filepath.Join(f.dir, "corrupt", string(damaged)))
	if err != nil || string(kept) != "Subject: damaged\r\n" {
		t.Errorf("set aside: %q, %v", kept, err)
	}
}

// A crash between taking a spare and writing it leaves the old letter under the new name: even a
// database that is rebuilt from the bodies does not send it again.
func TestSparesDoNotComeBack(t *testing.T) {
	f := newOffice(t)
	f.sendText("Subject: settled\r\n\r\nlong ago\r\n")
	f.deliverAll()
	env := envelope("carl@b.example")
	s, err := f.q.Stage(t.Context(), env)
	if err != nil {
		t.Fatal(err)
	}
	copied := f.crash()
	copied.close()
	os.Remove(filepath.Join(copied.dir, "relayd.db"))
	copied.open()
	if items := copied.list(queue.Filter{}); len(items) != 0 {
		t.Errorf("came back: %s", keys(items))
	}
	if _, err := os.Stat(filepath.Join(copied.dir, "corrupt")); err == nil {
		t.Error("something was set aside")
	}
	if err := s.Abort(); err != nil {
		t.Error(err)
	}
}

// A file that could not be written, or flushed, is not given to the next letter: the disk may be bad there.
func TestSparesAreSound(t *testing.T) {
	f := newOffice(t)
	f.sendText("Subject: first\r\n\r\n")
	f.deliverAll()
	if n := len(f.spares()); n != 1 {
		t.Fatalf("%d spares, want the one", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := f.stage(envelope("bob@a.example"), text)
	if err := s.Commit(ctx); err == nil {
		t.Fatal("committed")
	}
	if err := s.Abort(); err != nil {
		t.Error(err)
	}
	if got := append(f.spares(), f.files()...); len(got) != 0 {
		t.Errorf("left: %q", got)
	}
	if err := f.stage(envelope("bob@a.example"), text).Abort(); err != nil {
		t.Error(err)
	}
	if n := len(f.spares()); n != 1 {
		t.Errorf("%d spares, want that of the letter that was only given up", n)
	}
}
