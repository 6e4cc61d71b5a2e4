package delivery

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"relayd/relay"
)

// Limit bounds what some destinations get, all of them together. A letter obeys every limit that is for
// its domain.
type Limit struct {
	To []string // domains: "partner.example", "*.partner.example" (its subdomains only), "*"
	MX []string // or a most preferred mail host of the domain: a name or "*.protection.example"

	PerMinute   int // letters in any minute; an attempt at one domain counts as one. 0: no bound
	Concurrency int // attempts at the same time; 0: no bound
}

// How long it is known which hosts a domain has, and how many domains are looked up at a time.
const (
	hostsFresh = time.Hour
	hostsRetry = 5 * time.Minute // after a lookup that failed: until then only the domain's name counts
	hostsWait  = time.Minute     // for a lookup
	maxLookups = 16
	maxHosts   = 20_000 // domains
)

// lanes are the limits and what they let through lately. With a limit by mail host every domain is looked
// up before its first letter, beside the drain, and its letters wait for that; trouble with the DNS ends
// the wait.
type lanes struct {
	limits []Limit
	byHost bool
	hosts  func(ctx context.Context, d relay.Domain) ([]relay.Domain, error)

	mu      sync.Mutex
	starts  [][]time.Time // of each limit, PerMinute at most, the oldest first
	known   map[relay.Domain]home
	looking map[relay.Domain]bool
}

// home is what is known of a domain's mail hosts.
type home struct {
	hosts []relay.Domain
	until time.Time
}

func newLanes(limits []Limit, hosts func(context.Context, relay.Domain) ([]relay.Domain, error)) *lanes {
	return &lanes{limits: limits, hosts: hosts, starts: make([][]time.Time, len(limits)),
		byHost: hosts != nil && slices.ContainsFunc(limits, func(l Limit) bool { return len(l.MX) > 0 }),
		known:  map[relay.Domain]home{}, looking: map[relay.Domain]bool{}}
}

// traffic is one Take's view of the lanes.
type traffic struct {
	*lanes
	running []int // attempts under way, by limit
	look    func(relay.Domain)
}

// traffic counts the attempts under way; look has a domain looked up by found, and must not wait.
func (l *lanes) traffic(planned map[relay.Domain]int, look func(relay.Domain)) *traffic {
	t := &traffic{lanes: l, running: make([]int, len(l.limits)), look: look}
	l.mu.Lock()
	defer l.mu.Unlock()
	for domain, n := range planned {
		for i := range l.of(domain) {
			t.running[i] += n
		}
	}
	return t
}

// of are the limits for a domain, as far as its hosts are known. Callers hold mu.
func (l *lanes) of(domain relay.Domain) func(func(int) bool) {
	return func(yield func(int) bool) {
		hosts := l.known[domain].hosts
		for i, limit := range l.limits {
			fits := matchesAny(limit.To, domain) ||
				slices.ContainsFunc(hosts, func(h relay.Domain) bool { return matchesAny(limit.MX, h) })
			if fits && !yield(i) {
				return
			}
		}
	}
}

func matchesAny(patterns []string, d relay.Domain) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		suffix, below := strings.CutPrefix(p, "*")
		return below && strings.HasSuffix(string(d), suffix) || p == string(d)
	})
}

// full says whether a letter to the domain has to wait.
func (t *traffic) full(domain relay.Domain, now time.Time) bool {
	if len(t.limits) == 0 {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byHost {
		have, known := t.known[domain]
		if (!known || now.After(have.until)) && !t.looking[domain] && len(t.looking) < maxLookups {
			t.looking[domain] = true
			t.look(domain)
		}
		if !known {
			return true
		}
	}
	for i := range t.of(domain) {
		l := t.limits[i]
		if l.Concurrency > 0 && t.running[i] >= l.Concurrency {
			return true
		}
		if l.PerMinute > 0 && len(t.starts[i]) >= l.PerMinute && now.Sub(t.starts[i][0]) < time.Minute {
			return true
		}
	}
	return false
}

// start counts a letter that goes.
func (t *traffic) start(domain relay.Domain, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.of(domain) {
		t.running[i]++
		if most := t.limits[i].PerMinute; most > 0 {
			t.starts[i] = append(t.starts[i][max(len(t.starts[i])+1-most, 0):], now)
		}
	}
}

// find looks a domain up, and remembers a failure too: no letter waits for the DNS here.
func (l *lanes) find(ctx context.Context, domain relay.Domain) {
	ctx, cancel := context.WithTimeout(ctx, hostsWait)
	defer cancel()
	hosts, err := l.hosts(ctx, domain)
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.looking, domain)
	have := home{hosts: hosts, until: now.Add(hostsFresh)}
	if err != nil {
		have = home{hosts: l.known[domain].hosts, until: now.Add(hostsRetry)}
	}
	if len(l.known) >= maxHosts {
		clear(l.known)
	}
	l.known[domain] = have
}

// waits says which limit a letter to the domain that is due waits for, and until when it does at least,
// where that is known; "" where no limit keeps it. It looks nothing up.
func (l *lanes) waits(domain relay.Domain, planned func() map[relay.Domain]int, now time.Time) (what string, until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, known := l.known[domain]; l.byHost && !known {
		return "its mail hosts are looked up first, for [[outbound.limit]]", time.Time{}
	}
	for i := range l.of(domain) {
		limit := l.limits[i]
		whom := strings.Join(slices.Concat(limit.To, limit.MX), ", ")
		if n := limit.PerMinute; n > 0 && len(l.starts[i]) >= n && now.Sub(l.starts[i][0]) < time.Minute {
			return fmt.Sprintf("[[outbound.limit]] lets %d a minute go to %s", n, whom), l.starts[i][0].Add(time.Minute)
		}
		if n := limit.Concurrency; n > 0 && l.running(i, planned()) >= n {
			return fmt.Sprintf("[[outbound.limit]] lets %d at a time go to %s", n, whom), time.Time{}
		}
	}
	return "", time.Time{}
}

// running counts the attempts under way that a limit is for. Callers hold mu.
func (l *lanes) running(limit int, planned map[relay.Domain]int) (n int) {
	for domain, attempts := range planned {
		for i := range l.of(domain) {
			if i == limit {
				n += attempts
			}
		}
	}
	return n
}

// Waits says what keeps a due letter to the domain from being tried, in words for the operator, and until
// when at least, where that is known; "" where nothing does but other letters before it.
func (d *Drain) Waits(domain relay.Domain) (what string, until time.Time) {
	if down := d.LineDown(); !down.IsZero() && !d.inner(domain) {
		return "our own line seems to be down, so it is tried now and then only", time.Time{}
	}
	if d.lanes == nil || len(d.lanes.limits) == 0 {
		return "", time.Time{}
	}
	return d.lanes.waits(domain, d.planned, time.Now())
}
