package mx

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"relayd/relay"
)

var errServfail = errors.New("SERVFAIL from 127.0.0.1")

// attempt delivers to domain in a world where nobody answers, and returns whom it dialled.
func (n *network) attempt(t *testing.T, domain relay.Domain, change ...func(*Config)) ([]string, relay.Result) {
	t.Helper()
	c := n.client(change...)
	env := relay.Envelope{Rcpts: []relay.Recipient{{Addr: relay.Address{Local: "bob", Domain: domain}}}}
	got := c.Deliver(t.Context(), env, domain, strings.NewReader(hello))[0]
	c.Close()
	n.wg.Wait()
	dialed := n.dialed
	n.dialed = nil
	return dialed, got
}

func status(s string) relay.Status { st, _ := relay.ParseStatus(s); return st }

func mxs(list ...any) (out []relay.MX) {
	for i := 0; i < len(list); i += 2 {
		out = append(out, relay.MX{Pref: uint16(list[i].(int)), Host: relay.Domain(list[i+1].(string))})
	}
	return out
}

func addrs(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, addr(s))
	}
	return out
}

func TestTargets(t *testing.T) {
	n := &network{
		mx: map[relay.Domain][]relay.MX{
			"one.example":       mxs(10, "a.example"),
			"order.example":     mxs(30, "c.example", 10, "a.example", 20, "b.example"),
			"null.example":      mxs(0, ""),
			"nullplus.example":  mxs(0, "", 10, "a.example"),
			"noaddr.example":    mxs(10, "nowhere.example"),
			"halfaddr.example":  mxs(10, "nowhere.example", 20, "b.example"),
			"sick.example":      mxs(10, "servfail.example"),
			"halfsick.example":  mxs(10, "servfail.example", 20, "b.example"),
			"backup.example":    mxs(10, "a.example", 20, "mail.office.example", 30, "c.example"),
			"equal.example":     mxs(10, "a.example", 10, "mail.office.example", 20, "c.example"),
			"ours.example":      mxs(10, "mail.office.example"),
			"alias.example":     mxs(10, "www.office.example"),
			"byaddr.example":    mxs(10, "stolen.example", 20, "c.example"),
			"loopback.example":  mxs(10, "localhost", 20, "c.example"),
			"loopback6.example": mxs(10, "localhost6"),
			"zero.example":      mxs(10, "zero"),
			"mapped.example":    mxs(10, "mapped"),
			"sickours.example":  mxs(10, "servfail.example", 20, "mail.office.example"),
			"goneours.example":  mxs(10, "nowhere.example", 20, "mail.office.example"),
			"big.example":       mxs(10, "big1.example", 20, "c.example"),
			"dual.example":      mxs(10, "dual1.example", 10, "dual2.example", 10, "dual3.example"),
		},
		addrs: map[relay.Domain][]netip.Addr{
			"a.example": addrs("192.0.2.1"), "b.example": addrs("192.0.2.2"), "c.example": addrs("192.0.2.3"),
			"plain.example": addrs("192.0.2.4"), "stolen.example": addrs("198.51.100.1"),
			"localhost": addrs("127.0.0.5"), "localhost6": addrs("::1"), "zero": addrs("0.0.0.0"),
			"mapped": addrs("::ffff:127.0.0.1"), "mail.office.example": addrs("198.51.100.1"),
			"big1.example":  addrs("192.0.2.11", "192.0.2.12", "192.0.2.13", "192.0.2.14", "192.0.2.15", "192.0.2.16"),
			"dual1.example": addrs("192.0.2.21", "2001:db8::21"), "dual2.example": addrs("192.0.2.22", "2001:db8::22"),
			"dual3.example": addrs("2001:db8::23", "192.0.2.23"),
		},
		fail: map[relay.Domain]error{"servfail.example": errServfail, "badzone.example": errServfail},
	}
	tests := []struct {
		domain  relay.Domain
		dialed  string // last octets or groups
		outcome relay.Outcome
		status  string
	}{
		{"one.example", "192.0.2.1", relay.Deferred, "4.4.1"},
		{"order.example", "192.0.2.1 192.0.2.2 192.0.2.3", relay.Deferred, "4.4.1"},
		{"plain.example", "192.0.2.4", relay.Deferred, "4.4.1"},
		{"nothing.example", "", relay.Failed, "5.1.2"},
		{"null.example", "", relay.Failed, "5.1.10"},
		{"nullplus.example", "192.0.2.1", relay.Deferred, "4.4.1"},
		{"noaddr.example", "", relay.Failed, "5.1.2"},
		{"halfaddr.example", "192.0.2.2", relay.Deferred, "4.4.1"},
		{"badzone.example", "", relay.Deferred, "4.4.3"},
		{"sick.example", "", relay.Deferred, "4.4.3"},
		{"halfsick.example", "192.0.2.2", relay.Deferred, "4.4.1"},
		{"backup.example", "192.0.2.1", relay.Deferred, "4.4.1"},
		{"equal.example", "", relay.Failed, "5.4.6"},
		{"ours.example", "", relay.Failed, "5.4.6"},
		{"alias.example", "", relay.Failed, "5.4.6"},
		{"byaddr.example", "", relay.Failed, "5.4.6"},
		{"loopback.example", "", relay.Failed, "5.4.6"},
		{"loopback6.example", "", relay.Failed, "5.4.6"},
		{"zero.example", "", relay.Failed, "5.4.6"},
		{"mapped.example", "", relay.Failed, "5.4.6"},
		{"sickours.example", "", relay.Deferred, "4.4.3"},
		{"goneours.example", "", relay.Failed, "5.4.6"},
		{"big.example", "192.0.2.11 192.0.2.12 192.0.2.13 192.0.2.14 192.0.2.3", relay.Deferred, "4.4.1"},
		{"dual.example", "2001:db8::21 192.0.2.22 2001:db8::23 192.0.2.21 2001:db8::22", relay.Deferred, "4.4.1"},
		{"[192.0.2.99]", "192.0.2.99", relay.Deferred, "4.4.1"},
		{"[IPv6:2001:db8::99]", "2001:db8::99", relay.Deferred, "4.4.1"},
		{"[127.0.0.1]", "", relay.Failed, "5.4.6"},
		{"[198.51.100.1]", "", relay.Failed, "5.4.6"},
	}
	for _, tt := range tests {
		t.Run(string(tt.domain), func(t *testing.T) {
			dialed, got := n.attempt(t, tt.domain, func(c *Config) {
				c.SelfName = func(d relay.Domain) bool { return d == "www.office.example" }
				c.SelfAddr = func(a netip.AddrPort) bool { return a.String() == "198.51.100.1:25" }
			})
			want := strings.Fields(tt.dialed)
			for i, a := range want {
				want[i] = netip.AddrPortFrom(addr(a), 25).String()
			}
			if !slices.Equal(dialed, want) {
				t.Errorf("dialled %v, want %v", dialed, want)
			}
			if got.Outcome != tt.outcome || got.Reply.Status != status(tt.status) || got.Host != "" ||
				got.Reply.Permanent() != (tt.outcome == relay.Failed) {
				t.Errorf("%+v", got)
			}
		})
	}
}

