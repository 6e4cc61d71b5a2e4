package mx

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"relayd/relay"
)

// said writes a session down for comparison.
func said(s relay.TLSSession) string {
	f := s.Failure
	text := fmt.Sprintf("%s %s %s", s.Domain, s.Policy.Type, s.Policy.Domain)
	if f.Result != "" {
		text += fmt.Sprintf(": %s %s %s", f.Result, f.Host, f.Remote)
	}
	if f.Reason != "" {
		text += " " + f.Reason
	}
	return text
}

// TestSessions: what is told of a connection for TLS-RPT, for each kind of policy and failure.
func TestSessions(t *testing.T) {
	const host, domain = "mx1.partner.example", "partner.example"
	good, other, expired := certified(t, host, false), certified(t, "mx9.partner.example", false), certified(t, host, true)
	self := record(3, 1, 1, leaf(t, selfSigned()))
	bad := relay.TLSA{Usage: 3, Selector: 1, Matching: 1, Data: make([]byte, 32)}
	none := "partner.example no-policy-found partner.example"
	sts, tlsa, at := "partner.example sts partner.example", "partner.example tlsa mx1.partner.example", " mx1.partner.example 192.0.2.7"
	for name, tt := range map[string]struct {
		host   *tls.Config
		v      vouched
		sts    relay.STSPolicy
		route  Route
		letter string
		roots  *x509.CertPool
		want   string // sessions, divided by |; one that ends in * may go on
	}{
		"no policy":            {host: selfSigned(), want: none},
		"no TLS":               {want: none + ": starttls-not-supported" + at},
		"broken TLS":           {host: &tls.Config{}, want: none + ": validation-failure" + at + "*"},
		"sts":                  {host: good, sts: enforced(host), want: sts},
		"sts, wrong name":      {host: other, sts: enforced(host), want: sts + ": certificate-host-mismatch" + at + "*"},
		"sts, expired":         {host: expired, sts: enforced(host), want: sts + ": certificate-expired" + at + "*"},
		"sts, self-signed":     {host: selfSigned(), sts: enforced(host), want: sts + ": certificate-host-mismatch" + at + "*"},
		"sts, no roots":        {host: good, roots: x509.NewCertPool(), sts: enforced(host), want: sts + ": certificate-not-trusted" + at + "*"},
		"sts, no TLS":          {sts: enforced(host), want: sts + ": starttls-not-supported" + at},
		"sts, other host":      {host: good, sts: enforced("mx2.partner.example"), want: sts + ": validation-failure" + at + " it is not among the hosts of its domain's policy"},
		"testing, self-signed": {host: selfSigned(), sts: tested(host), want: sts + ": certificate-host-mismatch" + at + "*"},
		"testing, other host":  {host: good, sts: tested("mx2.partner.example"), want: sts + ": validation-failure" + at + " it is not among the hosts of its domain's policy"},
		"testing, no TLS":      {sts: tested(host), want: sts + ": starttls-not-supported" + at},
		"no policy to be had":  {host: good, sts: relay.STSPolicy{Problem: relay.TLSSTSFetch}, want: sts + ": sts-policy-fetch-error  invalid IP|" + none},
		"a new policy is lost": {host: good, sts: relay.STSPolicy{Mode: relay.STSEnforce, MX: []string{host}, Problem: relay.TLSSTSInvalid}, want: sts + ": sts-policy-invalid  invalid IP|" + sts},
		"dane":                 {host: selfSigned(), v: vouched{mx: true, records: []relay.TLSA{self}}, want: tlsa},
		"dane, alias":          {host: selfSigned(), v: vouched{mx: true, base: "real.example", records: []relay.TLSA{self}}, want: "partner.example tlsa real.example"},
		"dane, mismatch":       {host: selfSigned(), v: vouched{mx: true, records: []relay.TLSA{bad}}, want: tlsa + ": validation-failure" + at + " no TLSA record matches it"},
		"dane, no TLS":         {v: vouched{mx: true, records: []relay.TLSA{bad}}, want: tlsa + ": starttls-not-supported" + at},
		"dane, bogus":          {host: good, v: vouched{mx: true, err: errServfail}, want: tlsa + ": dnssec-invalid" + at + " its TLSA records cannot be looked up"},
		"dane, unusable":       {host: good, v: vouched{mx: true, records: []relay.TLSA{record(1, 1, 1, leaf(t, good))}}, want: tlsa + ": tlsa-invalid" + at + " no TLSA record is of use"},
		"dane by route":        {host: good, route: Route{To: domain, TLS: TLSDANE}, want: none + ": dane-required" + at + "*"},
		"may by route":         {host: good, route: Route{To: domain, TLS: TLSMay}, sts: enforced("x.example"), want: none},
		"none by route":        {host: good, route: Route{To: domain, TLS: TLSNone}, want: ""},
		"smarthost":            {host: good, route: Route{To: "*", Via: host}, sts: enforced("x.example"), want: "mx1.partner.example no-policy-found mx1.partner.example"},
		"a report":             {host: selfSigned(), sts: enforced(host), letter: "TLS-Required: No\r\n", want: ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, _ := encrypting(tt.host)
				tt.v.network = n
				var got []string
				n.send(t, envelope("bob@partner.example"), tt.letter+hello, trusting(""), func(c *Config) {
					c.Secure, c.Policies = &tt.v, says(tt.sts)
					if c.Routes = nil; tt.route.To != "" {
						c.Routes = []Route{tt.route}
					}
					if tt.roots != nil {
						c.TLS = &tls.Config{RootCAs: tt.roots}
					}
					c.Sessions = func(s relay.TLSSession) { got = append(got, said(s)) }
				})
				text := strings.Join(got, "|")
				if prefix, open := strings.CutSuffix(tt.want, "*"); text != tt.want && !(open && strings.HasPrefix(text, prefix) && text != prefix) {
					t.Errorf("told %q, want %q", text, tt.want)
				}
			})
		})
	}
}

func enforced(mx string) relay.STSPolicy {
	return relay.STSPolicy{Mode: relay.STSEnforce, MX: []string{mx}}
}
func tested(mx string) relay.STSPolicy {
	return relay.STSPolicy{Mode: relay.STSTesting, MX: []string{mx}}
}

// TestSessionsReused: a letter on a connection that was open is no new session.
func TestSessionsReused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, _ := encrypting(selfSigned())
		count := 0
		c := n.client(trusting(""), func(c *Config) { c.Sessions, c.Timeouts.Idle = func(relay.TLSSession) { count++ }, time.Minute })
		for range 2 {
			got := c.Deliver(t.Context(), envelope("bob@partner.example"), "partner.example", strings.NewReader(hello))
			if got[0].Outcome != relay.Delivered {
				t.Fatalf("%+v", got)
			}
		}
		c.Close()
		n.wg.Wait()
		if count != 1 {
			t.Errorf("%d sessions told of, want 1", count)
		}
	})
}
