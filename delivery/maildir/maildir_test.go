package maildir_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"relayd/delivery/maildir"
	"relayd/relay"
	"relayd/relay/durable"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	ann = relay.Address{Local: "ann", Domain: "office.example"}
	bob = relay.Address{Local: "bob", Domain: "office.example"}
	eve = relay.Address{Local: "eve", Domain: "branch.example"}
)

func open(t testing.TB, root string, options ...maildir.Option) *maildir.Store {
	t.Helper()
	if err := os.MkdirAll(root, 0o700); err != nil {
		t.Fatal(err)
	}
	flush, err := durable.NewFlusher(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { flush.Close() })
	s, err := maildir.Open(root, "mail.office.example", flush, slog.New(slog.DiscardHandler), options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func envelope(mailboxes ...relay.Address) relay.Envelope {
	env := relay.Envelope{ID: relay.NewID(time.Now()), Accepted: time.Now()}
	for _, m := range mailboxes {
		env.Rcpts = append(env.Rcpts, relay.Recipient{Addr: m, Mailbox: m})
	}
	return env
}

func stage(t testing.TB, s *maildir.Store, body string, mailboxes ...relay.Address) relay.Staged {
	t.Helper()
	st, err := s.Stage(t.Context(), envelope(mailboxes...))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(st, body); err != nil {
		t.Fatal(err)
	}
	return st
}

func deliver(t testing.TB, s *maildir.Store, body string, mailboxes ...relay.Address) {
	t.Helper()
	if err := stage(t, s, body, mailboxes...).Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// files returns the paths of all letters below root in the given subdirectory of any mailbox.
func files(t testing.TB, root, sub string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(root, "*", "*", sub, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func drop(t testing.TB, s *maildir.Store, mailbox relay.Address) *maildir.Drop {
	t.Helper()
	d, err := s.Maildrop(t.Context(), mailbox)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func read(t testing.TB, d *maildir.Drop, n int) string {
	t.Helper()
	r, err := d.Open(n)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func put(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A letter lies in new/ with LF line ends, mode 0600, and the name says both of its sizes; tmp/ is
// empty.
func TestDeliver(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "mail")
	s := open(t, root)
	env := envelope(ann)
	st, err := s.Stage(t.Context(), env)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(st, "Subject: x\r\n\r\nhello\r\n")
	if n := len(files(t, root, "tmp")); n != 1 {
		t.Errorf("%d files in tmp while staged, want 1", n)
	}
	if err := st.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := filepath.Join(root, "office.example", "ann", "new",
		fmt.Sprintf("%d.R%s.mail.office.example,S=18,W=21", env.Accepted.Unix(), env.ID))
	got, err := os.ReadFile(want)
	if err != nil {
		t.Fatalf("%v; there are %v", err, files(t, root, "new"))
	}
	if string(got) != "Subject: x\n\nhello\n" {
		t.Errorf("on disk: %q", got)
	}
	info, _ := os.Stat(want)
	if info.Mode() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	for _, sub := range []string{"", "tmp", "new", "cur"} {
		if info, err := os.Stat(filepath.Join(root, "office.example", "ann", sub)); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v %v", sub, info, err)
		}
	}
	if left := files(t, root, "tmp"); len(left) != 0 {
		t.Errorf("left in tmp: %v", left)
	}
}

// One message for several mailboxes is stored once and linked; a mailbox named twice, in any
// case, gets it once.
func TestSeed_S2_5(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := open(t, root)
	deliver(t, s, "hello\r\n", ann, bob, eve, relay.Address{Local: "ANN", Domain: "office.example"})
	got := files(t, root, "new")
	if len(got) != 3 {
		t.Fatalf("letters: %v", got)
	}
	first, _ := os.Stat(got[0])
	for _, path := range got {
		info, _ := os.Stat(path)
		if !os.SameFile(first, info) || info.Sys().(*syscall.Stat_t).Nlink != 3 {
			t.Errorf("%s: %d links", path, info.Sys().(*syscall.Stat_t).Nlink)
		}
	}
	if left := files(t, root, "tmp"); len(left) != 0 {
		t.Errorf("left in tmp: %v", left)
	}
}

// Stage, commit, abort and a crash between them: nothing is ever visible but whole letters, and a
// crash leaves litter in tmp/ only.
func TestStager(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := open(t, root)

	aborted := stage(t, s, "x\r\n", ann, bob)
	if err := errors.Join(aborted.Abort(), aborted.Abort()); err != nil {
		t.Error(err)
	}
	if aborted.Commit(t.Context()) == nil {
		t.Error("commit after abort succeeded")
	}
	taken := stage(t, s, "x\r\n", ann, bob)
	if err := errors.Join(taken.Commit(t.Context()), taken.Abort(), taken.Abort()); err != nil {
		t.Error(err)
	}
	if n := len(files(t, root, "new")) + len(files(t, root, "tmp")); n != 0 {
		t.Errorf("%d files after two aborts", n)
	}

	stage(t, s, "never committed\r\n", ann, bob) // and the process dies here
	if n := len(files(t, root, "new")) + len(files(t, root, "cur")); n != 0 {
		t.Errorf("%d files visible without a commit", n)
	}
	if n := len(files(t, root, "tmp")); n != 1 {
		t.Errorf("%d files in tmp, want 1", n)
	}
}

// What a reader has moved to cur/ stays there when the letter is taken back.
func TestAbortAfterReaderMovedIt(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := open(t, root)
	st := stage(t, s, "x\r\n", ann)
	st.Commit(t.Context())
	path := files(t, root, "new")[0]
	os.Rename(path, filepath.Join(filepath.Dir(filepath.Dir(path)), "cur", filepath.Base(path)+":2,"))
	if err := st.Abort(); err != nil {
		t.Error(err)
	}
	if n := len(files(t, root, "cur")); n != 1 {
		t.Errorf("%d files in cur", n)
	}
}

// A flush that fails means that the letter failed: it is an error, and it stands in no mailbox.
func TestFlushFails(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	flush, err := durable.NewFlusher(root)
	if err != nil {
		t.Fatal(err)
	}
	s, err := maildir.Open(root, "h", flush, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	st := stage(t, s, "x\r\n", ann, bob)
	// However the flusher goes about it: fsync of a pipe fails, and syncfs on a closed descriptor.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	maildir.WriteTo(st, w)
	flush.Close()
	err = st.Commit(t.Context())
	if f, ok := errors.AsType[*relay.Failure](err); !ok || f.Reply.Code != 451 {
		t.Errorf("commit: %v", err)
	}
	if n := len(files(t, root, "new")) + len(files(t, root, "tmp")); n != 0 {
		t.Errorf("%d files left", n)
	}
}

// An operator removes folders while we run; the next letters make them anew.
func TestMissingFolders(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "mail")
	s := open(t, root)
	s.WaitSweep()
	deliver(t, s, "1\r\n", ann, bob)
	os.RemoveAll(filepath.Join(root, "office.example", "ann"))
	deliver(t, s, "2\r\n", ann, bob)
	os.RemoveAll(filepath.Join(root, "office.example", "bob", "new"))
	deliver(t, s, "3\r\n", ann, bob)
	os.RemoveAll(root)
	deliver(t, s, "4\r\n", ann)
	st := stage(t, s, "5\r\n", ann)
	os.RemoveAll(filepath.Join(root, "office.example", "ann", "new"))
	if err := st.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := files(t, root, "new"); len(got) != 1 {
		t.Errorf("letters %v, want the one that came last", got)
	}
	// The staged file itself is gone: that is an error, not a 250.
	st = stage(t, s, "6\r\n", ann)
	os.RemoveAll(root)
	if err := st.Commit(t.Context()); err == nil {
		t.Error("committed a letter that was removed")
	}
}

// A name that is taken is never overwritten.
func TestNeverOverwrites(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := open(t, root)
	env := envelope(ann)
	for i, body := range []string{"first\r\n", "other\r\n"} {
		st, err := s.Stage(t.Context(), env)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(st, body)
		if err := st.Commit(t.Context()); (err == nil) != (i == 0) {
			t.Errorf("commit %d: %v", i, err)
		}
	}
	got := files(t, root, "new")
	if len(got) != 1 {
		t.Fatalf("letters %v", got)
	}
	if b, _ := os.ReadFile(got[0]); string(b) != "first\n" {
		t.Errorf("content %q", b)
	}
}

// A full disk is temporary, and says so in its own words (hazards: ENOSPC).
func TestFullDisk(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]string{
		&fs.PathError{Err: syscall.ENOSPC}: "452 4.3.1 insufficient system storage, try again later",
		&fs.PathError{Err: syscall.EDQUOT}: "452 4.3.1 insufficient system storage, try again later",
		&fs.PathError{Err: syscall.EIO}:    "451 4.3.0 the message cannot be stored now, try again later",
	} {
		f, ok := errors.AsType[*relay.Failure](maildir.FailureOf(err))
		if !ok || f.Reply.String() != want {
			t.Errorf("%v: %v", err, f)
		}
	}
}

// However a letter is cut into writes: CRLF becomes LF, S= is what lies on disk and W= is what
// goes out by POP3.
func TestWriteConverts(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := open(t, root)
	rapid.Check(t, func(rt *rapid.T) {
		parts := rapid.SliceOf(rapid.SampledFrom([]string{"\r\n", "\r\n\r\n", ".", "a", "long line", strings.Repeat("x", 70000), "\x00\xff"})).Draw(rt, "parts")
		body := strings.Join(parts, "")
		st, err := s.Stage(t.Context(), envelope(ann))
		if err != nil {
			rt.Fatal(err)
		}
		for rest := body; rest != ""; {
			n := rapid.IntRange(1, len(rest)).Draw(rt, "n")
			if _, err := io.WriteString(st, rest[:n]); err != nil {
				rt.Fatal(err)
			}
			rest = rest[n:]
		}
		if err := st.Commit(t.Context()); err != nil {
			rt.Fatal(err)
		}
		if body != "" && !strings.HasSuffix(body, "\r\n") {
			body += "\r\n"
		}
		d, err := s.Maildrop(t.Context(), ann)
		if err != nil {
			rt.Fatal(err)
		}
		defer d.Close()
		if got, want := read(t, d, 1), strings.ReplaceAll(body, "\r\n", "\n"); got != want {
			rt.Errorf("on disk %q, want %q", got, want)
		}
		if got := d.Messages()[0].Size; got != int64(len(body)) {
			rt.Errorf("W=%d, want %d", got, len(body))
		}
		if !strings.Contains(files(t, root, "new")[0], fmt.Sprintf(",S=%d,", len(strings.ReplaceAll(body, "\r\n", "\n")))) {
			rt.Errorf("S= is wrong: %v", files(t, root, "new"))
		}
		if err := d.Remove(1); err != nil {
			rt.Error(err)
		}
	})
}

// A mailbox on another file system than the root gets its own copy, flushed on its own.
func TestOtherFileSystem(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	far, err := os.MkdirTemp("/dev/shm", "relayd-test-")
	if err != nil {
		t.Skip("no other file system: ", err)
	}
	t.Cleanup(func() { os.RemoveAll(far) })
	s := open(t, root)
	os.Mkdir(filepath.Join(root, "office.example"), 0o700)
	if err := os.Symlink(far, filepath.Join(root, "office.example", "bob")); err != nil {
		t.Fatal(err)
	}
	deliver(t, s, "one\r\n", ann, bob)
	deliver(t, s, "two\r\n", bob, ann)
	deliver(t, s, "three\r\n", bob)
	for _, path := range files(t, root, "tmp") {
		t.Errorf("left %s", path)
	}
	for mailbox, want := range map[relay.Address]int{ann: 2, bob: 3} {
		d := drop(t, s, mailbox)
		if got := len(d.Messages()); got != want {
			t.Errorf("%s has %d letters, want %d", mailbox, got, want)
		}
		if got := read(t, d, 1); len(got) < 4 {
			t.Errorf("%s: %q", mailbox, got)
		}
		d.Seen(1)
		if err := d.Remove(2); err != nil {
			t.Error(err)
		}
	}
}

// A CR that belongs to no line end is kept, also between two writes.
func TestBareCR(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := open(t, root)
	for _, parts := range [][]string{{"a\r", "b\rc\r", "\r\nd\r"}, {"a\rb\rc\r\r\nd\r"}} {
		st := stage(t, s, "", ann)
		for _, p := range parts {
			io.WriteString(st, p)
		}
		if err := st.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		d := drop(t, s, ann)
		if got := read(t, d, 1); got != "a\rb\rc\r\nd\r\n" {
			t.Errorf("on disk %q", got)
		}
		// "\r\n" on disk goes out as it is, so W= counts no more than S= for it.
		if got := d.Messages()[0].Size; got != int64(len("a\rb\rc\r\nd\r\n")) {
			t.Errorf("W=%d", got)
		}
		d.Remove(1)
		d.Close()
	}
}
