package mx

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"relayd/relay"
)

// IPv6 only when it works: from an address that other servers believe, and without waiting for it.
const (
	// headStart is what an IPv6 connection has before IPv4 is tried beside it (RFC 8305 §5 asks for 250 ms
	// between two attempts).
	headStart = 300 * time.Millisecond
	slowFor   = 10 * time.Minute // an address that lost is not tried first
	maxSlow   = 1000

	sourceWait  = 2 * time.Second // that an attempt gives to the question whether our address is believed
	sourceAsk   = 30 * time.Second
	sourceGood  = time.Hour
	sourceBad   = 10 * time.Minute
	sourceBlind = time.Minute // the DNS did not say
	maxSources  = 100
)

// pickFamilies brings the targets of a destination into the order in which they are tried, and returns why
// IPv6 is not the first choice where it could be. Where there is IPv4 too, an address of ours whose PTR
// record does not name us makes IPv6 none at all: many servers refuse it for good. When the DNS does not
// say, and after an address has been slow, IPv4 of the same host comes first.
func (c *Client) pickFamilies(ctx context.Context, targets []target) ([]target, string) {
	six := slices.IndexFunc(targets, target.isIPv6)
	if six < 0 || !slices.ContainsFunc(targets, target.isIPv4) {
		return targets, ""
	}
	if c.cfg.Source != nil && targets[six].via == nil {
		switch state, why := c.ourIPv6(ctx, targets[six].addr.Addr()); state {
		case sourceDoubted:
			return slices.DeleteFunc(slices.Clone(targets), target.isIPv6), why
		case sourceUnknown:
			return fourFirst(targets, target.isIPv6), why
		}
	}
	why := ""
	slow := func(t target) bool {
		late := t.isIPv6() && c.slow.has(t.addr.Addr())
		if late {
			why = t.addr.Addr().String() + " was slow to answer"
		}
		return late
	}
	targets = fourFirst(targets, slow)
	return withSecond(targets), why
}

// fourFirst lets the addresses that doubt picks come behind the IPv4 addresses of their host.
func fourFirst(targets []target, doubt func(target) bool) []target {
	out := slices.Clone(targets)
	for i := range out {
		if !doubt(out[i]) {
			continue
		}
		last := i
		for n := i + 1; n < len(out); n++ {
			if out[n].name == out[i].name && out[n].isIPv4() {
				last = n
				break
			}
		}
		out[i], out[last] = out[last], out[i]
	}
	return out
}

// withSecond names for each IPv6 address that comes before an IPv4 address of its host the one to try beside it.
func withSecond(targets []target) []target {
	out := slices.Clone(targets)
	for i := range out {
		for n := i + 1; n < len(out) && out[i].isIPv6(); n++ {
			if out[n].name == out[i].name && out[n].isIPv4() {
				out[i].second = out[n].addr
				break
			}
		}
	}
	return out
}

func (t target) isIPv6() bool { return t.addr.Addr().Unmap().Is6() }
func (t target) isIPv4() bool { return t.addr.Addr().Unmap().Is4() }

