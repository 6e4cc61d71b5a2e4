package policy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"

	"blitiri.com.ar/go/spf"

	"relayd/relay"
)

// checkSPF asks whether client may send as local@domain (RFC 7208). The library keeps the limits
// of §4.6.4: ten questions, two of them in vain.
func checkSPF(ctx context.Context, dns relay.Resolver, client netip.Addr, helo, local string, domain relay.Domain) Result {
	if strings.ContainsAny(local, "@\" \t") || local == "" {
		// The library divides at the first "@"; only macros look at the local part.
		local = relay.Postmaster.Local
	}
	r, _ := spf.CheckHostWithSender(client.AsSlice(), helo, local+"@"+string(domain),
		spf.WithContext(ctx), spf.WithResolver(spfResolver{dns}))
	switch r {
	case spf.Pass, spf.Fail, spf.SoftFail, spf.Neutral, spf.None, spf.TempError, spf.PermError:
		return Result(r)
	}
	return PermError
}

// SPF asks whether client, which greets as helo, may send for domain: what a receiver of our mail
// will ask. relay/records judges the records of our own domains by it.
func SPF(ctx context.Context, dns relay.Resolver, client netip.Addr, helo, domain relay.Domain) Result {
	return checkSPF(ctx, dns, client, string(helo), relay.Postmaster.Local, domain)
}

// spfResolver is a relay.Resolver in the form the library knows. It tells "there is none" from
// "could not ask" by a bare *net.DNSError and by nothing else.
type spfResolver struct{ dns relay.Resolver }

func spfError(name string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, relay.ErrNoRecord):
		return &net.DNSError{Err: "no such record", Name: name, IsNotFound: true}
	}
	return &net.DNSError{Err: "could not ask", Name: name, IsTemporary: true}
}

func spfName(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

func (r spfResolver) LookupTXT(ctx context.Context, name string) ([]string, error) {
	found, err := r.dns.TXT(ctx, spfName(name))
	return strictSPF(slices.Clone(found)), spfError(name, err)
}

func (r spfResolver) LookupMX(ctx context.Context, name string) ([]*net.MX, error) {
	found, err := r.dns.MX(ctx, relay.Domain(spfName(name)))
	var all []*net.MX
	for _, mx := range found {
		if mx.Host != "" {
			all = append(all, &net.MX{Host: string(mx.Host), Pref: mx.Pref})
		}
	}
	return all, spfError(name, err)
}

func (r spfResolver) LookupIPAddr(ctx context.Context, host string) ([]net.IPAddr, error) {
	found, err := r.dns.Addrs(ctx, relay.Domain(spfName(host)))
	var all []net.IPAddr
	for _, a := range found {
		all = append(all, net.IPAddr{IP: a.AsSlice()})
	}
	return all, spfError(host, err)
}

func (r spfResolver) LookupAddr(ctx context.Context, addr string) ([]string, error) {
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return nil, spfError(addr, relay.ErrNoRecord)
	}
	found, err := r.dns.PTR(ctx, a.Unmap())
	var all []string
	for _, d := range found {
		all = append(all, string(d))
	}
	return all, spfError(addr, err)
}
