package users

import (
	"context"
	"net/netip"
	"runtime"
	"sync"

	"golang.org/x/sync/semaphore"
)

// maxWaiting is how many logins of one client may wait.
const maxWaiting = 100

// gate lets a few password computations run at once: as many of 64 MiB as there are processors,
// at least 2 and at most 4. Each client's go one after the other, so that somebody who guesses
// from one address takes one place and holds up nobody elsewhere for long.
type gate struct {
	budget int64 // KiB
	memory *semaphore.Weighted

	mu    sync.Mutex
	lanes map[netip.Prefix]*lane
}

// lane is the line of one client.
type lane struct {
	turn    *semaphore.Weighted
	waiting int
}

func newGate() *gate {
	budget := int64(DefaultParams.Memory) * int64(min(4, max(2, runtime.NumCPU())))
	return &gate{budget: budget, memory: semaphore.NewWeighted(budget), lanes: map[netip.Prefix]*lane{}}
}

// enter waits until a computation of so many KiB may run; release must be called after it. Errors
// are ErrBusy and those of ctx.
func (g *gate) enter(ctx context.Context, client netip.Addr, kib int64) (release func(), err error) {
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
	if err := g.memory.Acquire(ctx, kib); err != nil {
		l.turn.Release(1)
		g.leave(from, l)
		return nil, err
	}
	return func() {
		g.memory.Release(kib)
		l.turn.Release(1)
		g.leave(from, l)
	}, nil
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
