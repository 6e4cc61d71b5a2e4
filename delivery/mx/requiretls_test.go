package mx

import (
	"crypto/tls"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"

	"relayd/relay"
)

// TestRequireTLS: a letter with REQUIRETLS goes to a host that is vouched for, proves its name and offers
// REQUIRETLS, whatever its header says; otherwise its writer is told, unless it may be better later.
func TestRequireTLS(t *testing.T) {
	const host, domain = "mx1.partner.example", "partner.example"
	good, other := certified(t, host, false), certified(t, "mx9.partner.example", false)
	self := record(3, 1, 1, leaf(t, selfSigned()))
	bad := relay.TLSA{Usage: 3, Selector: 1, Matching: 1, Data: make([]byte, 32)}
	signed := vouched{mx: true}
	keeps := []string{"STARTTLS", "REQUIRETLS"}
	for name, tt := range map[string]struct {
		host   *tls.Config
		ext    []string // nil: keeps
		v      vouched
		sts    relay.STSPolicy
		route  Route
		on     [2]string // a verb and its answer
		letter string
		want   string // delivered and what of the certificate, or the status
	}{
		"signed MX":               {host: good, v: signed, want: ", verified (REQUIRETLS)"},
		"MTA-STS":                 {host: good, sts: enforced(host), want: ", verified (mta-sts)"},
		"MTA-STS, testing":        {host: good, sts: tested(host), want: ", verified (mta-sts testing, REQUIRETLS)"},
		"DANE":                    {host: selfSigned(), v: vouched{mx: true, records: []relay.TLSA{self}}, want: ", verified (dane)"},
		"DANE, unusable":          {host: good, v: vouched{mx: true, records: []relay.TLSA{record(1, 1, 1, leaf(t, good))}}, want: ", verified (dane, no usable record, REQUIRETLS)"},
		"smarthost":               {host: good, route: Route{To: "*", Via: host, TLS: TLSMay}, want: ", verified (route, REQUIRETLS)"},
		"waived too":              {host: good, v: signed, letter: "TLS-Required: No\r\n", want: ", verified (REQUIRETLS)"},
		"waived in vain":          {host: selfSigned(), v: signed, letter: "TLS-Required: No\r\n", want: "5.7.10"},
		"nobody vouches":          {host: good, want: "5.7.10"},
		"nobody vouches, route":   {host: good, route: Route{To: domain, TLS: TLSVerify}, want: "5.7.10"},
		"MTA-STS, route":          {host: good, sts: enforced(host), route: Route{To: domain, TLS: TLSVerify}, want: ", verified (route)"},
		"MTA-STS, other host":     {host: good, v: signed, sts: enforced("mx9.partner.example"), want: "5.7.10"},
		"MTA-STS cannot be asked": {host: good, sts: relay.STSPolicy{Problem: relay.TLSSTSFetch}, want: "4.7.5"},
		"self-signed":             {host: selfSigned(), v: signed, want: "5.7.10"},
		"wrong name":              {host: other, v: signed, want: "5.7.10"},
		"DANE, mismatch":          {host: good, v: vouched{mx: true, records: []relay.TLSA{bad}}, want: "5.7.10"},
		"DANE, bogus":             {host: good, v: vouched{mx: true, err: errServfail}, want: "4.7.5"},
		"no STARTTLS":             {ext: []string{"REQUIRETLS"}, v: signed, want: "5.7.10"},
		"STARTTLS refused":        {host: good, v: signed, on: [2]string{"STARTTLS", "502 5.5.1 no"}, want: "5.7.10"},
		"STARTTLS not now":        {host: good, v: signed, on: [2]string{"STARTTLS", "454 4.7.0 later"}, want: "4.7.0"},
		"handshake breaks":        {host: &tls.Config{}, v: signed, want: "4.7.5"},
		"not promised":            {host: good, ext: []string{"STARTTLS"}, v: signed, want: "5.7.30"},
		"route without TLS":       {host: good, v: signed, route: Route{To: domain, TLS: TLSNone}, want: "5.7.10"},
		"host is busy":            {host: good, v: signed, on: [2]string{"CONNECT", "421 4.3.2 busy"}, want: "4.3.2"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, r := encrypting(tt.host)
				if r.ext = tt.ext; r.ext == nil {
					r.ext = keeps
				}
				if tt.on[0] != "" {
					r.on = map[string]func(string) string{tt.on[0]: always(tt.on[1])}
				}
				tt.v.network = n
				env := envelope("bob@partner.example")
				env.RequireTLS = true
				got := n.send(t, env, tt.letter+hello, trusting(""), func(c *Config) {
					c.Secure, c.Policies = &tt.v, says(tt.sts)
					if c.Routes = nil; tt.route.To != "" {
						c.Routes = []Route{tt.route}
					}
				})[0]
				if !strings.HasPrefix(tt.want, ",") {
					failed := map[bool]relay.Outcome{true: relay.Failed, false: relay.Deferred}[tt.want[0] == '5']
					if got.Outcome != failed || got.Reply.Status.String() != tt.want || len(r.mails) > 0 {
						t.Errorf("%+v, want %s; %d arrived", got, tt.want, len(r.mails))
					}
					return
				}
				if got.Outcome != relay.Delivered || !strings.HasSuffix(got.TLS, tt.want) || len(r.mails) != 1 ||
					r.mails[0].from != "<ann@office.example> REQUIRETLS" {
					t.Errorf("%+v, want %s; arrived: %+v", got, tt.want, r.mails)
				}
			})
		})
	}
}

