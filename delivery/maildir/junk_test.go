package maildir_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"relayd/delivery/maildir"
	"relayd/relay"
)

// TestJunk: a letter for Junk lies in the Maildir++ folder of every mailbox, is shown to whoever
// wants to see it, and there is read and removed like any other.
func TestJunk(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := keeping(t, root, time.Hour, maildir.WithJunk(func(m relay.Address) bool { return m == bob }))
	env := envelope(ann, bob)
	env.Junk = true
	st, err := s.Stage(t.Context(), env)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.Write([]byte("junk\r\n")); err != nil {
		t.Fatal(err)
	}
	if err := st.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, user := range []string{"ann", "bob"} {
		dir := filepath.Join(root, "office.example", user, ".Junk")
		if found, _ := filepath.Glob(filepath.Join(dir, "new", "*")); len(found) != 1 {
			t.Errorf("%s: %v in Junk", user, found)
		}
		if _, err := os.Stat(filepath.Join(dir, "maildirfolder")); err != nil {
			t.Error(err)
		}
	}
	deliver(t, s, "letter\r\n", ann, bob)
	if d := drop(t, s, ann); len(d.Messages()) != 1 || read(t, d, 1) != "letter\n" {
		t.Errorf("ann sees %v", d.Messages())
	}
	d := drop(t, s, bob)
	if len(d.Messages()) != 2 || read(t, d, 1) != "junk\n" || read(t, d, 2) != "letter\n" {
		t.Fatalf("bob sees %v", d.Messages())
	}
	d.Seen(1)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	junk := filepath.Join(root, "office.example", "bob", ".Junk", "cur", "*:2,S")
	if found, _ := filepath.Glob(junk); len(found) != 1 {
		t.Errorf("%v is read in Junk", found)
	}
	d = drop(t, s, bob)
	if err := d.Remove(1); err != nil {
		t.Fatal(err)
	}
	d.Close()
	if found, _ := filepath.Glob(junk); len(found) != 0 {
		t.Errorf("%v is still there", found)
	}
	if found, _ := filepath.Glob(filepath.Join(root, "office.example", "bob", "removed", "*", "*:2,S")); len(found) != 1 {
		t.Errorf("%v was kept", found)
	}
}
