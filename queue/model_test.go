package queue_test

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"relayd/queue"
	"relayd/relay"
)

// modelItem is an item as somebody with pencil and paper would keep it.
type modelItem struct {
	pending  []string
	attempts int
	held     bool
	taken    bool
	due      bool
	warned   bool
}

// model is a queue in a map, driven side by side with a real one by random actions.
type model struct {
	f      *office
	items  map[queue.Key]*modelItem
	staged map[relay.ID]relay.Staged // not committed
	envs   map[relay.ID]relay.Envelope
	kept   map[relay.ID]relay.Staged // committed, may be aborted yet
}

// For any interleaving of mail, attempts, operator and restarts the queue holds exactly what the
// model holds, and hands out exactly what is due.
func TestQueueAgainstModel(t *testing.T) {
	dir, n := t.TempDir(), 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		m := &model{
			f:     &office{TB: t, dir: filepath.Join(dir, fmt.Sprint(n), "queue")},
			items: map[queue.Key]*modelItem{}, staged: map[relay.ID]relay.Staged{},
			envs: map[relay.ID]relay.Envelope{}, kept: map[relay.ID]relay.Staged{},
		}
		m.f.open()
		defer func() {
			for _, s := range m.staged {
				s.Abort()
			}
			m.f.finish()
			if t.Failed() {
				rt.Fatal("see above")
			}
		}()
		rt.Repeat(map[string]func(*rapid.T){
			"":       m.check,
			"stage":  m.stage,
			"commit": m.commit,
			"abort":  m.abort,
			"take":   m.take,
			"settle": m.settle,
			"verb":   m.verb,
			"reopen": m.reopen,
		})
	})
}

var domains = []string{"a.example", "b.example", "c.example"}

func (m *model) stage(t *rapid.T) {
	var rcpts []string
	for i := range rapid.IntRange(1, 4).Draw(t, "recipients") {
		rcpts = append(rcpts, fmt.Sprintf("u%d@%s", i, rapid.SampledFrom(domains).Draw(t, "domain")))
	}
	env := envelope(rcpts...)
	m.envs[env.ID], m.staged[env.ID] = env, m.f.stage(env, text)
}

func one[V any](t *rapid.T, from map[relay.ID]V) relay.ID {
	if len(from) == 0 {
		t.Skip("none")
	}
	return rapid.SampledFrom(slices.Sorted(maps.Keys(from))).Draw(t, "id")
}

func (m *model) commit(t *rapid.T) {
	id := one(t, m.staged)
	if err := m.staged[id].Commit(m.f.Context()); err != nil {
		t.Fatal(err)
	}
	m.kept[id] = m.staged[id]
	delete(m.staged, id)
	for _, rc := range m.envs[id].Rcpts {
		k := queue.Key{ID: id, Domain: rc.Addr.Domain}
		if m.items[k] == nil {
			m.items[k] = &modelItem{due: true}
		}
		m.items[k].pending = append(m.items[k].pending, rc.Addr.String())
	}
}

func (m *model) abort(t *rapid.T) {
	from := m.staged
	if rapid.Bool().Draw(t, "committed") {
		from = m.kept
	}
	id := one(t, from)
	if err := from[id].Abort(); err != nil {
		t.Fatal(err)
	}
	delete(from, id)
	maps.DeleteFunc(m.items, func(k queue.Key, _ *modelItem) bool { return k.ID == id })
}

func (m *model) take(t *rapid.T) {
	n := rapid.IntRange(1, 5).Draw(t, "n")
	busy := relay.Domain(rapid.SampledFrom(append(domains, "")).Draw(t, "busy"))
	want := 0
	for k, it := range m.items {
		if it.due && !it.held && !it.taken && k.Domain != busy {
			want++
		}
	}
	items := m.f.take(n, func(d relay.Domain) bool { return d == busy })
	if len(items) != min(n, want) {
		t.Fatalf("took %s, want %d of %d", keys(items), n, want)
	}
	for _, it := range items {
		mi := m.items[it.Key()]
		if mi == nil || mi.held || mi.taken || !mi.due || it.Domain == busy {
			t.Fatalf("took %s, which the model has as %+v", it.Key(), mi)
		}
		mi.attempts, mi.taken, mi.due = mi.attempts+1, true, false
		if it.Attempts != mi.attempts || !it.Next.After(time.Now()) {
			t.Fatalf("%s: attempt %d, next %v; want attempt %d", it.Key(), it.Attempts, it.Next, mi.attempts)
		}
	}
}

