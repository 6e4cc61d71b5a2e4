package users

import (
	"context"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

// maxWaiting is how many logins of one client may wait.
const maxWaiting = 100

// maxPatience is how long a login from where nobody has logged in lately waits for its turn. Its
// program tries again; that of a guesser has lost the time.
const maxPatience = 10 * time.Second

// gate lets a few password computations run at once: as many of 64 MiB as there are processors,
// at least 2 and at most 4. Each client's go one after the other, so that somebody who guesses
// from one address takes one place and holds up nobody elsewhere for long. Where many addresses
// guess at once, those from which somebody has logged in go first, and of the others the latest:
// an office's own people are not made to wait behind a thousand strangers, wherever they are.
type gate struct {
	budget int64 // KiB

	mu        sync.Mutex
	free      int64
	regulars  []*waiter // the first goes first
	strangers []*waiter // the last goes first
	lanes     map[netip.Prefix]*lane
}

// waiter waits for memory. turn is closed when it has it.
type waiter struct {
	kib  int64
	turn chan struct{}
}

// lane is the line of one client.
type lane struct {
	turn    *semaphore.Weighted
	waiting int
}

func newGate() *gate {
	budget := int64(DefaultParams.Memory) * int64(min(4, max(2, runtime.NumCPU())))
	return &gate{budget: budget, free: budget, lanes: map[netip.Prefix]*lane{}}
}

// enter waits until a computation of so many KiB may run; release must be called after it. regular
// says that somebody has logged in from there. Errors are ErrBusy and those of ctx.
func (g *gate) enter(ctx context.Context, client netip.Addr, kib int64, regular func() bool) (release func(), err error) {
	kib = min(kib, g.budget)
	from := origin(client)
	l, err := g.join(from)
	if err != nil {
		return nil, err
	}
	if err := l.turn.Acquire(ctx, 1); err != nil {
		g.leave(from, l)
		return nil, err
	}
	if err := g.acquire(ctx, kib, regular()); err != nil {
		l.turn.Release(1)
		g.leave(from, l)
		return nil, err
	}
	return func() {
		g.release(kib)
		l.turn.Release(1)
		g.leave(from, l)
	}, nil
}

func (g *gate) acquire(ctx context.Context, kib int64, regular bool) error {
	w := &waiter{kib, make(chan struct{})}
	line, patience := &g.strangers, time.After(maxPatience)
	if regular {
		line, patience = &g.regulars, nil
	}
	g.mu.Lock()
	*line = append(*line, w)
	g.admit()
	g.mu.Unlock()
	select {
	case <-w.turn:
		return nil
	case <-patience:
		return g.giveUp(line, w, ErrBusy)
	case <-ctx.Done():
		return g.giveUp(line, w, ctx.Err())
	}
}

// giveUp takes w out of its line, or gives back what it got meanwhile.
func (g *gate) giveUp(line *[]*waiter, w *waiter, err error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if i := slices.Index(*line, w); i >= 0 {
		*line = slices.Delete(*line, i, i+1)
	} else {
		g.free += w.kib
	}
	g.admit() // those behind may need less
	return err
}

func (g *gate) release(kib int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.free += kib
	g.admit()
}

// admit lets in whoever is next, as long as there is memory. One that needs much is not passed by
// those that need less, or it would never come.
func (g *gate) admit() {
	for {
		var w *waiter
		switch n := len(g.strangers); {
		case len(g.regulars) > 0:
			w = g.regulars[0]
		case n > 0:
			w = g.strangers[n-1]
		}
		if w == nil || w.kib > g.free {
			return
		}
		if len(g.regulars) > 0 {
			g.regulars = slices.Delete(g.regulars, 0, 1)
		} else {
			g.strangers = slices.Delete(g.strangers, len(g.strangers)-1, len(g.strangers))
		}
		g.free -= w.kib
		close(w.turn)
	}
}
func (g *gate) join(from netip.Prefix) (*lane, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.lanes[from]
	if l == nil {
		l = &lane{turn: semaphore.NewWeighted(1)}
		g.lanes[from] = l
	}
	if l.waiting == maxWaiting {
		return nil, ErrBusy
	}
	l.waiting++
	return l, nil
}

func (g *gate) leave(from netip.Prefix, l *lane) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if l.waiting--; l.waiting == 0 {
		delete(g.lanes, from)
	}
}

// origin is who counts as one client: an IPv4 address, or the /64 that every IPv6 customer has.
func origin(client netip.Addr) netip.Prefix {
	client = client.Unmap().WithZone("")
	bits := 64
	if client.Is4() {
		bits = 32
	}
	p, _ := client.Prefix(bits) // the zero Addr is a client of its own
	return p
}
