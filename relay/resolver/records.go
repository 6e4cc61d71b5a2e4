package resolver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"relayd/relay"
)

// maxNames bounds the names that PTR returns: whoever controls the reverse zone decides how
// many there are, and each of them costs the caller another question.
const maxNames = 10

// MX implements relay.Resolver. Exchangers that are not names are left out; a lone "." is the
// null MX, returned as one MX with an empty Host (RFC 7505 §3).
func (r *Resolver) MX(ctx context.Context, d relay.Domain) ([]relay.MX, error) {
	list, _, _, err := r.SecureMX(ctx, d)
	return list, err
}

// SecureMX implements relay.SecureResolver.
func (r *Resolver) SecureMX(ctx context.Context, d relay.Domain) ([]relay.MX, relay.Domain, bool, error) {
	if d.IsLiteral() {
		return nil, d, false, fmt.Errorf("resolver: MX %s: an address has no exchangers: %w", d, relay.ErrNoRecord)
	}
	ans, err := r.find(ctx, string(d), dns.TypeMX)
	if err != nil {
		return nil, d, ans.secure, err
	}
	list, err := exchangers(d, ans.rrs)
	return list, cmp.Or(owner(ans), d), ans.secure, err
}

func exchangers(d relay.Domain, rrs []dns.RR) ([]relay.MX, error) {
	var list []relay.MX
	for _, rr := range rrs {
		mx := rr.(*dns.MX)
		if host, err := relay.ParseDomain(mx.Mx); err == nil && !host.IsLiteral() {
			list = append(list, relay.MX{Host: host, Pref: mx.Preference})
		}
	}
	switch {
	case len(list) == 0 && !slices.ContainsFunc(rrs, func(rr dns.RR) bool { return rr.(*dns.MX).Mx != "." }):
		return []relay.MX{{Pref: rrs[0].(*dns.MX).Preference}}, nil
	case len(list) == 0:
		// Not final: the domain wants mail, and its owner will mend the record.
		return nil, fmt.Errorf("resolver: MX %s: none of the exchangers is a host name", d)
	}
	slices.SortStableFunc(list, func(a, b relay.MX) int { return cmp.Compare(a.Pref, b.Pref) })
	return unique(list, func(mx relay.MX) relay.Domain { return mx.Host }), nil
}

// Addrs implements relay.Resolver: AAAA before A, each in the order answered. One of the two
// questions may fail as long as the other brings an address. An address literal is its own answer.
func (r *Resolver) Addrs(ctx context.Context, host relay.Domain) ([]netip.Addr, error) {
	if host.IsLiteral() {
		return []netip.Addr{host.Literal()}, nil
	}
	var four []netip.Addr
	var err4 error
	done := make(chan struct{})
	go func() {
		defer close(done)
		four, err4 = r.addresses(ctx, host, dns.TypeA)
	}()
	addrs, err6 := r.addresses(ctx, host, dns.TypeAAAA)
	<-done
	if addrs = append(addrs, four...); len(addrs) > 0 {
		return unique(addrs, func(a netip.Addr) netip.Addr { return a }), nil
	}
	return nil, worse(err4, err6)
}

// A returns the A records of name alone, for lists of the DNS, which have no others (RFC 5782 §2.1).
func (r *Resolver) A(ctx context.Context, name string) ([]netip.Addr, error) {
	return r.addresses(ctx, relay.Domain(name), dns.TypeA)
}

// addresses returns at least one address or an error.
func (r *Resolver) addresses(ctx context.Context, host relay.Domain, qtype uint16) ([]netip.Addr, error) {
	rrs, err := r.lookup(ctx, string(host), qtype)
	if err != nil {
		return nil, err
	}
	var addrs []netip.Addr
	for _, rr := range rrs {
		if addr, ok := address(rr); ok {
			addrs = append(addrs, addr)
		}
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("resolver: %s %s: the records hold no address", dns.TypeToString[qtype], host)
	}
	return addrs, nil
}

// TXT implements relay.Resolver: the octets of each record, its strings joined.
func (r *Resolver) TXT(ctx context.Context, name string) ([]string, error) {
	rrs, err := r.lookup(ctx, name, dns.TypeTXT)
	if err != nil {
		return nil, err
	}
	list := make([]string, 0, len(rrs))
	for _, rr := range rrs {
		list = append(list, unescape(strings.Join(rr.(*dns.TXT).Txt, "")))
	}
	return list, nil
}

// PTR implements relay.Resolver, with at most ten names. They are claims of whoever owns the
// address: the caller checks that they lead back to it.
func (r *Resolver) PTR(ctx context.Context, addr netip.Addr) ([]relay.Domain, error) {
	name, err := dns.ReverseAddr(addr.Unmap().WithZone("").String())
	if err != nil {
		return nil, fmt.Errorf("resolver: PTR %s: %w", addr, err)
	}
	rrs, err := r.lookup(ctx, name, dns.TypePTR)
	if err != nil {
		return nil, err
	}
	var names []relay.Domain
	for _, rr := range rrs {
		if d, err := relay.ParseDomain(rr.(*dns.PTR).Ptr); err == nil && !d.IsLiteral() && len(names) < maxNames {
			names = append(names, d)
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("resolver: PTR %s: none is a host name: %w", addr, relay.ErrNoRecord)
	}
	return names, nil
}

// SRV returns the places of a service, as answered (RFC 2782).
func (r *Resolver) SRV(ctx context.Context, name string) ([]relay.SRV, error) {
	rrs, err := r.lookup(ctx, name, dns.TypeSRV)
	if err != nil {
		return nil, err
	}
	var list []relay.SRV
	for _, rr := range rrs {
		srv := rr.(*dns.SRV)
		// What is no name is "." or no place to go to, which is the same.
		target, _ := relay.ParseDomain(srv.Target)
		list = append(list, relay.SRV{Priority: srv.Priority, Weight: srv.Weight, Port: srv.Port, Target: target})
	}
	return list, nil
}

// address takes the address of an A or AAAA record; an IPv4 address inside IPv6 becomes itself,
// so that nobody reaches 127.0.0.1 under another name.
func address(rr dns.RR) (netip.Addr, bool) {
	var ip []byte
	switch rr := rr.(type) {
	case *dns.A:
		ip = rr.A
	case *dns.AAAA:
		ip = rr.AAAA
	}
	addr, ok := netip.AddrFromSlice(ip)
	return addr.Unmap(), ok
}

// worse picks, of the errors of two questions that brought nothing, the one that is not final:
// if one of them could not be asked, we do not know that there is no address.
func worse(a, b error) error {
	if errors.Is(a, relay.ErrNoRecord) {
		return b
	}
	return a
}

// unique keeps the first of the elements that have the same key.
func unique[E any, K comparable](list []E, key func(E) K) []E {
	seen := make(map[K]bool, len(list))
	return slices.DeleteFunc(list, func(e E) bool {
		k := key(e)
		old := seen[k]
		seen[k] = true
		return old
	})
}

// unescape undoes the zone-file escapes (\" \\ \DDD, RFC 1035 §5.1) that miekg/dns leaves in TXT.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			out = append(out, s[i])
			continue
		}
		i++
		if n, ok := octet(s[i:]); ok {
			out = append(out, n)
			i += 2
			continue
		}
		out = append(out, s[i])
	}
	return string(out)
}

// octet reads the DDD of an escape.
func octet(s string) (byte, bool) {
	if len(s) < 3 {
		return 0, false
	}
	n := 0
	for _, c := range []byte(s[:3]) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + int(c-'0')
	}
	return byte(n), n < 256
}
