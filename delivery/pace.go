package delivery

import (
	"sync"
	"time"

	"relayd/relay"
)

// How many attempts talk to one domain at a time: few until it has shown that it takes more, one
// while it is in trouble.
const (
	paceStart = 5

	// wakeEvery bounds how often one domain's waiting letters are called at a success.
	wakeEvery = time.Minute
	// Domains that nothing was heard of for so long, or the quietest of too many, are forgotten.
	paceMemory = 12 * time.Hour
	maxPaces   = 10_000
)

// paces is what the drain knows of its destinations. Domains that are in trouble may use a quarter of
// all attempts together, those and the ones not yet known to work seven eighths: however many hosts
// stall, letters to hosts that work find room.
type paces struct {
	total, most int // of Options

	mu sync.Mutex
	of map[relay.Domain]*pace
}

// pace is one destination.
type pace struct {
	limit   int
	proven  bool // the last to be heard of it was a success
	trouble bool // or a failure to talk to it
	woken   time.Time
	heard   time.Time
}

func newPaces(total, most int) *paces {
	return &paces{total: total, most: most, of: map[relay.Domain]*pace{}}
}

// budget is one Take's view of who may have how much.
type budget struct {
	*paces
	planned           map[relay.Domain]int
	troubled, unknown int // attempts under way
}

func (p *paces) budget(planned map[relay.Domain]int) *budget {
	b := &budget{paces: p, planned: planned}
	p.mu.Lock()
	defer p.mu.Unlock()
	for domain, n := range planned {
		trouble, proven := p.state(domain)
		b.count(n, trouble, proven)
	}
	return b
}

func (p *paces) state(domain relay.Domain) (trouble, proven bool) {
	if it := p.of[domain]; it != nil {
		return it.trouble, it.proven
	}
	return false, false
}

func (b *budget) count(n int, trouble, proven bool) {
	switch {
	case trouble:
		b.troubled += n
	case !proven:
		b.unknown += n
	}
}

// skip is for Queue.Take.
func (b *budget) skip(domain relay.Domain) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	limit := min(paceStart, b.most)
	if it := b.of[domain]; it != nil {
		limit = it.limit
	}
	trouble, proven := b.state(domain)
	switch {
	case b.planned[domain] >= limit:
		return true
	case trouble && b.troubled >= max(b.total/4, 1):
		return true
	case !proven && b.troubled+b.unknown >= max(b.total*7/8, 1):
		return true
	}
	b.planned[domain]++
	b.count(1, trouble, proven)
	return false
}

// heard takes in what an attempt came to, and says whether the domain's letters that wait for a
// retry should be called: it works again.
func (p *paces) heard(domain relay.Domain, results []relay.Result, retry bool) (wake bool) {
	ok, bad := judge(results)
	if !ok && !bad {
		return false
	}
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	it := p.of[domain]
	if it == nil {
		p.forget(now)
		it = &pace{limit: min(paceStart, p.most)}
		p.of[domain] = it
	}
	it.heard = now
	if bad {
		it.limit, it.trouble, it.proven = max(it.limit/2, 1), true, false
		return false
	}
	wake = (it.trouble || retry) && now.Sub(it.woken) >= wakeEvery
	if wake {
		it.woken = now
	}
	it.limit, it.trouble, it.proven = min(it.limit+1, p.most), false, true
	return wake
}

// forget makes room. Callers hold mu.
func (p *paces) forget(now time.Time) {
	if len(p.of) < maxPaces {
		return
	}
	for _, age := range []time.Duration{paceMemory, time.Hour, 0} {
		for domain, it := range p.of {
			if now.Sub(it.heard) > age {
				delete(p.of, domain)
			}
		}
		if len(p.of) < maxPaces {
			return
		}
	}
}

// judge says whether an attempt shows that the destination works, or that it is in trouble. A remote
// that greylists or refuses shows neither.
func judge(results []relay.Result) (ok, bad bool) {
	for _, res := range results {
		switch {
		case res.Outcome == relay.Delivered:
			return true, false
		case res.Outcome != relay.Deferred:
		case isTrouble(res):
			bad = true
		}
	}
	return false, bad
}

// isTrouble: the remote could not be talked to (RFC 3463 X.4.X, in our own words), or wants to be
// left alone.
func isTrouble(res relay.Result) bool {
	return res.Host == "" && res.Reply.Status[1] == 4 || res.Reply.Code == 421
}
