package records

import (
	"cmp"
	"context"
	"net/netip"
	"strings"
	"testing"

	"relayd/relay"
	"relayd/relay/policy"
	"relayd/relay/relaytest"
	"relayd/relay/resolver"
)

func dns(t *testing.T, zone string) *resolver.Resolver {
	t.Helper()
	r, err := resolver.New([]netip.AddrPort{relaytest.DNS(t, zone)}, resolver.CacheSize(0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

const zone = `
	office.test. MX 10 mail.office.test.
	mail.office.test. A 192.0.2.25
	mail.office.test. AAAA 2001:db8::25
	_pop3s._tcp.office.test. SRV 0 1 995 mail.office.test.
	_submissions._tcp.office.test. SRV 0 0 0 .
	pass-mx.test. TXT "v=spf1 mx:office.test -all"
	pass-a.test. TXT "V=SPF1 a:mail.office.test/24//64 -all"
	pass-ip4.test. TXT "v=spf1 ip4:192.0.2.0/24 -all"
	pass-include.test. TXT "v=spf1 include:pass-ip4.test -all"
	pass-redirect.test. TXT "v=spf1 redirect=pass-ip4.test"
	pass-parts.test. TXT "v=spf1 ip4:192.0." "2.25 -all"
	fail.test. TXT "v=spf1 ip4:198.51.100.1 ip6:2001:db8::/32 a -all"
	fail-include.test. TXT "v=spf1 include:softfail.test -all"
	softfail.test. TXT "v=spf1 ~all"
	neutral.test. TXT "v=spf1 a:other.test"
	none.test. TXT "v=spf10 +all"
	permerror-two.test. TXT "v=spf1 -all"
	permerror-two.test. TXT "v=spf1 ~all"
	permerror-include.test. TXT "v=spf1 include:none.test -all"
	permerror-loop.test. TXT "v=spf1 include:permerror-loop.test -all"
	permerror-ip.test. TXT "v=spf1 ip4:mail -all"
	temperror.test. TXT "v=spf1 include:broken.test -all"
	;fault broken.test servfail
`

// spf is what cmd/relayd hands in.
func spf(r *resolver.Resolver, d relay.Domain) func(context.Context, netip.Addr) string {
	return func(ctx context.Context, addr netip.Addr) string {
		return string(policy.SPF(ctx, r, addr, "mail.office.test", d))
	}
}

func TestEvaluate(t *testing.T) {
	t.Parallel()
	r := dns(t, zone)
	for _, name := range []relay.Domain{"pass-mx.test", "pass-a.test", "pass-ip4.test", "pass-include.test", "pass-redirect.test",
		"pass-parts.test", "fail.test", "fail-include.test", "softfail.test", "neutral.test", "none.test", "permerror-two.test",
		"permerror-include.test", "permerror-loop.test", "permerror-ip.test", "temperror.test"} {
		got := spf(r, name)(t.Context(), netip.MustParseAddr("192.0.2.25"))
		if want := string(name[:len(got)]); got != want || name[len(got)] != '-' && name[len(got)] != '.' {
			t.Errorf("%s: %s", name, got)
		}
	}
	if got := spf(r, "pass-a.test")(t.Context(), netip.MustParseAddr("2001:db8::1")); got != "pass" {
		t.Errorf("a neighbour in the /64: %s", got)
	}
	if got := spf(r, "pass-a.test")(t.Context(), netip.MustParseAddr("2001:db8:0:1::1")); got != "fail" {
		t.Errorf("beyond the /64: %s", got)
	}
}

func verdicts(lines []Line) map[string]string {
	found := map[string]string{}
	for _, l := range lines {
		found[l.For+" "+l.Name] = l.Verdict
	}
	return found
}

func TestServices(t *testing.T) {
	t.Parallel()
	service := func(name string, port uint16) Service {
		return Service{Name: name, SRV: relay.SRV{Weight: 1, Port: port, Target: "mail.office.test"}}
	}
	o := Office{Domain: "office.test", Hostname: "mail.office.test", Services: []Service{
		service("_pop3s._tcp.office.test", 995), service("_submissions._tcp.office.test", 465), service("_pop3._tcp.office.test", 110)}}
	got := verdicts(Check(t.Context(), o, dns(t, zone)))
	for key, want := range map[string]string{"srv _pop3s._tcp.office.test": OK, "srv _submissions._tcp.office.test": Fault,
		"srv _pop3._tcp.office.test": Advice} {
		if got[key] != want {
			t.Errorf("%s: %s, want %s", key, got[key], want)
		}
	}
}

// Where we send from another address than our name has, or the DNS is silent, that is said.
func TestAddresses(t *testing.T) {
	t.Parallel()
	o := Office{Domain: "pass-a.test", Hostname: "mail.office.test", Addrs: []netip.Addr{netip.MustParseAddr("198.51.100.7")}}
	r := dns(t, zone)
	o.SPF = spf(r, o.Domain)
	got := verdicts(Check(t.Context(), o, r))
	for key, want := range map[string]string{"address mail.office.test": Fault, "ptr 198.51.100.7": Fault, "spf pass-a.test": Fault} {
		if got[key] != want {
			t.Errorf("%s: %s, want %s", key, got[key], want)
		}
	}
	o = Office{Domain: "silent.test", Hostname: "mail.silent.test"}
	r = dns(t, ";fault silent.test servfail\n;fault mail.silent.test servfail\nx. A 192.0.2.1")
	o.SPF = spf(r, o.Domain)
	for key, verdict := range verdicts(Check(t.Context(), o, r)) {
		if verdict == Fault && (key == "mx silent.test" || key == "address mail.silent.test" || key == "spf silent.test") {
			t.Errorf("a DNS that fails is no fault of the records: %s", key)
		}
	}
}

// TestOwnPolicy: the record, the policy that we serve and the MX records have to go together.
func TestOwnPolicy(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		zone, problem, verdict, host string
		mode                         relay.STSMode
	}{
		"all well":        {zone: `_mta-sts.office.test. TXT "v=STSv1; id=a1"` + "\nmta-sts.office.test. CNAME mail.office.test.", verdict: OK, host: OK},
		"testing":         {zone: `_mta-sts.office.test. TXT "v=STSv1; id=a1"` + "\nmta-sts.office.test. A 192.0.2.25", mode: relay.STSTesting, verdict: Advice, host: OK},
		"not told":        {zone: "mta-sts.office.test. A 192.0.2.25", verdict: Fault, host: OK},
		"the old id":      {zone: `_mta-sts.office.test. TXT "v=STSv1; id=a0"` + "\nmta-sts.office.test. A 192.0.2.25", verdict: Fault, host: OK},
		"no host":         {zone: `_mta-sts.office.test. TXT "v=STSv1; id=a1"`, verdict: Fault, host: Fault},
		"another host":    {zone: `_mta-sts.office.test. TXT "v=STSv1; id=a1"` + "\nmta-sts.office.test. A 192.0.2.80", verdict: OK, host: Fault},
		"not believed":    {zone: `_mta-sts.office.test. TXT "v=STSv1; id=a1"` + "\nmta-sts.office.test. A 192.0.2.25", problem: "no certificate", verdict: Fault, host: OK},
		"a host too many": {zone: `_mta-sts.office.test. TXT "v=STSv1; id=a1"` + "\nmta-sts.office.test. A 192.0.2.25\noffice.test. MX 20 backup.test.", verdict: Fault, host: OK},
	} {
		r := dns(t, zone+"\t"+strings.ReplaceAll(c.zone, "\n", "\n\t")+"\n")
		o := Office{Domain: "office.test", Hostname: "mail.office.test", SPF: spf(r, "office.test"), STS: STS{ID: "a1", Problem: c.problem,
			STSPolicy: relay.STSPolicy{Mode: cmp.Or(c.mode, relay.STSEnforce), MX: []string{"mail.office.test"}}}}
		got := verdicts(Check(t.Context(), o, r))
		if got["mta-sts _mta-sts.office.test"] != c.verdict || got["mta-sts mta-sts.office.test"] != c.host {
			t.Errorf("%s: %s and %s, want %s and %s", name, got["mta-sts _mta-sts.office.test"], got["mta-sts mta-sts.office.test"], c.verdict, c.host)
		}
	}
}
