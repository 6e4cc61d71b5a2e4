package resolver

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"github.com/miekg/dns"

	"relayd/relay"
)

// FuzzAnswer: whatever a name server answers, each question ends in records that are fit for use
// or in an error, never in both or neither. An answer that says SERVFAIL is never final.
func FuzzAnswer(f *testing.F) {
	for _, text := range []string{
		"q.example. 60 IN MX 10 a.example.", "q.example. 60 IN MX 0 .", "q.example. 60 IN CNAME q.example.", "q.example. 60 IN TXT \"a\\000\" \"b\"",
		"q.example. 0 IN AAAA ::ffff:127.0.0.1", "1.2.0.192.in-addr.arpa. 60 IN PTR a\\000b.example.",
	} {
		rr, err := dns.NewRR(text)
		if err != nil {
			f.Fatal(err)
		}
		m := new(dns.Msg)
		m.Answer = []dns.RR{rr}
		wire, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire, uint8(0))
		f.Add(wire, uint8(2))
	}
	f.Fuzz(func(t *testing.T, wire []byte, rcode uint8) {
		m := new(dns.Msg)
		if m.Unpack(wire) != nil {
			return
		}
		m.Truncated, m.Rcode = false, int(rcode%6)
		r, err := New([]netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		r.exchange = func(context.Context, netip.AddrPort, *dns.Msg, bool) (*dns.Msg, error) { return m.Copy(), nil }
		verdict := func(what string, n int, err error) {
			if (n > 0) == (err != nil) {
				t.Errorf("%s: %d records and %v, from %v", what, n, err, m)
			}
			if errors.Is(err, relay.ErrNoRecord) && m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
				t.Errorf("%s: final, but the server said %s", what, dns.RcodeToString[m.Rcode])
			}
		}
		mxs, err := r.MX(t.Context(), "q.example")
		verdict("MX", len(mxs), err)
		for i, mx := range mxs {
			if d, err := relay.ParseDomain(string(mx.Host)); mx.Host != "" && (err != nil || d != mx.Host) || mx.Host == "" && len(mxs) > 1 {
				t.Errorf("exchanger %q: %v", mx.Host, err)
			}
			if i > 0 && mxs[i-1].Pref > mx.Pref {
				t.Errorf("out of order: %v", mxs)
			}
		}
		addrs, err := r.Addrs(t.Context(), "q.example")
		verdict("addresses", len(addrs), err)
		for _, a := range addrs {
			if !a.IsValid() || a.Is4In6() || a.Zone() != "" {
				t.Errorf("address %v", a)
			}
		}
		texts, err := r.TXT(t.Context(), "q.example")
		verdict("TXT", len(texts), err)
		names, err := r.PTR(t.Context(), netip.MustParseAddr("192.0.2.1"))
		verdict("PTR", len(names), err)
		for _, n := range names {
			if d, err := relay.ParseDomain(string(n)); err != nil || d != n || len(names) > maxNames {
				t.Errorf("name %q of %d: %v", n, len(names), err)
			}
		}
	})
}
