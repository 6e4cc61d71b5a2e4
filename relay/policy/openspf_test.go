package policy

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"relayd/relay"
)

// suite is one part of the openspf suite: tests that share a zone.
type suite struct {
	Description string
	Tests       []struct {
		Name, Helo, Host, MailFrom string
		Results                    []string
	}
	Zone map[string][]map[string]any
}

// suiteDNS answers from the zone of a suite.
type suiteDNS map[string][]map[string]any

var errBroken = errors.New("could not ask")

// values are the records of one kind; a name leads on by CNAME as in a resolver.
func (z suiteDNS) values(name, kind string) (list []any, err error) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	for range 10 {
		next := ""
		for _, r := range z[name] {
			switch {
			case r["TIMEOUT"] != nil && len(list) == 0:
				err = errBroken
			case r["CNAME"] != nil:
				next = strings.ToLower(strings.TrimSuffix(r["CNAME"].(string), "."))
			case r[kind] != nil && r[kind] != "NONE":
				list = append(list, r[kind])
			}
		}
		if len(list) > 0 {
			return list, nil
		}
		if err != nil {
			return nil, err
		}
		if next == "" {
			return nil, relay.ErrNoRecord
		}
		name = next
	}
	return nil, errBroken
}

func (z suiteDNS) TXT(_ context.Context, name string) (all []string, err error) {
	list, err := z.values(name, "TXT")
	// The suite's type SPF stands for TXT where there is none: "TXT: NONE" says that there is none.
	none := slices.ContainsFunc(z[strings.ToLower(strings.TrimSuffix(name, "."))], func(r map[string]any) bool { return r["TXT"] != nil })
	if errors.Is(err, relay.ErrNoRecord) && !none {
		list, err = z.values(name, "SPF")
	}
	for _, v := range list {
		all = append(all, v.(string))
	}
	return all, err
}

func (z suiteDNS) MX(_ context.Context, d relay.Domain) (all []relay.MX, err error) {
	list, err := z.values(string(d), "MX")
	for _, v := range list {
		mx := v.([]any)
		all = append(all, relay.MX{Pref: uint16(mx[0].(float64)), Host: relay.Domain(mx[1].(string))})
	}
	return all, err
}

func (z suiteDNS) Addrs(_ context.Context, d relay.Domain) (all []netip.Addr, err error) {
	four, err := z.values(string(d), "A")
	six, _ := z.values(string(d), "AAAA")
	for _, v := range append(four, six...) {
		all = append(all, netip.MustParseAddr(v.(string)))
	}
	if len(all) > 0 {
		err = nil
	}
	return all, err
}

func (z suiteDNS) PTR(_ context.Context, addr netip.Addr) (all []relay.Domain, err error) {
	list, err := z.values(reverse(addr), "PTR")
	for _, v := range list {
		all = append(all, relay.Domain(v.(string)))
	}
	return all, err
}

func reverse(a netip.Addr) string {
	octets := a.AsSlice()
	var labels []string
	for _, o := range slices.Backward(octets) {
		if a.Is4() {
			labels = append(labels, netip.AddrFrom4([4]byte{0, 0, 0, o}).String()[len("0.0.0."):])
		} else {
			labels = append(labels, string("0123456789abcdef"[o&15]), string("0123456789abcdef"[o>>4]))
		}
	}
	if a.Is4() {
		return strings.Join(labels, ".") + ".in-addr.arpa"
	}
	return strings.Join(labels, ".") + ".ip6.arpa"
}

// others are the tests in which the library finds another result than the suite wants: it knows no
// colon in a name, and of the names for the macro p, which nobody should use (RFC 7208 §7.2), only
// the first.
func others() map[string]Result {
	return map[string]Result{
		"a-colon-domain": PermError, "a-colon-domain-ip4mapped": PermError, "mx-colon-domain": PermError,
		"mx-colon-domain-ip4mapped": PermError, "p-macro-multiple": Neutral,
	}
}

