package smtpd

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"relayd/relay"
)

// peer is what we know of the client.
type peer struct {
	client, server netip.AddrPort
	helo           string
	named          chan struct{} // closed when name is known or is not to be had; nil: not asked
	name           string
	cancel         context.CancelFunc
	dns            *patience
}

// patience is what the sessions of a server have left for a DNS that keeps them waiting. While it
// is used up nobody waits; look-ups go on, and one that is quick restores it.
type patience struct{ silent atomic.Int32 }

// maxSilent waits in vain use it up.
const maxSilent = 3

func (p *patience) left() bool { return p.silent.Load() < maxSilent }

const (
	// lookupTimeout ends the look-up of a client's name.
	lookupTimeout = 10 * time.Second
	// nameWait is how long the first MAIL waits for it. The greeting never does.
	nameWait = 500 * time.Millisecond
	// maxNames is how many PTR records are confirmed.
	maxNames = 3
)

// askName looks the client's name up in the background.
func (p *peer) askName(ctx context.Context, r relay.Resolver, dns *patience, done func()) {
	ctx, p.cancel = context.WithTimeout(ctx, lookupTimeout)
	named := make(chan struct{})
	p.named, p.dns = named, dns
	go func() {
		defer done()
		defer close(named)
		begin := time.Now()
		p.name = confirmedName(ctx, r, p.client.Addr())
		if time.Since(begin) < nameWait && ctx.Err() == nil {
			dns.silent.Store(0)
		}
	}()
}

// forget ends a look-up that is still under way.
func (p *peer) forget() {
	if p.cancel != nil {
		p.cancel()
	}
}

// confirmedName is the first PTR name that leads back to the address (RFC 8601 §2.7.3, "iprev").
// Anybody can write any name into a PTR record; the way back proves it.
func confirmedName(ctx context.Context, r relay.Resolver, addr netip.Addr) string {
	names, err := r.PTR(ctx, addr)
	if err != nil {
		return ""
	}
	for _, name := range names[:min(len(names), maxNames)] {
		addrs, err := r.Addrs(ctx, name)
		if err == nil && slices.ContainsFunc(addrs, func(a netip.Addr) bool { return a.Unmap() == addr }) {
			return string(name)
		}
	}
	return ""
}

// confirmed waits a moment for the look-up, once.
func (p *peer) confirmed() string {
	if p.named == nil {
		return ""
	}
	if !p.dns.left() {
		select {
		case <-p.named:
			return p.name
		default:
			return ""
		}
	}
	t := time.NewTimer(nameWait)
	defer t.Stop()
	select {
	case <-p.named:
		return p.name
	case <-t.C:
		// Whoever runs a name server that does not answer shall not be asked for it at every letter.
		p.named = nil
		p.dns.silent.Add(1)
		return ""
	}
}

// origin is where a letter of this session comes from, as it will be told in Received.
func (g *guard) origin(utf8 bool) relay.Origin {
	return relay.Origin{
		Client: g.peer.client, Server: g.peer.server, Name: g.peer.confirmed(), Helo: g.peer.helo,
		Proto: g.proto(utf8), TLS: describeTLS(g.secure), User: g.user, Service: g.srv.service, Trusted: g.trusted(),
	}
}

// proto is the "with" keyword of Received (RFC 3848, RFC 6531 §4.3).
func (g *guard) proto(utf8 bool) string {
	if g.hello != verbEHLO {
		return "SMTP"
	}
	proto := "ESMTP"
	if utf8 {
		proto = "UTF8SMTP"
	}
	if g.secure != nil {
		proto += "S"
	}
	if g.user != "" {
		proto += "A"
	}
	return proto
}

func (g *guard) trusted() bool {
	return g.set.trusted != nil && g.set.trusted(g.peer.client.Addr())
}

func describeTLS(s *tls.ConnectionState) string {
	if s == nil {
		return ""
	}
	return strings.ReplaceAll(tls.VersionName(s.Version), " ", "") + " " + tls.CipherSuiteName(s.CipherSuite)
}

// printable makes a client's name for itself safe for a header and for the log: what no host
// name or address literal has becomes a question mark.
func printable(helo string) string {
	helo = helo[:min(len(helo), relay.MaxDomain)]
	return strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune(".-_:[]", c) {
			return c
		}
		return '?'
	}, helo)
}

// addrPort is the zero AddrPort for what is not TCP.
func addrPort(a net.Addr) netip.AddrPort {
	tcp, ok := a.(interface{ AddrPort() netip.AddrPort })
	if !ok {
		return netip.AddrPort{}
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