// TestNoIPv6: addresses that this machine has no way to are not among the five.
func TestNoIPv6(t *testing.T) {
	n := &network{mx: map[relay.Domain][]relay.MX{}, addrs: map[relay.Domain][]netip.Addr{}, hosts: map[string]*remote{}}
	for i := range 5 {
		host := relay.Domain(fmt.Sprintf("mx%d.partner.example", i))
		six, four := fmt.Sprintf("2001:db8::%d", i+1), fmt.Sprintf("192.0.2.%d", i+1)
		n.mx["partner.example"] = append(n.mx["partner.example"], relay.MX{Host: host, Pref: 10})
		n.addrs[host] = addrs(six, four)
		n.hosts[six] = nil
	}
	dialed, _ := n.attempt(t, "partner.example")
	if len(dialed) < 9 || len(slices.DeleteFunc(dialed, func(s string) bool { return s[0] == '[' })) != 5 {
		t.Errorf("dialled %v", dialed)
	}
}

func TestShuffle(t *testing.T) {
	n := &network{mx: map[relay.Domain][]relay.MX{"x.example": mxs(10, "a", 10, "b", 10, "c", 20, "d")},
		addrs: map[relay.Domain][]netip.Addr{"a": addrs("192.0.2.1"), "b": addrs("192.0.2.2"), "c": addrs("192.0.2.3"), "d": addrs("192.0.2.4")}}
	first := map[string]int{}
	for range 300 {
		dialed, _ := n.attempt(t, "x.example", func(c *Config) { c.Shuffle = rand.Shuffle })
		first[dialed[0]]++
		if dialed[3] != "192.0.2.4:25" {
			t.Fatalf("dialled %v", dialed)
		}
	}
	if len(first) != 3 {
		t.Errorf("first of all: %v", first)
	}
}