// TestOpenSPF runs the openspf suite for RFC 7208 through the door that letters take.
func TestOpenSPF(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/openspf/rfc7208-tests.json")
	if err != nil {
		t.Fatal(err)
	}
	var all []suite
	if err := json.Unmarshal(data, &all); err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, s := range all {
		zone := suiteDNS{}
		for name, records := range s.Zone {
			name = strings.ToLower(name)
			zone[name] = append(zone[name], records...)
		}
		for _, one := range s.Tests {
			count++
			local, domain, _ := cutLast(one.MailFrom, "@")
			if one.MailFrom == "" {
				local, domain = relay.Postmaster.Local, one.Helo
			}
			got := checkSPF(t.Context(), zone, netip.MustParseAddr(one.Host), one.Helo, local, relay.Domain(domain))
			want, known := others()[one.Name]
			if known && got != want || !known && !slices.Contains(one.Results, string(got)) {
				t.Errorf("%s: %s: %s, want %v", s.Description, one.Name, got, one.Results)
			}
		}
	}
	if count != 203 {
		t.Errorf("%d tests", count)
	}
}

func cutLast(s, sep string) (before, after string, ok bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return "", s, false
}

// TestValidSPF: what may stand in a record, and what is a mistake (RFC 7208 §12).
func TestValidSPF(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"v=spf1", "V=SPF1  -all", "v=spf1 ip4:192.0.2.0/24 ip6:2001:db8::/32 a mx:a.example//64 a/24 a:b.example/0//0 ~all",
		"v=spf1 include:%{d}.x.example exists:%{ir}.%{v}._spf.%{d2} redirect=a.example", "v=spf1 exp=e.%{d} x-tag=%%%{c}%_ -ptr:%{o1r-+.}",
		"v=spf1 ?all ALL a:a-b.example.", "v=spf1 x=", "v=spf1 include:a.1a",
	} {
		if !validSPF(text) {
			t.Errorf("%q is valid", text)
		}
	}
	for _, text := range []string{
		"v=spf1 all:x", "v=spf1 all.", "v=spf1 ++all", "v=spf1 ip4:192.0.2.0/33", "v=spf1 ip4:192.0.2.0/08", "v=spf1 ip4:2001:db8::1", "v=spf1 ip6:192.0.2.1",
		"v=spf1 ip4", "v=spf1 a:", "v=spf1 a:b", "v=spf1 a:b.1", "v=spf1 mx:-a.-b", "v=spf1 include", "v=spf1 include:", "v=spf1 include:%{x}.a.b", "v=spf1 include:%(d)",
		"v=spf1 include:%{d", "v=spf1 include:a.b%", "v=spf1 exists:%{c}.example", "v=spf1 exp=a.b exp=a.b", "v=spf1 redirect=", "v=spf1 redirect=a.b/24", "v=spf1 moo",
		"v=spf1 moo.cow:far_out=man:dog/cat", "v=spf1 a/33", "v=spf1 a//129", "v=spf1 é", "v=spf1 -all\x00", "v=spf1 1x=y", "v=spf1 =y", "v=spf1 %all",
	} {
		if validSPF(text) {
			t.Errorf("%q is not valid", text)
		}
	}
	if got := strictSPF([]string{"v=spf10 moo", "v=spf1 moo", "v=spf1 " + strings.Repeat("a ", maxSPF)}); !slices.Equal(got, []string{"v=spf10 moo", brokenSPF, brokenSPF}) {
		t.Errorf("%q", got)
	}
}

// FuzzSPF: no record makes the evaluation stumble or ask more than RFC 7208 §4.6.4 allows, and a record
// that breaks the grammar is a permanent error.
func FuzzSPF(f *testing.F) {
	for _, s := range []string{"v=spf1 -all", "v=spf1 include:a.example mx ptr exists:%{i}.a.example redirect=a.example", "v=spf1 a:%{d}/24//64 ~all", "v=spf1 ip6:::1 moo"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		zone := &countingDNS{suiteDNS: suiteDNS{"a.example": {{"TXT": text}, {"A": "192.0.2.1"}, {"MX": []any{10.0, "a.example"}}}}}
		got := checkSPF(t.Context(), zone, netip.MustParseAddr("192.0.2.7"), "mx.example", "x", "a.example")
		if isSPF(text) && !validSPF(text) && got != PermError {
			t.Errorf("%q: %s", text, got)
		}
		if zone.asked > 200 {
			t.Errorf("%q: %d questions", text, zone.asked)
		}
	})
}

type countingDNS struct {
	suiteDNS
	asked int
}

func (c *countingDNS) TXT(ctx context.Context, name string) ([]string, error) {
	c.asked++
	return c.suiteDNS.TXT(ctx, name)
}

func (c *countingDNS) Addrs(ctx context.Context, d relay.Domain) ([]netip.Addr, error) {
	c.asked++
	return c.suiteDNS.Addrs(ctx, d)
}
