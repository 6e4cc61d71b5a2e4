package maildir_test

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"relayd/delivery/maildir"
)

// keeping is a store that keeps removed letters for a time.
func keeping(t testing.TB, root string, keep time.Duration, options ...maildir.Option) *maildir.Store {
	t.Helper()
	return open(t, root, append(options, maildir.WithUndelete(keep))...)
}

var client = netip.MustParseAddr("192.0.2.7")

// removeAll empties ann's mailbox in one session.
func removeAll(t testing.TB, s *maildir.Store) {
	t.Helper()
	d := drop(t, s, ann)
	d.SetClient(client)
	for n := range d.Messages() {
		if err := d.Remove(n + 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

func removed(t testing.TB, root string) []maildir.Removed {
	t.Helper()
	list, err := maildir.ListRemoved(root, ann)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// What is removed lies aside with all that is known of it, seen by no reader of the maildir, and
// comes back whole under a unique-id that has never been.
func TestUndelete(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := keeping(t, root, time.Hour)
	deliver(t, s, "one\r\n", ann)
	put(t, root+"/office.example/ann/cur/1700000001.M1P2.other:2,RS", "two\n")
	before := uids(drop1(t, s))
	removeAll(t, s)
	if n := len(files(t, root, "new")) + len(files(t, root, "cur")); n != 0 {
		t.Errorf("%d letters are still there", n)
	}
	if folders, _ := filepath.Glob(root + "/office.example/ann/.[!.]*"); folders != nil {
		t.Errorf("Dovecot would show the folders %v", folders)
	}
	list := removed(t, root)
	if len(list) != 2 || list[0].UID == list[1].UID {
		t.Fatalf("kept: %v", list)
	}
	for _, l := range list {
		if l.Client != client || time.Since(l.At) > time.Minute {
			t.Errorf("removed by %v at %v", l.Client, l.At)
		}
	}
	if back, err := maildir.Undelete(root, ann, list...); back != 2 || err != nil {
		t.Fatalf("%d came back: %v", back, err)
	}
	if back, err := maildir.Undelete(root, ann, list[0]); back != 0 || err == nil || !strings.Contains(err.Error(), "removed by another program") {
		t.Errorf("a second time: %d, %v", back, err)
	}
	d := drop(t, s, ann)
	if got := read(t, d, 1) + read(t, d, 2); got != "two\none\n" {
		t.Errorf("came back as %q", got)
	}
	for _, uid := range uids(d) {
		if strings.Contains(fmt.Sprint(before), uid) || len(uid) > 70 {
			t.Errorf("the unique-id %s was there before", uid)
		}
	}
	if got := d.Messages()[1]; got.ID == "" || got.Size != 5 {
		t.Errorf("came back as %v", got)
	}
	if left, _ := filepath.Glob(root + "/office.example/ann/removed/*"); left != nil {
		t.Errorf("left: %v", left)
	}
}

func drop1(t testing.TB, s *maildir.Store) *maildir.Drop {
	d := drop(t, s, ann)
	d.Close()
	return d
}

// What was kept for long enough is removed at the next start; what is not ours stays. Off means
// that nothing is kept.
func TestUndeleteExpires(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := keeping(t, root, time.Hour)
	deliver(t, s, "one\r\n", ann)
	removeAll(t, s)
	first, _ := filepath.Glob(root + "/office.example/ann/removed/*")
	deliver(t, s, "two\r\n", ann)
	removeAll(t, s)
	s.Close()
	if batches, _ := filepath.Glob(root + "/office.example/ann/removed/*"); len(first) != 1 || len(batches) != 2 {
		t.Fatalf("batches: %v, then %v", first, batches)
	}
	put(t, root+"/office.example/ann/removed/notes/x", "x")
	old := fmt.Sprint(time.Now().Add(-61*time.Minute).Unix()) + filepath.Base(first[0])[10:]
	os.Rename(first[0], filepath.Join(filepath.Dir(first[0]), old))
	s = keeping(t, root, time.Hour)
	waitFor(t, func() bool { return len(removed(t, root)) == 1 })
	s.Close()
	r, err := removed(t, root)[0].Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if b, _ := io.ReadAll(r); string(b) != "two\n" {
		t.Errorf("kept %q", b)
	}
	s = keeping(t, root, 0)
	waitFor(t, func() bool { return len(removed(t, root)) == 0 })
	deliver(t, s, "three\r\n", ann)
	removeAll(t, s)
	if list := removed(t, root); len(list) != 0 {
		t.Errorf("kept although it is off: %v", list)
	}
	if left, _ := filepath.Glob(root + "/office.example/ann/removed/*"); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
}

func waitFor(t testing.TB, ready func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for begin := time.Now(); !ready(); <-tick.C {
		if time.Since(begin) > 10*time.Second {
			t.Fatal("waited in vain")
		}
	}
}

// A letter that has nowhere to go stays, and the client hears of it: it must not count as gone.
func TestRemoveWithoutPlace(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := keeping(t, root, time.Hour)
	deliver(t, s, "one\r\n", ann)
	put(t, root+"/office.example/ann/removed", "a file where a folder should be")
	d := drop(t, s, ann)
	if err := d.Remove(1); err == nil {
		t.Error("removed it, nobody knows where to")
	}
	if n := len(files(t, root, "new")); n != 1 {
		t.Errorf("%d letters left", n)
	}
	os.Remove(root + "/office.example/ann/removed")
	if err := d.Remove(1); err != nil {
		t.Error(err)
	}
	if n := len(removed(t, root)); n != 1 {
		t.Errorf("%d letters kept", n)
	}
}
