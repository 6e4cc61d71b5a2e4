package queue_test

import (
	"testing"
	"time"

	"relayd/queue"
)

// An order to send items another way stays on them, over a restart and the attempts that follow, and
// changes nothing else of them.
func TestReroute(t *testing.T) {
	t.Parallel()
	f := newOffice(t)
	f.send("bob@a.example")
	f.send("bob@b.example")
	got := takeAt(f, time.Now().Add(time.Second))
	if len(got) != 2 {
		t.Fatal(keys(got))
	}
	f.settle(got[0], "deferred")
	before := map[queue.Key]queue.Item{}
	for _, it := range f.list(queue.Filter{}) {
		before[it.Key()] = it
	}
	which := queue.Filter{Domain: "a.example"}
	for want := 1; want >= 0; want-- {
		if n, err := f.q.Reroute(t.Context(), which, "smart.example:587"); n != want || err != nil {
			t.Fatalf("%d items, %v; want %d", n, err, want)
		}
	}
	check := func(when, via string) {
		t.Helper()
		for _, it := range f.list(queue.Filter{}) {
			want := ""
			if it.Domain == "a.example" {
				want = via
			}
			was := before[it.Key()]
			if it.Via != want || it.Attempts != was.Attempts || !it.Next.Equal(was.Next) || len(it.Last) != len(was.Last) {
				t.Errorf("%s: %+v\nwas %+v", when, it, was)
			}
		}
	}
	check("at once", "smart.example:587")
	f.settle(got[1], "deferred")
	f.reopen()
	for _, it := range f.list(queue.Filter{}) {
		before[it.Key()] = it
	}
	check("after an attempt and a restart", "smart.example:587")
	for _, it := range takeAt(f, time.Now().Add(time.Hour)) {
		if (it.Via != "") != (it.Domain == "a.example") {
			t.Errorf("%s taken with %q", it.Key(), it.Via)
		}
		f.settle(it, "delivered")
	}
}
