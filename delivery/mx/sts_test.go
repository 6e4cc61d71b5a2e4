package mx

import (
	"context"
	"crypto/tls"
	"strings"
	"testing"
	"testing/synctest"

	"relayd/relay"
)

// says are the policies of all domains.
type says relay.STSPolicy

func (s says) Find(context.Context, relay.Domain) relay.STSPolicy { return relay.STSPolicy(s) }

func TestMTASTS(t *testing.T) {
	good, other, expired := certified(t, "mx1.partner.example", false), certified(t, "mx9.partner.example", false), certified(t, "mx1.partner.example", true)
	ours, theirs := []string{"*.partner.example"}, []string{"mx9.partner.example"}
	for _, tt := range []struct {
		name string
		mode relay.STSMode
		mx   []string
		host *tls.Config
		want string // as wantTLS has it
	}{
		{"enforce", relay.STSEnforce, ours, good, ", verified (mta-sts)"},
		{"enforce, other MX", relay.STSEnforce, theirs, good, "4.7.5"},
		{"enforce, wrong name", relay.STSEnforce, ours, other, "4.7.5"},
		{"enforce, expired", relay.STSEnforce, ours, expired, "4.7.5"},
		{"enforce, self-signed", relay.STSEnforce, ours, selfSigned(), "4.7.5"},
		{"enforce, no TLS", relay.STSEnforce, ours, nil, "4.7.5"},
		{"testing", relay.STSTesting, ours, good, ", verified (mta-sts testing)"},
		{"testing, other MX", relay.STSTesting, theirs, good, ", verified (mta-sts testing, not among the hosts of the policy)"},
		{"testing, self-signed", relay.STSTesting, ours, selfSigned(), ", unverified (mta-sts testing)"},
		{"none", relay.STSNone, nil, selfSigned(), ", unverified"},
		{"no policy", "", nil, selfSigned(), ", unverified"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, r := encrypting(tt.host)
				got := n.send(t, envelope("bob@partner.example"), hello, trusting(""), func(c *Config) { c.Policies = says{Mode: tt.mode, MX: tt.mx} })[0]
				wantTLS(t, got, r, tt.want)
			})
		})
	}
}

// TestTestingInTheClear: in testing mode a host without TLS, or with a broken one, gets its mail.
func TestTestingInTheClear(t *testing.T) {
	for _, host := range []*tls.Config{nil, {}} {
		synctest.Test(t, func(t *testing.T) {
			n, _ := encrypting(host)
			got := n.send(t, envelope("bob@partner.example"), hello, trusting(""),
				func(c *Config) { c.Policies = says{Mode: relay.STSTesting, MX: []string{"mx1.partner.example"}} })[0]
			if got.Outcome != relay.Delivered || got.TLS != "none (mta-sts testing)" {
				t.Errorf("%+v", got)
			}
		})
	}
}

// TestPolicyNext: a host that the policy does not name is not even dialled, however many of them
// come first, and the one that it names gets the letter.
func TestPolicyNext(t *testing.T) {
	second := certified(t, "mx2.partner.example", false)
	synctest.Test(t, func(t *testing.T) {
		n, first := encrypting(selfSigned())
		list := []relay.MX{}
		for _, host := range []relay.Domain{"a.evil.example", "b.evil.example", "c.evil.example", "d.evil.example", "e.evil.example", "f.evil.example"} {
			list = append(list, relay.MX{Host: host, Pref: 1})
			n.addrs[host] = addrs("192.0.2.7")
		}
		n.mx["partner.example"] = append(list, relay.MX{Host: "mx2.partner.example", Pref: 20})
		n.addrs["mx2.partner.example"] = addrs("192.0.2.8")
		n.hosts["192.0.2.8"] = &remote{ext: []string{"STARTTLS"}, tls: second}
		got := n.send(t, envelope("bob@partner.example"), hello, trusting(""),
			func(c *Config) { c.Policies = says{Mode: relay.STSEnforce, MX: []string{"mx2.partner.example"}} })[0]
		if got.Outcome != relay.Delivered || !strings.HasPrefix(got.Host, "mx2.") || first.conns > 0 {
			t.Errorf("%+v, the first had %d connections", got, first.conns)
		}
	})
}

// TestRoutesBeforePolicies: what the operator says of a domain beats what the domain says, and a
// smarthost is not one of the domain's hosts.
func TestRoutesBeforePolicies(t *testing.T) {
	for _, route := range []Route{{To: "*", TLS: TLSMay}, {To: "*", TLS: TLSNone}, {To: "*", Via: "mx1.partner.example"}} {
		synctest.Test(t, func(t *testing.T) {
			n, _ := encrypting(selfSigned())
			got := n.send(t, envelope("bob@partner.example"), hello, func(c *Config) {
				c.Policies, c.Routes = says{Mode: relay.STSEnforce, MX: []string{"mx9.partner.example"}}, []Route{route}
			})[0]
			if got.Outcome != relay.Delivered {
				t.Errorf("%+v: %+v", route, got)
			}
		})
	}
}
