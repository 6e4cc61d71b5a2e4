package resolver

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"

	"relayd/relay"
)

// Bounds of what TLSA returns: a whole certificate fits, and a host needs few of them.
const (
	maxTLSA     = 32
	maxTLSAData = 16 << 10 // octets
)

// trusts says whether the AD bit of our servers is worth anything. All of them must be on loopback:
// if one were not, a bogus answer of the others would be mended by its unsigned one.
func (r *Resolver) trusts() bool {
	if r.trustAD {
		return true
	}
	list, _ := r.servers.get(time.Now())
	return !slices.ContainsFunc(list, func(s netip.AddrPort) bool { return !s.Addr().Unmap().IsLoopback() })
}

// TLSA implements relay.SecureResolver. The addresses are asked for first, because many servers of
// unsigned zones fail on TLSA, and their mail must not wait for that (RFC 7672 §2.2.2).
func (r *Resolver) TLSA(ctx context.Context, host relay.Domain, port uint16) ([]relay.TLSA, relay.Domain, error) {
	if host.IsLiteral() || !r.trusts() {
		return nil, "", nil
	}
	ans, err := r.find(ctx, string(host), dns.TypeA)
	if err != nil || !ans.secure {
		six, err6 := r.find(ctx, string(host), dns.TypeAAAA)
		switch {
		case err6 == nil && (six.secure || err != nil):
			ans, err = six, nil
		case err != nil:
			err = worse(err, err6)
		}
	}
	if err != nil {
		return nil, "", ignoreNone(err)
	}
	if !ans.secure {
		return r.aliasTLSA(ctx, host, port, owner(ans))
	}
	if end := owner(ans); end != "" && end != host {
		if records, err := r.tlsa(ctx, end, port); err != nil || len(records) > 0 {
			return records, end, err
		}
	}
	records, err := r.tlsa(ctx, host, port)
	return records, host, err
}

// aliasTLSA is TLSA for a host whose addresses nobody vouches for. Where it is an alias that DNSSEC vouches
// for, of a name in an unsigned zone, its own records count (RFC 7672 §2.2.2): it is they that prove who
// answers, whatever the address.
func (r *Resolver) aliasTLSA(ctx context.Context, host relay.Domain, port uint16, end relay.Domain) ([]relay.TLSA, relay.Domain, error) {
	if end == "" || end == host {
		return nil, "", nil
	}
	alias, err := r.find(ctx, string(host), dns.TypeCNAME)
	if err != nil || !alias.secure {
		return nil, "", ignoreNone(err)
	}
	records, err := r.tlsa(ctx, host, port)
	return records, host, err
}

func (r *Resolver) tlsa(ctx context.Context, host relay.Domain, port uint16) ([]relay.TLSA, error) {
	ans, err := r.find(ctx, fmt.Sprintf("_%d._tcp.%s", port, host), dns.TypeTLSA)
	if err != nil || !ans.secure {
		return nil, ignoreNone(err)
	}
	var records []relay.TLSA
	for _, rr := range ans.rrs {
		t := rr.(*dns.TLSA)
		// What cannot be read stays, as a record of no use: that there are records means something.
		data, err := hex.DecodeString(t.Certificate)
		if err != nil || len(data) > maxTLSAData {
			data = nil
		}
		if len(records) < maxTLSA {
			records = append(records, relay.TLSA{Usage: t.Usage, Selector: t.Selector, Matching: t.MatchingType, Data: data})
		}
	}
	return records, nil
}

// owner is the end of the aliases that led to ans.
func owner(ans answer) relay.Domain {
	if len(ans.rrs) == 0 {
		return ""
	}
	d, err := relay.ParseDomain(ans.rrs[0].Header().Name)
	if err != nil {
		return ""
	}
	return d
}

func ignoreNone(err error) error {
	if errors.Is(err, relay.ErrNoRecord) {
		return nil
	}
	return err
}
