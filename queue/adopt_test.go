package queue_test

import (
	"os"
	"path/filepath"
	"testing"

	"relayd/queue"
)

// What keeps us from reading a young letter, and is not the letter's fault, must not cost it: the start
// fails, and the next has it still.
func TestYoungLetterThatCannotBeRead(t *testing.T) {
	f := newOffice(t)
	id := f.send("bob@a.example")
	dead := f.left()
	name := filepath.Join(dead, "bodies", string(id))
	if err := os.Rename(name, name+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(name, name); err != nil { // ELOOP, which root meets too
		t.Fatal(err)
	}
	if q, err := queue.Open(dead, queue.Options{}); err == nil {
		t.Error("it started without the letter")
		q.Close()
	}
	if err := os.Rename(name+".away", name); err != nil {
		t.Fatal(err)
	}
	g := &office{TB: t, dir: dead}
	g.open()
	t.Cleanup(g.finish)
	is(t, "the next start", keysOf(g.list(queue.Filter{})), string(id)+"/a.example")
}

// Whoever takes letters in from their files asks for the orders to hold: a repair with the daemon down,
// and the start that has lost its database.
func TestTakenInIsHeld(t *testing.T) {
	for _, how := range []string{"repair", "lost database"} {
		t.Run(how, func(t *testing.T) {
			f := newOffice(t)
			f.send("bob@a.example")
			dead := f.left()
			o := queue.Options{Hold: func(*queue.Item) string { return "hold rule 1" }}
			if how == "lost database" {
				if err := os.Remove(filepath.Join(dead, "relayd.db")); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := queue.Repair(t.Context(), dead, o); err != nil {
				t.Fatal(err)
			}
			g := &office{TB: t, dir: dead}
			g.open()
			t.Cleanup(g.finish)
			if items := g.list(queue.Filter{}); len(items) != 1 || !items[0].Held || items[0].Hold != "hold rule 1" {
				t.Errorf("%+v", items)
			}
		})
	}
}
