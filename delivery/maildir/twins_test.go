package maildir_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Two letters whose names share what should be unique keep their own unique-ids, whichever came
// first and whichever goes first: one that takes over the other's would never be fetched.
func TestTwins(t *testing.T) {
	t.Parallel()
	for name, places := range map[string][2]string{
		"older read":       {"cur/1700000001.same,S=4,W=5:2,FS", "new/1700000001.same,S=8,W=9"},
		"older sorts last": {"cur/1700000001.same,S=8,W=5:2,", "cur/1700000001.same,S=4,W=9:2,T"},
		"none read":        {"new/1700000001.same", "new/1700000001.same,S=8,W=9"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			box := filepath.Join(root, "office.example", "ann")
			s := open(t, root)
			put(t, box+"/"+places[0], "old\n")
			os.Chtimes(box+"/"+places[0], time.Time{}, time.Now().Add(-time.Hour))
			d := drop(t, s, ann)
			old := d.Messages()[0].UID
			d.Close()
			put(t, box+"/"+places[1], "younger\n")
			byText := func() map[string]string {
				d := drop(t, s, ann)
				defer d.Close()
				found := map[string]string{}
				for i, m := range d.Messages() {
					found[read(t, d, i+1)] = m.UID
				}
				return found
			}
			both := byText()
			if both["old\n"] != old || both["younger\n"] == old || both["younger\n"] == "" {
				t.Fatalf("it was %s, now %v", old, both)
			}
			if again := byText(); again["younger\n"] != both["younger\n"] || again["old\n"] != old {
				t.Errorf("first %v, then %v", both, again)
			}
			d = drop(t, s, ann)
			for i := range d.Messages() {
				if read(t, d, i+1) == "old\n" {
					if err := d.Remove(i + 1); err != nil {
						t.Fatal(err)
					}
				}
			}
			d.Close()
			if alone := byText(); len(alone) != 1 || alone["younger\n"] != both["younger\n"] {
				t.Errorf("the younger was %s, alone it is %v", both["younger\n"], alone)
			}
			left := files(t, root, "*")
			_, tail, _ := strings.Cut(filepath.Base(places[1]), "same")
			if len(left) != 1 || !strings.HasSuffix(left[0], tail) {
				t.Errorf("sizes and flags %q are not in %v", tail, left)
			}
		})
	}
}

// Marking a letter as read never writes over another one.
func TestSeenOverwritesNothing(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	box := filepath.Join(root, "office.example", "ann")
	s := open(t, root)
	put(t, box+"/new/1700000001.a,S=2,W=3", "a\n")
	d := drop(t, s, ann)
	put(t, box+"/cur/1700000001.a,S=2,W=3:2,S", "b\n")
	d.Seen(1)
	d.Close()
	if got := files(t, root, "*"); len(got) != 2 {
		t.Errorf("left %v", got)
	}
}
