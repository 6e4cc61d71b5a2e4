package smtpd

import (
	"net/netip"
	"sync"
)

// Gate counts connections, in all and by address. Servers that share one (SMTP and submission)
// share its limits.
type Gate struct {
	mu    sync.Mutex
	total int
	from  map[netip.Prefix]int
}

// NewGate makes a Gate that nobody has passed.
func NewGate() *Gate { return &Gate{from: map[netip.Prefix]int{}} }

// Count is how many connections are open now.
func (g *Gate) Count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.total
}

// enter lets one more connection in. Where it does not, it says why.
func (g *Gate) enter(addr netip.Addr, l *Limits) (refusal string) {
	p := neighbourhood(addr)
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.total >= l.Connections:
		return busyAll
	case p.IsValid() && g.from[p] >= l.ConnectionsPerAddress:
		return busyAddress
	}
	g.total++
	if p.IsValid() {
		g.from[p]++
	}
	return ""
}

func (g *Gate) leave(addr netip.Addr) {
	p := neighbourhood(addr)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.total--
	if !p.IsValid() {
		return
	}
	if g.from[p]--; g.from[p] == 0 {
		delete(g.from, p)
	}
}

// neighbourhood is what counts as one address: whoever has one IPv6 address has its whole /64.
func neighbourhood(addr netip.Addr) netip.Prefix {
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	p, err := addr.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}
