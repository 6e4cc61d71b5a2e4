package resolver_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"relayd/relay"
	"relayd/relay/relaytest"
	"relayd/relay/resolver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const zone = `
	$ORIGIN office.example.
	@      300 SOA ns hostmaster 1 3600 600 86400 60
	@      300 MX  20 backup
	@      300 MX  10 mail
	@      300 MX  10 mail
	@          TXT "v=spf1 " "mx -all"
	mail       A    192.0.2.25
	mail       AAAA 2001:db8::25
	mapped     AAAA ::ffff:127.0.0.1
	v4only     A    192.0.2.4
	null       MX   0 .
	odd        MX   0 .
	odd        MX   5 mail
	rubbish    MX   5 b\032ad.example.
	alias      CNAME mail
	loop       CNAME pool
	pool       CNAME loop
	wild       TXT  "quote \" back\\slash \200 end"
	25.2.0.192.in-addr.arpa. PTR mail.office.example.
	4.3.2.1.in-addr.arpa.    PTR b\032ad.example.
	$ORIGIN ip6.arpa.
	5.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2 PTR mail.office.example.
	;fault broken.office.example servfail
	;fault refused.office.example refused
	;fault half.office.example AAAA servfail
	;fault mail.office.example A truncate
	`

func start(t *testing.T, opts ...resolver.Option) (*resolver.Resolver, *relaytest.DNSServer) {
	t.Helper()
	s := relaytest.ServeDNS(t, zone+"\n\thalf.office.example. A 192.0.2.5\n")
	r, err := resolver.New([]netip.AddrPort{s.Addr()}, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r, s
}

// check compares got and err with want: final errors, temporary ones, or a value.
func check(t *testing.T, what string, got, want any, err error, kind string) {
	t.Helper()
	final := errors.Is(err, relay.ErrNoRecord)
	switch {
	case kind == "final" && !final:
		t.Errorf("%s: got %v, %v; want relay.ErrNoRecord", what, got, err)
	case kind == "temporary" && (err == nil || final):
		t.Errorf("%s: got %v, %v; want a temporary error", what, got, err)
	case kind == "" && err != nil:
		t.Errorf("%s: %v", what, err)
	case kind == "":
		if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); d != "" {
			t.Errorf("%s: -want +got\n%s", what, d)
		}
	}
}

func TestMX(t *testing.T) {
	t.Parallel()
	r, _ := start(t)
	for _, c := range []struct {
		domain relay.Domain
		want   []relay.MX
		kind   string
	}{
		{"office.example", []relay.MX{{Host: "mail.office.example", Pref: 10}, {Host: "backup.office.example", Pref: 20}}, ""},
		{"null.office.example", []relay.MX{{}}, ""},
		{"odd.office.example", []relay.MX{{Host: "mail.office.example", Pref: 5}}, ""},
		{"rubbish.office.example", nil, "temporary"},
		{"mail.office.example", nil, "final"},
		{"nobody.office.example", nil, "final"},
		{"broken.office.example", nil, "temporary"},
		{"refused.office.example", nil, "temporary"},
		{"loop.office.example", nil, "temporary"},
		{"[192.0.2.1]", nil, "final"},
	} {
		got, err := r.MX(t.Context(), c.domain)
		check(t, string(c.domain), got, c.want, err, c.kind)
	}
}

func TestAddrs(t *testing.T) {
	t.Parallel()
	r, s := start(t)
	both := []netip.Addr{netip.MustParseAddr("2001:db8::25"), netip.MustParseAddr("192.0.2.25")}
	for _, c := range []struct {
		host relay.Domain
		want []netip.Addr
		kind string
	}{
		{"mail.office.example", both, ""}, // its A comes over TCP
		{"alias.office.example", both, ""},
		{"v4only.office.example", []netip.Addr{netip.MustParseAddr("192.0.2.4")}, ""},
		{"mapped.office.example", []netip.Addr{netip.MustParseAddr("127.0.0.1")}, ""},
		{"half.office.example", []netip.Addr{netip.MustParseAddr("192.0.2.5")}, ""},
		{"[IPv6:2001:db8::1]", []netip.Addr{netip.MustParseAddr("2001:db8::1")}, ""},
		{"office.example", nil, "final"},
		{"nobody.office.example", nil, "final"},
		{"broken.office.example", nil, "temporary"},
		{"a..b", nil, "final"},
		{relay.Domain(strings.Repeat("a", 64) + ".example"), nil, "final"},
	} {
		got, err := r.Addrs(t.Context(), c.host)
		check(t, string(c.host), got, c.want, err, c.kind)
	}
	s.Fail("v4only.office.example AAAA", relaytest.FaultNone)
	s.Fail("half.office.example A", relaytest.FaultNXDomain)
	// No A, and the AAAA could not be asked: not final.
	fresh, err := resolver.New([]netip.AddrPort{s.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	got, err := fresh.Addrs(t.Context(), "half.office.example")
	check(t, "half", got, nil, err, "temporary")
}

func TestTXT(t *testing.T) {
	t.Parallel()
	r, _ := start(t)
	got, err := r.TXT(t.Context(), "office.example")
	check(t, "spf", got, []string{"v=spf1 mx -all"}, err, "")
	got, err = r.TXT(t.Context(), "WILD.office.example.")
	check(t, "escapes", got, []string{"quote \" back\\slash \xc8 end"}, err, "")
	got, err = r.TXT(t.Context(), "")
	check(t, "empty name", got, nil, err, "final")
}

func TestPTR(t *testing.T) {
	t.Parallel()
	r, _ := start(t)
	for _, c := range []struct {
		addr string
		kind string
	}{
		{"192.0.2.25", ""}, {"::ffff:192.0.2.25", ""}, {"2001:db8::25", ""}, {"1.2.3.4", "final"}, {"192.0.2.99", "final"},
	} {
		got, err := r.PTR(t.Context(), netip.MustParseAddr(c.addr))
		check(t, c.addr, got, []relay.Domain{"mail.office.example"}, err, c.kind)
	}
}

func TestNegativeAnswersAreKept(t *testing.T) {
	t.Parallel()
	r, s := start(t)
	for range 3 {
		if _, err := r.MX(t.Context(), "nobody.office.example"); !errors.Is(err, relay.ErrNoRecord) {
			t.Fatal(err)
		}
		if _, err := r.MX(t.Context(), "office.example"); err != nil {
			t.Fatal(err)
		}
		r.MX(t.Context(), "broken.office.example")
	}
	if got := s.Asked("nobody.office.example MX"); got != 1 {
		t.Errorf("asked %d times for what does not exist", got)
	}
	if got := s.Asked("office.example MX"); got != 1 {
		t.Errorf("asked %d times for what exists", got)
	}
	if got := s.Asked("broken.office.example MX"); got != 3 {
		t.Errorf("asked %d times for a SERVFAIL, want it never kept and never repeated at once", got)
	}
}

func TestRotatesToTheServerThatAnswers(t *testing.T) {
	t.Parallel()
	bad := relaytest.ServeDNS(t, ";fault office.example refused\n;fault mail.office.example servfail\n")
	good := relaytest.ServeDNS(t, zone)
	r, err := resolver.New([]netip.AddrPort{bad.Addr(), good.Addr()}, resolver.CacheSize(0))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for range 3 {
		if _, err := r.MX(t.Context(), "office.example"); err != nil {
			t.Fatal(err)
		}
	}
	if got := bad.Asked("office.example MX"); got != 1 {
		t.Errorf("the server that failed was asked %d times, want 1", got)
	}
}

func TestSilenceIsTemporary(t *testing.T) {
	t.Parallel()
	r, s := start(t, resolver.Timeout(30*time.Millisecond), resolver.Rounds(2))
	s.Fail("office.example", relaytest.FaultDrop)
	got, err := r.MX(t.Context(), "office.example")
	check(t, "silence", got, nil, err, "temporary")
	if n := s.Asked("office.example MX"); n != 2 {
		t.Errorf("asked %d times, want 2", n)
	}
}

func TestCallerMayLeave(t *testing.T) {
	t.Parallel()
	r, s := start(t)
	s.Fail("office.example", relaytest.FaultDrop)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := r.MX(ctx, "office.example"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	r.Close() // must break off the question at once; goleak sees to the rest
	if _, err := r.MX(t.Context(), "mail.office.example"); err == nil || errors.Is(err, relay.ErrNoRecord) {
		t.Errorf("after Close: %v", err)
	}
}

// rawServer answers each UDP packet with what reply makes of it.
func rawServer(t *testing.T, reply func(query []byte) [][]byte) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			for _, p := range reply(buf[:n]) {
				conn.WriteTo(p, from)
			}
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
	return netip.MustParseAddrPort(conn.LocalAddr().String())
}

func pack(t *testing.T, m *dns.Msg) []byte {
	b, err := m.Pack()
	if err != nil {
		t.Error(err)
	}
	return b
}

// What a server, or somebody who pretends to be one, can send besides an answer.
func TestMisbehavingServers(t *testing.T) {
	t.Parallel()
	answer := func(q *dns.Msg, name, host string) *dns.Msg {
		m := new(dns.Msg).SetReply(q)
		m.Answer = []dns.RR{&dns.MX{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeMX, Class: dns.ClassINET, Ttl: 60}, Preference: 1, Mx: host}}
		return m
	}
	for name, c := range map[string]struct {
		reply func(q *dns.Msg) [][]byte
		kind  string
	}{
		"forged id and question before the answer": {func(q *dns.Msg) [][]byte {
			id := answer(q, "office.example.", "evil.example.")
			id.Id++
			other := answer(q, "other.example.", "evil.example.")
			other.Question = []dns.Question{{Name: "other.example.", Qtype: dns.TypeMX, Qclass: dns.ClassINET}}
			echo := q.Copy()
			return [][]byte{{1}, pack(t, id), pack(t, other), pack(t, echo), pack(t, answer(q, "office.example.", "mail.office.example."))}
		}, ""},
		"case of the name changed": {func(q *dns.Msg) [][]byte {
			return [][]byte{pack(t, answer(q, "OFFICE.example.", "mail.office.example."))}
		}, ""},
		"records of another name": {func(q *dns.Msg) [][]byte {
			return [][]byte{pack(t, answer(q, "victim.example.", "evil.example."))}
		}, "final"},
		"malformed": {func(q *dns.Msg) [][]byte {
			p := pack(t, answer(q, "office.example.", "mail.office.example."))
			return [][]byte{p[:len(p)-3]}
		}, "temporary"},
		"header alone": {func(q *dns.Msg) [][]byte {
			m := new(dns.Msg).SetReply(q)
			m.Question = nil
			return [][]byte{pack(t, m)}
		}, "temporary"},
		"referral": {func(q *dns.Msg) [][]byte {
			m := new(dns.Msg).SetReply(q)
			m.Ns = []dns.RR{&dns.NS{Hdr: dns.RR_Header{Name: "example.", Rrtype: dns.TypeNS, Class: dns.ClassINET}, Ns: "ns.example."}}
			return [][]byte{pack(t, m)}
		}, "temporary"},
		"bad cookie": {func(q *dns.Msg) [][]byte {
			m := new(dns.Msg).SetRcode(q, dns.RcodeBadCookie)
			m.SetEdns0(1232, false)
			return [][]byte{pack(t, m)}
		}, "temporary"},
		"does not know EDNS0": {func(q *dns.Msg) [][]byte {
			if q.IsEdns0() != nil {
				m := new(dns.Msg).SetRcode(q, dns.RcodeFormatError)
				m.Question = nil
				return [][]byte{pack(t, m)}
			}
			return [][]byte{pack(t, answer(q, "office.example.", "mail.office.example."))}
		}, ""},
		"truncated, and nobody listens on TCP": {func(q *dns.Msg) [][]byte {
			m := new(dns.Msg).SetReply(q)
			m.Truncated = true
			return [][]byte{pack(t, m)}
		}, "temporary"},
		"alias in a circle, one step an answer": {func(q *dns.Msg) [][]byte {
			m := new(dns.Msg).SetReply(q)
			m.Answer = []dns.RR{&dns.CNAME{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeCNAME, Class: dns.ClassINET}, Target: "a." + q.Question[0].Name}}
			return [][]byte{pack(t, m)}
		}, "temporary"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := rawServer(t, func(raw []byte) [][]byte {
				q := new(dns.Msg)
				if err := q.Unpack(raw); err != nil {
					return nil
				}
				return c.reply(q)
			})
			r, err := resolver.New([]netip.AddrPort{server}, resolver.Timeout(200*time.Millisecond))
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			got, err := r.MX(t.Context(), "office.example")
			check(t, name, got, []relay.MX{{Host: "mail.office.example", Pref: 1}}, err, c.kind)
		})
	}
}

// Records without content are in nobody's interest but must not pass for an answer.
func TestEmptyRecords(t *testing.T) {
	t.Parallel()
	server := rawServer(t, func(raw []byte) [][]byte {
		q := new(dns.Msg)
		if err := q.Unpack(raw); err != nil {
			return nil
		}
		m := new(dns.Msg).SetReply(q)
		h := dns.RR_Header{Name: q.Question[0].Name, Rrtype: q.Question[0].Qtype, Class: dns.ClassINET}
		m.Answer = []dns.RR{&dns.ANY{Hdr: h}} // no RDATA
		return [][]byte{pack(t, m)}
	})
	r, err := resolver.New([]netip.AddrPort{server})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	addrs, err := r.Addrs(t.Context(), "office.example")
	check(t, "A", addrs, nil, err, "temporary")
	mx, err := r.MX(t.Context(), "office.example")
	check(t, "MX", mx, nil, err, "temporary")
	if txt, err := r.TXT(t.Context(), "office.example"); err != nil || len(txt) != 1 || txt[0] != "" {
		t.Errorf("TXT: %q, %v", txt, err)
	}
	ptr, err := r.PTR(t.Context(), netip.MustParseAddr("192.0.2.1"))
	check(t, "PTR", ptr, nil, err, "final")
}

func TestNewRefusesNonsense(t *testing.T) {
	t.Parallel()
	if _, err := resolver.New([]netip.AddrPort{{}}); err == nil {
		t.Error("took a server without an address")
	}
}
