package queue_test

import (
	"os"
	"path/filepath"
	"testing"

	"relayd/queue"
	"relayd/relay"
)

// A crash between the last settling of a letter and the unlink of its body brings the letter back, but
// not for those an operator has dropped meanwhile.
func TestDroppedInPartStaysDropped(t *testing.T) {
	f := newOffice(t)
	id := f.send("bob@a.example", "carl@b.example", "dora@c.example")
	for _, domain := range []string{"a.example", "c.example"} {
		if n, err := f.q.Drop(t.Context(), queue.Filter{Domain: domain}); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}
	whole, err := os.ReadFile(f.bodyFile(id))
	if err != nil {
		t.Fatal(err)
	}
	if got := f.body(id); got != text {
		t.Errorf("the body is %q", got)
	}
	f.settle(f.take(1, nil)[0], relay.Delivered)
	dead := f.left()
	if err := os.WriteFile(filepath.Join(dead, "bodies", string(id)), whole, 0o600); err != nil {
		t.Fatal(err)
	}
	g := &office{TB: t, dir: dead}
	g.open()
	t.Cleanup(g.finish)
	is(t, "after the crash", keysOf(g.list(queue.Filter{})), string(id)+"/b.example")
}