// dialEither connects to t and, once that has had its head start, to its second address too; the first that
// stands is taken. It returns t with the address it came to.
func (c *Client) dialEither(ctx context.Context, t target) (*conn, target, error) {
	second := t.second
	t.second = netip.AddrPort{}
	if !second.IsValid() {
		cn, err := c.dial(ctx, t.addr)
		return cn, t, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type made struct {
		cn   *conn
		addr netip.AddrPort
		err  error
	}
	done := make(chan made, 2)
	start := func(addr netip.AddrPort) {
		go func() {
			cn, err := c.dial(ctx, addr)
			done <- made{cn, addr, err}
		}()
	}
	start(t.addr)
	running := 1
	timer := time.NewTimer(headStart)
	defer timer.Stop()
	var first error
	for running > 0 {
		select {
		case <-timer.C:
			transcriptOf(ctx).note("no connection within %v, trying %s beside it", headStart, second)
			start(second)
			running++
			continue
		case m := <-done:
			running--
			if m.err != nil {
				if m.addr == t.addr {
					first = m.err
				}
				if timer.Stop() {
					return nil, t, first // the second has its turn as a target of its own
				}
				continue
			}
			cancel()
			for ; running > 0; running-- {
				if late := <-done; late.cn != nil {
					late.cn.abort()
				}
			}
			if m.addr == second {
				c.slow.note(t.addr.Addr())
			}
			t.addr = m.addr
			return m.cn, t, nil
		}
	}
	return nil, t, first
}

// way says by which family a letter goes where there was a choice.
func (l *letter) way(t target) string {
	switch {
	case t.socket || !t.addr.IsValid() || !l.choice:
		return ""
	case t.isIPv6():
		return "IPv6"
	case l.notSix != "":
		return "IPv4, not IPv6: " + l.notSix
	}
	return "IPv4, not IPv6: it took longer, or failed"
}

// slowHosts are the IPv6 addresses that lately lost against IPv4.
type slowHosts struct {
	mu sync.Mutex
	of map[netip.Addr]time.Time
}

func (s *slowHosts) note(a netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == nil || len(s.of) >= maxSlow {
		s.of = map[netip.Addr]time.Time{}
	}
	s.of[a] = time.Now().Add(slowFor)
}

func (s *slowHosts) has(a netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	until, ok := s.of[a]
	if ok && time.Now().After(until) {
		delete(s.of, a)
		return false
	}
	return ok
}

// sourceState is whether other servers believe an address of ours.
type sourceState int

const (
	sourceUnknown sourceState = iota
	sourceBelieved
	sourceDoubted
)

// sources remembers what the DNS says of our own addresses.
type sources struct {
	ctx    context.Context // ends with the Client
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu sync.Mutex
	of map[netip.Addr]*source
}

type source struct {
	done  chan struct{}
	state sourceState
	why   string
	until time.Time
}

func newSources() *sources {
	s := &sources{of: map[netip.Addr]*source{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

func (s *sources) close() {
	s.cancel()
	s.work.Wait()
}

// ourIPv6 says whether the address that a connection to remote would come from is believed.
func (c *Client) ourIPv6(ctx context.Context, remote netip.Addr) (sourceState, string) {
	own := c.cfg.Source(remote)
	if !own.IsValid() {
		return sourceDoubted, "this machine has no way to it"
	}
	src := c.sources.find(own, c.judgeSource)
	timer := time.NewTimer(sourceWait)
	defer timer.Stop()
	select {
	case <-src.done:
		return src.state, src.why
	default:
	}
	select {
	case <-src.done:
		return src.state, src.why
	case <-timer.C:
	case <-ctx.Done():
	}
	return sourceUnknown, "it is not known yet whether " + own.String() + " has a PTR record that names us"
}

// find returns what is known of own, or the question that is being asked.
func (s *sources) find(own netip.Addr, judge func(context.Context, netip.Addr) (sourceState, string)) *source {
	s.mu.Lock()
	defer s.mu.Unlock()
	have := s.of[own]
	if have != nil {
		select {
		case <-have.done:
			if time.Now().Before(have.until) {
				return have
			}
		default:
			return have
		}
	}
	src := &source{done: make(chan struct{})}
	if len(s.of) >= maxSources {
		clear(s.of)
	}
	s.of[own] = src
	s.work.Go(func() {
		ctx, cancel := context.WithTimeout(s.ctx, sourceAsk)
		defer cancel()
		src.state, src.why = judge(ctx, own)
		last := map[sourceState]time.Duration{sourceBelieved: sourceGood, sourceDoubted: sourceBad, sourceUnknown: sourceBlind}
		src.until = time.Now().Add(last[src.state])
		close(src.done)
	})
	return src
}

// judgeSource asks whether the PTR record of own names us, and our name leads back to it.
func (c *Client) judgeSource(ctx context.Context, own netip.Addr) (sourceState, string) {
	name := c.cfg.Hostname
	names, err := c.cfg.Resolver.PTR(ctx, own)
	switch {
	case errors.Is(err, relay.ErrNoRecord), err == nil && len(names) == 0:
		return sourceDoubted, fmt.Sprintf("our address %s has no PTR record", own)
	case err != nil:
		return sourceUnknown, fmt.Sprintf("the PTR record of our address %s cannot be looked up", own)
	case !slices.Contains(names, name):
		return sourceDoubted, fmt.Sprintf("the PTR record of our address %s names %s and not %s", own, names[0], name)
	}
	addrs, err := c.cfg.Resolver.Addrs(ctx, name)
	switch {
	case err != nil && !errors.Is(err, relay.ErrNoRecord):
		return sourceUnknown, fmt.Sprintf("the addresses of %s cannot be looked up", name)
	case !slices.ContainsFunc(addrs, func(a netip.Addr) bool { return a.Unmap() == own }):
		return sourceDoubted, fmt.Sprintf("our address %s is not one of those that the DNS has for %s", own, name)
	}
	return sourceBelieved, ""
}
