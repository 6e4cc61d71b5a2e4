package relaytest

import (
	"net"
	"testing"
	"time"

	"github.com/miekg/dns"
)

const office = `
	$ORIGIN office.example.
	@      300 SOA ns hostmaster 1 3600 600 86400 60
	@      IN  MX  10 mail
	mail       A   192.0.2.25
	           AAAA 2001:db8::25
	www        CNAME mail
	deep.empty TXT "below an empty non-terminal"
	;fault broken.office.example servfail
	;fault mail.office.example AAAA truncate
	`

func ask(t *testing.T, s *DNSServer, network, name string, qtype uint16) *dns.Msg {
	t.Helper()
	client := dns.Client{Net: network, Timeout: 5 * time.Second}
	m, _, err := client.Exchange(new(dns.Msg).SetQuestion(name, qtype), s.Addr().String())
	if err != nil {
		t.Fatalf("%s %s: %v", name, dns.TypeToString[qtype], err)
	}
	return m
}

func TestDNSAnswers(t *testing.T) {
	t.Parallel()
	s := ServeDNS(t, office)
	for _, c := range []struct {
		name    string
		qtype   uint16
		rcode   int
		answers int
		tc      bool
	}{
		{"office.example.", dns.TypeMX, dns.RcodeSuccess, 1, false},
		{"OFFICE.example.", dns.TypeMX, dns.RcodeSuccess, 1, false},
		{"mail.office.example.", dns.TypeA, dns.RcodeSuccess, 1, false},
		{"mail.office.example.", dns.TypeMX, dns.RcodeSuccess, 0, false},
		{"www.office.example.", dns.TypeA, dns.RcodeSuccess, 2, false},
		{"empty.office.example.", dns.TypeA, dns.RcodeSuccess, 0, false},
		{"nobody.office.example.", dns.TypeA, dns.RcodeNameError, 0, false},
		{"elsewhere.example.", dns.TypeA, dns.RcodeNameError, 0, false},
		{"broken.office.example.", dns.TypeA, dns.RcodeServerFailure, 0, false},
		{"mail.office.example.", dns.TypeAAAA, dns.RcodeSuccess, 0, true},
	} {
		m := ask(t, s, "udp", c.name, c.qtype)
		if m.Rcode != c.rcode || len(m.Answer) != c.answers || m.Truncated != c.tc {
			t.Errorf("%s %s: got\n%v", c.name, dns.TypeToString[c.qtype], m)
		}
		if negative := c.answers == 0 && c.rcode != dns.RcodeServerFailure && !c.tc; negative != (len(m.Ns) == 1) {
			t.Errorf("%s: authority section %v", c.name, m.Ns)
		}
	}
	if m := ask(t, s, "tcp", "mail.office.example.", dns.TypeAAAA); len(m.Answer) != 1 || m.Truncated {
		t.Errorf("over TCP: got\n%v", m)
	}
}

func TestDNSChangesAtRunTime(t *testing.T) {
	t.Parallel()
	s := ServeDNS(t, office)
	s.Fail("office.example", FaultRefused)
	if m := ask(t, s, "udp", "office.example.", dns.TypeMX); m.Rcode != dns.RcodeRefused {
		t.Errorf("got\n%v", m)
	}
	s.Fail("office.example", FaultNone)
	if m := ask(t, s, "udp", "office.example.", dns.TypeMX); len(m.Answer) != 1 {
		t.Errorf("got\n%v", m)
	}
	if err := s.SetZone("other.example MX 5 mx.other.example"); err != nil {
		t.Fatal(err)
	}
	if m := ask(t, s, "udp", "office.example.", dns.TypeMX); m.Rcode != dns.RcodeNameError {
		t.Errorf("the old zone lives on:\n%v", m)
	}
	if m := ask(t, s, "udp", "other.example.", dns.TypeMX); m.Answer[0].(*dns.MX).Mx != "mx.other.example." {
		t.Errorf("got\n%v", m)
	}
	if got := s.Asked("office.example MX"); got != 3 {
		t.Errorf("asked %d times, want 3", got)
	}
}

func TestDNSDrops(t *testing.T) {
	t.Parallel()
	s := ServeDNS(t, office)
	s.Fail("office.example", FaultDrop)
	client := dns.Client{Timeout: 50 * time.Millisecond}
	_, _, err := client.Exchange(new(dns.Msg).SetQuestion("office.example.", dns.TypeMX), s.Addr().String())
	if e, ok := err.(net.Error); !ok || !e.Timeout() {
		t.Errorf("got %v, want a time-out", err)
	}
}

func TestZoneComplaints(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"office.example MX ten mail", ";fault x", ";fault x explode"} {
		if s, err := NewDNS("127.0.0.1:0", text); err == nil {
			s.Close()
			t.Errorf("%q was taken", text)
		}
	}
}
