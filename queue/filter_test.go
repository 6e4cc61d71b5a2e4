package queue_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"relayd/queue"
	"relayd/relay"
)

func TestFilter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newOffice(t)
		old := f.send("Bob@A.example", "carl@b.example")
		time.Sleep(time.Hour)
		young := f.send("dora@[192.0.2.1]")
		report := envelope("ann@c.example")
		report.From = relay.Address{}
		if err := f.stage(report, text).Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n, err := f.q.Hold(t.Context(), queue.Filter{Keys: []queue.Key{{ID: old, Domain: "b.example"}}}); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		yes, no := true, false
		a, b := string(old)+"/a.example", string(old)+"/b.example"
		y, r := string(young)+"/[192.0.2.1]", string(report.ID)+"/c.example"
		for _, c := range []struct {
			name string
			f    queue.Filter
			want []string
		}{
			{"all, the oldest first", queue.Filter{}, []string{a, b, y, r}},
			{"to, any case, within", queue.Filter{To: "OB@a"}, []string{a}},
			{"to, glob", queue.Filter{To: "*@?.example"}, []string{a, b, r}},
			{"to, glob is anchored", queue.Filter{To: "ob*"}, nil},
			{"to, brackets are ordinary", queue.Filter{To: "*[192*"}, []string{y}},
			{"from", queue.Filter{From: "ann@office"}, []string{a, b, y}},
			{"from null", queue.Filter{From: "<>"}, []string{r}},
			{"domain", queue.Filter{Domain: "B.Example."}, []string{b}},
			{"domain is whole", queue.Filter{Domain: "example"}, nil},
			{"domain glob", queue.Filter{Domain: "*.example"}, []string{a, b, r}},
			{"domain literal", queue.Filter{Domain: "[192.0.2.1]"}, []string{y}},
			{"older", queue.Filter{OlderThan: time.Hour}, []string{a, b}},
			{"older than any", queue.Filter{OlderThan: time.Hour + time.Millisecond}, nil},
			{"held", queue.Filter{Held: &yes}, []string{b}},
			{"not held", queue.Filter{Held: &no}, []string{a, y, r}},
			{"ids", queue.Filter{IDs: []relay.ID{young, old}}, []string{a, b, y}},
			{"ids and keys", queue.Filter{IDs: []relay.ID{young}, Keys: []queue.Key{{ID: old, Domain: "b.example"}}}, []string{b, y}},
			{"no ids", queue.Filter{IDs: []relay.ID{}}, nil},
			{"unknown id", queue.Filter{IDs: []relay.ID{"zzzzzzzzzzzzzzzz"}}, nil},
			{"all of it", queue.Filter{To: "a", From: "ann", Domain: "a.example", Held: &no}, []string{a}},
		} {
			var got []string
			for _, it := range f.list(c.f) {
				got = append(got, it.Key().String())
			}
			want := slices.Clone(c.want)
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("%s: got %v, want %v", c.name, got, want)
			}
		}
	})
}

// A listing longer than a page, by all, by IDs spread over it, and with changes under way.
func TestListPages(t *testing.T) {
	f := newOffice(t)
	ids := fill(f, 1000)
	slices.Sort(ids)
	var got []relay.ID
	for it, err := range f.q.List(t.Context(), queue.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, it.ID)
		if len(got) == 10 { // the consumer may call back
			if n, err := f.q.Drop(t.Context(), queue.Filter{IDs: ids[990:]}); n != 10 || err != nil {
				t.Fatal(n, err)
			}
		}
	}
	if !slices.Equal(got, ids[:990]) {
		t.Errorf("listed %d, want the first 990 in order", len(got))
	}
	some := []relay.ID{ids[989], ids[3], ids[500], ids[999]}
	if items := f.list(queue.Filter{IDs: some}); len(items) != 3 || items[0].ID != ids[3] || items[2].ID != ids[989] {
		t.Errorf("listed %s", keys(items))
	}
	if n, err := f.q.Drop(t.Context(), queue.Filter{}); n != 990 || err != nil {
		t.Errorf("dropped %d, %v", n, err)
	}
}

// fill sends n letters from several sessions at once, for one dead domain.
func fill(f *office, n int) []relay.ID {
	ids := make([]relay.ID, n)
	work := make(chan int)
	done := make(chan error)
	const sessions = 50
	for range sessions {
		go func() {
			for i := range work {
				env := envelope(fmt.Sprintf("user%d@dead.example", i))
				s, err := f.q.Stage(f.Context(), env)
				if err == nil {
					s.Write([]byte(text))
					err = s.Commit(f.Context())
				}
				if err != nil {
					f.Error(err)
				}
				ids[i] = env.ID
			}
			done <- nil
		}()
	}
	for i := range n {
		work <- i
	}
	close(work)
	for range sessions {
		<-done
	}
	return ids
}

func TestOperator(t *testing.T) {
	f := newOffice(t)
	ctx := t.Context()
	id := f.send("x@a.example", "y@b.example")
	b := queue.Filter{Keys: []queue.Key{{ID: id, Domain: "b.example"}}}
	count := func(want int) func(int, error) {
		return func(n int, err error) {
			t.Helper()
			if n != want || err != nil {
				t.Errorf("changed %d, %v; want %d", n, err, want)
			}
		}
	}
	count(1)(f.q.Hold(ctx, b))
	count(0)(f.q.Hold(ctx, b))
	f.reopen()
	if items := f.take(5, nil); len(items) != 1 || items[0].Domain != "a.example" {
		t.Errorf("took %s, held is b.example", keys(items))
	}
	count(1)(f.q.Retry(ctx, queue.Filter{})) // a.example, in its attempt
	if items := f.take(5, nil); len(items) != 0 {
		t.Errorf("took %s in the middle of an attempt", keys(items))
	}
	a := f.list(queue.Filter{Domain: "a.example"})[0]
	f.settle(a, relay.Deferred)
	if items := f.take(5, nil); len(items) != 1 || items[0].Attempts != 2 {
		t.Errorf("took %s, want a.example retried", keys(items))
	}
	count(1)(f.q.Release(ctx, queue.Filter{}))
	count(0)(f.q.Release(ctx, queue.Filter{}))
	items := f.take(5, nil)
	if len(items) != 1 || items[0].Domain != "b.example" {
		t.Errorf("took %s, want b.example released", keys(items))
	}
	count(2)(f.q.Hold(ctx, queue.Filter{})) // both in attempts
	f.settle(items[0], relay.Deferred)
	count(0)(f.q.Retry(ctx, queue.Filter{}))
	if items := f.take(5, nil); len(items) != 0 {
		t.Errorf("took held %s", keys(items))
	}
	body, err := f.q.Body(id)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	count(2)(f.q.Drop(ctx, queue.Filter{IDs: []relay.ID{id}}))
	if n := len(f.files()); n != 0 {
		t.Errorf("%d bodies left", n)
	}
}