func TestLoopbackAllowed(t *testing.T) {
	n := &network{mx: map[relay.Domain][]relay.MX{"x.example": mxs(10, "l")}, addrs: map[relay.Domain][]netip.Addr{"l": addrs("127.0.0.5")}}
	allow := func(c *Config) { c.AllowLoopback, c.Port = true, 2525 }
	if dialed, _ := n.attempt(t, "x.example", allow); !slices.Equal(dialed, []string{"127.0.0.5:2525"}) {
		t.Errorf("dialled %v", dialed)
	}
	// Our own listener stays our own.
	_, got := n.attempt(t, "x.example", allow, func(c *Config) {
		c.SelfAddr = func(a netip.AddrPort) bool { return a == netip.MustParseAddrPort("127.0.0.5:2525") }
	})
	if got.Reply.Status != status("5.4.6") {
		t.Errorf("%+v", got)
	}
}

func TestRoutes(t *testing.T) {
	n := &network{mx: map[relay.Domain][]relay.MX{"hub.example": mxs(10, "a")},
		addrs: map[relay.Domain][]netip.Addr{"hub.example": addrs("192.0.2.9", "2001:db8::9"), "a": addrs("192.0.2.1"), "local.example": addrs("127.0.0.1")},
		fail:  map[relay.Domain]error{"sick.example": errServfail}}
	var routes []Route
	for _, r := range [][2]string{{"partner.example", "hub.example:587"}, {"*.sub.example", "HUB.example."}, {"gone.example", "nowhere.example"},
		{"sick2.example", "sick.example"}, {"dev.example", "127.0.0.1:2525"}, {"six.example", "[::1]:26"}, {"bare.example", "::1"}, {"dev2.example", "local.example"}, {"*", "[192.0.2.77]"}} {
		route, err := ParseRoute(r[0], r[1])
		if err != nil {
			t.Fatal(err)
		}
		routes = append(routes, route)
	}
	for domain, want := range map[relay.Domain]string{
		"partner.example": "[2001:db8::9]:587 192.0.2.9:587 ", "x.sub.example": "[2001:db8::9]:25 192.0.2.9:25 ",
		"sub.example": "192.0.2.77:25 ", "hub.example": "192.0.2.77:25 ", "dev.example": "127.0.0.1:2525 ",
		"six.example": "[::1]:26 ", "bare.example": "[::1]:25 ", "dev2.example": "127.0.0.1:25 ", "[192.0.2.5]": "192.0.2.77:25 ",
		"gone.example": "4.4.4", "sick2.example": "4.4.3",
	} {
		dialed, got := n.attempt(t, domain, func(c *Config) { c.Routes = routes })
		text := strings.Join(append(dialed, ""), " ")
		if text == "" {
			text = got.Reply.Status.String()
		}
		if text != want || got.Outcome != relay.Deferred {
			t.Errorf("%s: %s, %+v", domain, text, got)
		}
	}
	for _, bad := range [][2]string{{"a b", "hub.example"}, {"*.", "hub.example"}, {"a.example", ""}, {"a.example", "hub.example:0"},
		{"a.example", "hub.example:99999"}, {"a.example", "hub example"}, {"**", "hub.example"}} {
		if r, err := ParseRoute(bad[0], bad[1]); err == nil {
			t.Errorf("%q gives %+v", bad, r)
		}
	}
}

func TestLocalAddr(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := partner(&remote{})
		n.addrs["mx1.partner.example"] = addrs("2001:db8::7", "192.0.2.7")
		n.hosts["2001:db8::7"] = nil
		n.send(t, envelope("bob@partner.example"), hello, func(c *Config) {
			c.LocalAddr = func(remote netip.Addr) netip.Addr {
				if remote.Is4() {
					return addr("198.51.100.1")
				}
				return netip.Addr{}
			}
		})
		if !slices.Equal(n.locals, []netip.Addr{{}, addr("198.51.100.1")}) {
			t.Errorf("dialled from %v", n.locals)
		}
	})
}
