package resolver

import (
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	defaultCacheSize = 4 << 20 // octets of answers in wire form
	entryOverhead    = 200     // octets: what an entry costs beside its records, about
	evictionSample   = 8
)

// cache keeps answers for as long as they hold, in bounded memory.
type cache struct {
	limit int

	mu      sync.Mutex
	size    int
	entries map[question]entry
}

type entry struct {
	ans   answer
	added time.Time
	size  int
}

func (e entry) holds(now time.Time) bool {
	age := now.Sub(e.added)
	// An entry from the future was made before the clock was set back.
	return age >= 0 && age < e.ans.ttl
}

func newCache(limit int) *cache {
	return &cache{limit: limit, entries: map[question]entry{}}
}

func (c *cache) get(q question, now time.Time) (answer, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[q]
	if !ok {
		return answer{}, false
	}
	if !e.holds(now) {
		c.remove(q)
		return answer{}, false
	}
	return e.ans, true
}

func (c *cache) put(q question, ans answer, now time.Time) {
	e := entry{ans: ans, added: now, size: entryOverhead + len(q.name)}
	for _, rr := range ans.rrs {
		e.size += dns.Len(rr)
	}
	// One answer must not push out everything else.
	if ans.ttl <= 0 || e.size > c.limit/8 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(q)
	for c.size+e.size > c.limit {
		c.evict()
	}
	c.entries[q] = e
	c.size += e.size
}

func (c *cache) remove(q question) {
	if e, ok := c.entries[q]; ok {
		c.size -= e.size
		delete(c.entries, q)
	}
}

// evict drops, of a few entries taken by chance (the order of a map), the one that ends first.
func (c *cache) evict() {
	var victim question
	var soonest time.Time
	seen := 0
	for q, e := range c.entries {
		if ends := e.added.Add(e.ans.ttl); seen == 0 || ends.Before(soonest) {
			victim, soonest = q, ends
		}
		if seen++; seen == evictionSample {
			break
		}
	}
	c.remove(victim)
}
