package gate

import (
	"net/netip"
	"sync"
	"time"
)

// rates counts what networks do within a span of time, in bounded memory: for a new one the network
// goes whose span began first of a few taken by chance.
type rates struct {
	span time.Duration
	most int // networks

	mu   sync.Mutex
	seen map[netip.Prefix]*span
}

// span counts from its beginning.
type span struct {
	began time.Time
	count int
}

// maxNetworks bounds each count; an entry takes about 100 octets.
const maxNetworks = 20_000

func newRates(d time.Duration) *rates {
	return &rates{span: d, most: maxNetworks, seen: map[netip.Prefix]*span{}}
}

// take counts one more of a network; false: there were limit already.
func (r *rates) take(n netip.Prefix, limit int, now time.Time) bool {
	if limit <= 0 {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.seen[n]
	if s == nil {
		if len(r.seen) >= r.most {
			r.forget()
		}
		s = &span{began: now}
		r.seen[n] = s
	}
	// A span from the future was begun before the clock was set back.
	if age := now.Sub(s.began); age >= r.span || age < 0 {
		*s = span{began: now}
	}
	if s.count >= limit {
		return false
	}
	s.count++
	return true
}

// sample is how many entries, by the order of a map, are looked at for one to forget.
const sample = 16

func (r *rates) forget() {
	var victim netip.Prefix
	var first time.Time
	n := 0
	for p, s := range r.seen {
		if n == 0 || s.began.Before(first) {
			victim, first = p, s.began
		}
		if n++; n == sample {
			break
		}
	}
	delete(r.seen, victim)
}
