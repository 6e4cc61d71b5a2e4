package gate

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"relayd/relay"
)

// DNS is what the gate asks; *resolver.Resolver.
type DNS interface {
	relay.Resolver
	// A returns the A records of name.
	A(ctx context.Context, name string) ([]netip.Addr, error)
}

// client is what the DNS says of one client, under way or known.
type client struct {
	rules *Rules // under which it was asked; others want other answers
	until time.Time
	most  int // points that are still to come, at most
	done  chan struct{}

	points []Point // readable once done is closed
	whole  bool    // everything was answered
}

const (
	// maxClients bounds how many are remembered, maxAsking how many are asked about at a time: the
	// others pass without.
	maxClients = 10_000
	maxAsking  = 200
	// What was answered is believed for rememberFor, what was not for retryAfter.
	rememberFor = 5 * time.Minute
	retryAfter  = 20 * time.Second
	// maxConfirmed is how many names of a client are asked about.
	maxConfirmed = 3
)

// clients remembers them.
type clients struct {
	mu     sync.Mutex
	known  map[netip.Addr]*client
	asking int
	most   int
	wg     sync.WaitGroup
}

// about returns what is known of a client, asking if need be; nil: too many are being asked about.
func (g *Gate) about(r *Rules, addr netip.Addr) *client {
	if r.NoReverse == 0 && len(r.Lists) == 0 {
		return nil
	}
	now := time.Now()
	cs := &g.clients
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if c := cs.known[addr]; c != nil && c.rules == r && (!c.isDone() || now.Before(c.until)) {
		return c
	}
	if cs.asking >= maxAsking || g.ctx.Err() != nil {
		return nil
	}
	if _, have := cs.known[addr]; !have && len(cs.known) >= cs.most {
		cs.forget(now)
	}
	c := &client{rules: r, most: max(r.NoReverse, 0), done: make(chan struct{})}
	for _, l := range r.Lists {
		c.most += max(l.Weight, 0)
	}
	cs.known[addr] = c
	cs.asking++
	zones := g.zonesOf(r)
	cs.wg.Go(func() { g.ask(c, zones, addr) })
	return c
}

func (c *client) isDone() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// forget drops, of a few taken by chance, one that is of no use any more, or else the oldest.
func (cs *clients) forget(now time.Time) {
	var victim netip.Addr
	var first time.Time
	n := 0
	for addr, c := range cs.known {
		until := now.Add(time.Hour) // under way
		if c.isDone() {
			until = c.until
		}
		if n == 0 || until.Before(first) {
			victim, first = addr, until
		}
		if n++; n == sample {
			break
		}
	}
	delete(cs.known, victim)
}

// ask looks everything up at the same time.
func (g *Gate) ask(c *client, zones map[relay.Domain]*zone, addr netip.Addr) {
	ctx, cancel := context.WithTimeout(g.ctx, questionTimeout)
	defer cancel()
	var mu sync.Mutex
	whole := true
	found := func(answered bool, points ...Point) {
		mu.Lock()
		defer mu.Unlock()
		whole = whole && answered
		c.points = append(c.points, points...)
	}
	var wg sync.WaitGroup
	if c.rules.NoReverse != 0 {
		wg.Go(func() {
			p, bad, answered := c.rules.judgeReverse(ctx, g.dns, addr)
			if bad {
				found(answered, p)
			} else {
				found(answered)
			}
		})
	}
	for _, z := range zones {
		wg.Go(func() {
			got, answered := z.ask(ctx, g.dns, addr)
			found(answered, c.rules.judgeLists(ctx, g.dns, z, got, addr)...)
		})
	}
	wg.Wait()
	slices.SortFunc(c.points, gravest)
	until := rememberFor
	if !whole {
		until = retryAfter
	}
	g.clients.mu.Lock()
	defer g.clients.mu.Unlock()
	c.whole, c.until = whole, time.Now().Add(until)
	g.clients.asking--
	close(c.done)
}

// judgeReverse says whether a client lacks a name that leads back to it (RFC 8601 §3). What could not
// be asked is no fault.
func (r *Rules) judgeReverse(ctx context.Context, dns DNS, addr netip.Addr) (p Point, bad, answered bool) {
	p = Point{Name: "reverse", Weight: r.NoReverse}
	names, err := dns.PTR(ctx, addr)
	if errors.Is(err, relay.ErrNoRecord) {
		p.Words = "its address has no name (PTR)"
		return p, true, true
	}
	if err != nil {
		return p, false, false
	}
	for _, name := range names[:min(len(names), maxConfirmed)] {
		addrs, err := dns.Addrs(ctx, name)
		if slices.ContainsFunc(addrs, func(a netip.Addr) bool { return a.Unmap() == addr }) {
			return p, false, true
		}
		if err != nil && !errors.Is(err, relay.ErrNoRecord) {
			return p, false, false
		}
	}
	p.Words = "its name (PTR) does not lead back to its address"
	return p, true, true
}

// judgeLists says what the lists that read a zone make of its answer.
func (r *Rules) judgeLists(ctx context.Context, dns DNS, z *zone, got []netip.Addr, addr netip.Addr) (points []Point) {
	reason := ""
	for _, l := range r.Lists {
		if l.Zone != z.name || !slices.ContainsFunc(got, l.counts) {
			continue
		}
		if l.Weight > 0 && reason == "" {
			reason = z.reason(ctx, dns, addr)
		}
		points = append(points, Point{Name: string(z.name), Weight: l.Weight, Words: "it is listed by " + string(z.name) + reason})
	}
	return points
}
