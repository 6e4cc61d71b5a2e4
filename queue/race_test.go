package queue_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"relayd/queue"
	"relayd/relay"
)

// affairs is what everybody involved knows of the letters of one run.
type affairs struct {
	*office
	mu   sync.Mutex
	owed map[queue.Key]*fate
	all  []queue.Key
}

// fate is what has become of an item, as far as its sender and the operator were told.
type fate struct {
	over bool   // delivered or dropped, or about to be
	held bool   // by the operator
	via  string // chosen by the operator
	sure bool   // nobody is at it: held and via are so
}

// Letters come and leave, are deferred, held, released, dropped, retried, sent another way and looked
// at, all at once, while they get their records. Then this process dies: what was promised is there,
// and the operator's word holds.
func TestEverybodyAtOnce(t *testing.T) {
	a := &affairs{office: newOffice(t), owed: map[queue.Key]*fate{}}
	end := time.Now().Add(time.Second)
	var wg sync.WaitGroup
	for _, work := range []func(){a.write, a.write, a.write, a.deliver, a.deliver, a.operate, a.operate, a.inspect} {
		wg.Go(func() {
			for time.Now().Before(end) {
				work()
			}
		})
	}
	wg.Wait()
	a.look("alive", a.office)
	a.look("after a crash", a.crash())
	t.Logf("%d items, %d are left", len(a.all), a.q.Stats().Items)
}

func (a *affairs) write() {
	rcpts := []string{"a@a.example", "b@b.example", "c@c.example", "d@d.example"}
	rand.Shuffle(len(rcpts), func(i, j int) { rcpts[i], rcpts[j] = rcpts[j], rcpts[i] })
	env := envelope(rcpts[:1+rand.IntN(3)]...)
	s := a.stage(env, text)
	a.mu.Lock()
	for _, r := range env.Rcpts {
		k := queue.Key{ID: env.ID, Domain: r.Addr.Domain}
		a.owed[k] = &fate{}
	}
	a.mu.Unlock()
	if err := s.Commit(a.Context()); err != nil {
		a.Error(err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range env.Rcpts {
		k := queue.Key{ID: env.ID, Domain: r.Addr.Domain}
		a.owed[k].sure = true
		a.all = append(a.all, k)
	}
}

func (a *affairs) deliver() {
	items, err := a.q.Take(a.Context(), time.Now(), 5, nil)
	if err != nil {
		a.Error(err)
	}
	for _, it := range items {
		if it.Domain == "d.example" && rand.IntN(2) == 0 {
			a.q.GiveBack(it.Key())
			continue
		}
		o := relay.Delivered
		if it.Domain == "c.example" || rand.IntN(4) == 0 {
			o = relay.Deferred
		} else {
			a.mu.Lock()
			a.owed[it.Key()].over = true
			a.mu.Unlock()
		}
		b, err := a.q.Body(it.ID)
		if err == nil {
			b.Close()
		} else if !errors.Is(err, queue.ErrNotFound) {
			a.Error(err)
		}
		if err := a.q.Settle(a.Context(), it.Key(), results(it, o), false); err != nil && !errors.Is(err, queue.ErrNotFound) {
			a.Error(err)
		}
	}
}

// claim picks an item for an operator, newer ones with preference, and nobody else's meanwhile.
func (a *affairs) claim() (queue.Key, *fate) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.all) == 0 {
		return queue.Key{}, nil
	}
	k := a.all[max(0, len(a.all)-1-rand.IntN(20))]
	f := a.owed[k]
	if !f.sure {
		return k, nil
	}
	f.sure = false
	return k, f
}

func (a *affairs) operate() {
	k, f := a.claim()
	if f == nil {
		return
	}
	held, via, dropped := f.held, f.via, false
	filter := queue.Filter{Keys: []queue.Key{k}}
	var err error
	switch rand.IntN(6) {
	case 0:
		held = true
		_, err = a.q.Hold(a.Context(), filter)
	case 1:
		held = false
		_, err = a.q.Release(a.Context(), filter)
	case 2:
		via = "smart.example"
		_, err = a.q.Reroute(a.Context(), filter, via)
	case 3:
		_, err = a.q.Retry(a.Context(), filter)
	case 4:
		_, err = a.q.Reschedule(a.Context(), filter, time.Now().Add(time.Hour))
	case 5:
		if dropped = rand.IntN(4) == 0; dropped {
			a.mu.Lock()
			f.over = true
			a.mu.Unlock()
			_, err = a.q.Drop(a.Context(), filter)
		}
	}
	if err != nil {
		a.Error(err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	f.held, f.via, f.sure = held, via, true
}

func (a *affairs) inspect() {
	if r, err := a.q.Repair(a.Context()); err != nil || len(r.Mended) > 0 || r.Left.Err() != nil {
		a.Errorf("%+v, %v", r, err)
	}
	time.Sleep(20 * time.Millisecond)
}

// look compares what a queue has with what is owed.
func (a *affairs) look(when string, f *office) {
	a.Helper()
	have := map[queue.Key]queue.Item{}
	for _, it := range f.list(queue.Filter{}) {
		have[it.Key()] = it
		if got := f.body(it.ID); got != text {
			a.Errorf("%s: %s: the body is %q", when, it.Key(), got)
		}
	}
	var wrong []string
	for k, want := range a.owed {
		it, ok := have[k]
		switch {
		case want.over:
		case !ok:
			wrong = append(wrong, k.String()+" is lost")
		case it.Held != want.held || it.Via != want.via:
			wrong = append(wrong, k.String()+" has forgotten the operator's word")
		}
	}
	slices.Sort(wrong)
	for _, w := range wrong[:min(5, len(wrong))] {
		a.Errorf("%s: %s (and %d others)", when, w, len(wrong)-1)
	}
}
