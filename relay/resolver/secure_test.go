package resolver_test

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"testing"

	"relayd/relay"
	"relayd/relay/relaytest"
	"relayd/relay/resolver"
)

const signedZone = `
	;signed signed.example
	signed.example.              MX   10 mx.signed.example.
	mx.signed.example.           A    192.0.2.1
	_25._tcp.mx.signed.example.  TLSA 3 1 1 00ff
	_25._tcp.mx.signed.example.  TLSA 2 0 1 ee
	six.signed.example.          AAAA 2001:db8::1
	_465._tcp.six.signed.example. TLSA 3 1 1 66
	alias.signed.example.        CNAME mx.signed.example.
	odd.signed.example.          CNAME bare.signed.example.
	bare.signed.example.         A    192.0.2.3
	_25._tcp.odd.signed.example. TLSA 3 1 1 0d
	away.signed.example.         CNAME mx.plain.example.
	_25._tcp.away.signed.example. TLSA 3 1 1 aa
	gone.signed.example.         CNAME mx.plain.example.
	chain.signed.example.        CNAME away.signed.example.
	_25._tcp.chain.signed.example. TLSA 3 1 1 cc
	blind.signed.example.        CNAME mx.plain.example.
	;fault blind.signed.example CNAME servfail
	weak.signed.example.         CNAME mx.plain.example.
	;fault _25._tcp.weak.signed.example TLSA servfail
	far.plain.example.           CNAME mx.signed.example.
	_25._tcp.far.plain.example.  TLSA 3 1 1 fa
	bogus.signed.example.        A    192.0.2.4
	;fault _25._tcp.bogus.signed.example TLSA servfail
	sick.signed.example.         A    192.0.2.5
	;fault sick.signed.example servfail
	plain.example.               MX   10 mx.plain.example.
	mx.plain.example.            A    192.0.2.2
	_25._tcp.mx.plain.example.   TLSA 3 1 1 bb
	;fault _25._tcp.mx.plain.example TLSA servfail
	`

func TestTLSA(t *testing.T) {
	t.Parallel()
	s := relaytest.ServeDNS(t, signedZone)
	r, err := resolver.New([]netip.AddrPort{s.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, tt := range []struct {
		host relay.Domain
		port uint16
		want string
	}{
		{"mx.signed.example", 25, "mx.signed.example 311:00ff 201:ee"},
		{"mx.signed.example", 587, "mx.signed.example"},
		{"six.signed.example", 465, "six.signed.example 311:66"},
		{"alias.signed.example", 25, "mx.signed.example 311:00ff 201:ee"},
		{"odd.signed.example", 25, "odd.signed.example 311:0d"},
		{"away.signed.example", 25, "away.signed.example 311:aa"}, // the alias is signed, its target is not
		{"gone.signed.example", 25, "gone.signed.example"},
		{"chain.signed.example", 25, "chain.signed.example 311:cc"},
		{"blind.signed.example", 25, "error"}, // whether the alias is signed cannot be asked
		{"weak.signed.example", 25, "error"},
		{"far.plain.example", 25, ""}, // an unsigned alias of a signed host
		{"bogus.signed.example", 25, "error"},
		{"sick.signed.example", 25, "error"},
		{"none.signed.example", 25, ""},
		{"mx.plain.example", 25, ""}, // its TLSA is never asked for: it would fail
		{"[192.0.2.1]", 25, ""},
	} {
		records, name, err := r.TLSA(t.Context(), tt.host, tt.port)
		got := string(name)
		for _, rec := range records {
			got += fmt.Sprintf(" %d%d%d:%s", rec.Usage, rec.Selector, rec.Matching, hex.EncodeToString(rec.Data))
		}
		if err != nil {
			got = "error"
		}
		if got != tt.want {
			t.Errorf("%s: %q, %v; want %q", tt.host, got, err, tt.want)
		}
	}
	for d, want := range map[relay.Domain]bool{"signed.example": true, "mx.signed.example": true, "plain.example": false, "mx.plain.example": false, "[192.0.2.1]": false} {
		if _, _, secure, err := r.SecureMX(t.Context(), d); secure != want {
			t.Errorf("MX of %s: %v, %v", d, secure, err)
		}
	}
}

// TestSecureMXAlias: where a domain is an alias, the name at its end is known, and all of the way has to be signed.
func TestSecureMXAlias(t *testing.T) {
	t.Parallel()
	s := relaytest.ServeDNS(t, signedZone+`
	nick.signed.example.  CNAME signed.example.
	nick.plain.example.   CNAME signed.example.
	`)
	r, err := resolver.New([]netip.AddrPort{s.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for d, want := range map[relay.Domain]string{
		"signed.example": "signed.example true", "nick.signed.example": "signed.example true", "nick.plain.example": "signed.example false",
		"mx.signed.example": "mx.signed.example true",
	} {
		_, name, secure, _ := r.SecureMX(t.Context(), d)
		if got := fmt.Sprint(name, " ", secure); got != want {
			t.Errorf("%s: %s, want %s", d, got, want)
		}
	}
}

// TestTrustAD: the word of a server is believed on loopback, of all of them or none; elsewhere only
// when we were told to.
func TestTrustAD(t *testing.T) {
	t.Parallel()
	s := relaytest.ServeDNS(t, signedZone)
	away := netip.MustParseAddrPort("192.0.2.53:53")
	for _, tt := range []struct {
		servers []netip.AddrPort
		trust   bool
		want    bool
	}{
		{[]netip.AddrPort{s.Addr()}, false, true},
		{[]netip.AddrPort{s.Addr(), away}, false, false},
		{[]netip.AddrPort{s.Addr(), away}, true, true},
	} {
		r, err := resolver.New(tt.servers, resolver.TrustAD(tt.trust))
		if err != nil {
			t.Fatal(err)
		}
		records, _, err := r.TLSA(t.Context(), "mx.signed.example", 25)
		_, _, secure, mxErr := r.SecureMX(t.Context(), "signed.example")
		if secure != tt.want || (len(records) == 2) != tt.want || err != nil || mxErr != nil {
			t.Errorf("%v, %v: MX %v %v, TLSA %v %v", tt.servers, tt.trust, secure, mxErr, records, err)
		}
		r.Close()
	}
}