// TestRequireTLSNext: the second mail host gets what the first cannot promise, and as long as the second is
// out of reach the letter waits.
func TestRequireTLSNext(t *testing.T) {
	second := certified(t, "mx2.partner.example", false)
	for _, up := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			n, first := encrypting(selfSigned())
			n.mx["partner.example"] = []relay.MX{{Host: "mx1.partner.example", Pref: 1}, {Host: "mx2.partner.example", Pref: 2}}
			n.addrs["mx2.partner.example"] = addrs("192.0.2.8")
			if up {
				n.hosts["192.0.2.8"] = &remote{ext: []string{"STARTTLS", "REQUIRETLS"}, tls: second}
			}
			env := envelope("bob@partner.example")
			env.RequireTLS = true
			got := n.send(t, env, hello, trusting(""), func(c *Config) { c.Secure, c.Routes = &vouched{network: n, mx: true}, nil })[0]
			if up && got.Outcome != relay.Delivered || !up && got.Outcome != relay.Deferred || len(first.mails) > 0 {
				t.Errorf("second is there: %v: %+v", up, got)
			}
		})
	}
}

// TestRequireTLSOverLMTP: a mail store on this machine may have such a letter, one elsewhere may not, whatever
// it says: LMTP has no TLS.
func TestRequireTLSOverLMTP(t *testing.T) {
	l := &letter{}
	l.env.RequireTLS = true
	for host, want := range map[target]int{
		{name: "/run/lmtp", socket: true, via: &Route{LMTP: true}}:                                 0,
		{name: "store", addr: netip.MustParseAddrPort("127.0.0.1:24"), via: &Route{LMTP: true}}:    0,
		{name: "store", addr: netip.MustParseAddrPort("192.0.2.4:24"), via: &Route{LMTP: true}}:    550,
		{name: "smarthost", addr: netip.MustParseAddrPort("127.0.0.1:25"), via: &Route{To: "*"}}:   550,
		{name: "mx1.partner.example", addr: netip.MustParseAddrPort("192.0.2.7:25"), signed: true}: 550,
	} {
		s := &session{target: host, ext: map[string]string{"REQUIRETLS": ""}}
		if r := s.lacks(l); r.Code != want {
			t.Errorf("%s: %s", host.name, r)
		}
	}
}