func (m *model) settle(t *rapid.T) {
	var taken []string
	for k, it := range m.items {
		if it.taken {
			taken = append(taken, k.String())
		}
	}
	if len(taken) == 0 {
		t.Skip("none")
	}
	slices.Sort(taken)
	k, _ := queue.ParseKey(rapid.SampledFrom(taken).Draw(t, "key"))
	mi, warned := m.items[k], rapid.Bool().Draw(t, "warned")
	var rs []relay.Result
	for _, p := range slices.Clone(mi.pending) {
		a, _ := relay.ParseAddress(p, true)
		o := rapid.SampledFrom([]relay.Outcome{relay.Delivered, relay.Failed, relay.Deferred}).Draw(t, "outcome")
		rs = append(rs, relay.Result{Rcpt: a, Outcome: o})
		if o != relay.Deferred {
			mi.pending = slices.DeleteFunc(mi.pending, func(q string) bool { return q == p })
		}
	}
	if err := m.f.q.Settle(m.f.Context(), k, rs, warned); err != nil {
		t.Fatal(err)
	}
	mi.taken, mi.warned = false, mi.warned || warned
	if len(mi.pending) == 0 {
		delete(m.items, k)
	}
}

func (m *model) verb(t *rapid.T) {
	f := queue.Filter{Domain: rapid.SampledFrom(domains).Draw(t, "domain")}
	q, ctx := m.f.q, m.f.Context()
	verb := rapid.SampledFrom([]string{"retry", "hold", "release", "drop"}).Draw(t, "verb")
	got, err := map[string]func() (int, error){
		"retry": func() (int, error) { return q.Retry(ctx, f) }, "hold": func() (int, error) { return q.Hold(ctx, f) },
		"release": func() (int, error) { return q.Release(ctx, f) }, "drop": func() (int, error) { return q.Drop(ctx, f) },
	}[verb]()
	want := 0
	for k, it := range m.items {
		if string(k.Domain) != f.Domain {
			continue
		}
		switch {
		case verb == "drop":
			delete(m.items, k)
		case verb == "retry" && !it.held:
			it.due = true
		case verb == "hold" && !it.held:
			it.held = true
		case verb == "release" && it.held:
			it.held, it.due = false, true
		default:
			continue
		}
		want++
	}
	if got != want || err != nil {
		t.Fatalf("%s changed %d, %v; want %d", verb, got, err, want)
	}
}

func (m *model) reopen(t *rapid.T) {
	for _, s := range m.staged {
		s.Abort()
	}
	clear(m.staged)
	clear(m.kept)
	m.f.reopen()
	for _, it := range m.items {
		it.taken = false
	}
}

func (m *model) check(t *rapid.T) {
	items := m.f.list(queue.Filter{})
	if len(items) != len(m.items) {
		t.Fatalf("the queue has %s, the model %d", keys(items), len(m.items))
	}
	for _, it := range items {
		mi := m.items[it.Key()]
		if mi == nil {
			t.Fatalf("the model has no %s", it.Key())
		}
		var pending []string
		for _, rc := range it.Rcpts {
			pending = append(pending, rc.Addr.String())
		}
		if !slices.Equal(pending, mi.pending) || it.Held != mi.held || it.Warned != mi.warned || it.Attempts != mi.attempts {
			t.Fatalf("%s is %v %+v, the model says %+v", it.Key(), pending, it, mi)
		}
	}
	for id := range m.envs {
		_, alive := m.staged[id]
		for k := range m.items {
			alive = alive || k.ID == id
		}
		if has := slices.Contains(m.f.files(), m.f.bodyFile(id)); has != alive {
			t.Fatalf("body %s: there %v, needed %v", id, has, alive)
		}
	}
	if err := m.f.q.Check(m.f.Context()); err != nil {
		t.Fatal(err)
	}
}
