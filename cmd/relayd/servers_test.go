package main

import (
	"net"
	"net/netip"
	"testing"

	"relayd/config"
	"relayd/relay"
)

// addrListener is a listener at any address: what localAddr and isSelfAddr look at.
type addrListener struct {
	net.Listener
	addr string
}

func (l addrListener) Addr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(l.addr))
}

func houseAt(cfg *config.Config, smtp ...string) *house {
	h := &house{}
	h.cfg.Store(cfg)
	h.listeners = append(h.listeners, listener{"pop3", addrListener{addr: "192.0.2.99:110"}})
	for _, addr := range smtp {
		h.listeners = append(h.listeners, listener{"smtp", addrListener{addr: addr}})
	}
	return h
}

// Mail leaves from the address of the SMTP listener where that is a particular one, so that the
// world sees the address whose PTR record names us; the config's word comes first.
func TestLocalAddr(t *testing.T) {
	t.Parallel()
	set := config.Default()
	set.Outbound.SourceIPv4 = netip.MustParseAddr("192.0.2.50")
	for _, c := range []struct {
		cfg    *config.Config
		smtp   []string
		remote string
		want   string
	}{
		{config.Default(), []string{"192.0.2.25:25"}, "198.51.100.1", "192.0.2.25"},
		{config.Default(), []string{"192.0.2.25:25"}, "2001:db8::1", ""},
		{config.Default(), []string{"192.0.2.25:25", "[2001:db8::25]:25"}, "2001:db8::1", "2001:db8::25"},
		{config.Default(), []string{"0.0.0.0:25", "[::]:25"}, "198.51.100.1", ""},
		{config.Default(), []string{"127.0.0.1:25"}, "198.51.100.1", ""},
		{config.Default(), []string{"192.0.2.25:25"}, "127.0.0.1", ""},
		{set, []string{"192.0.2.25:25"}, "198.51.100.1", "192.0.2.50"},
	} {
		got := houseAt(c.cfg, c.smtp...).localAddr(netip.MustParseAddr(c.remote))
		if want, _ := netip.ParseAddr(c.want); got != want {
			t.Errorf("%v to %s: from %v, want %q", c.smtp, c.remote, got, c.want)
		}
	}
}

// A mail exchanger is us when one of our SMTP listeners answers at its address.
func TestIsSelf(t *testing.T) {
	t.Parallel()
	h := houseAt(config.Dev(t.TempDir()), "192.0.2.25:25", "[::]:26")
	for addr, want := range map[string]bool{
		"192.0.2.25:25": true, "[::ffff:192.0.2.25]:25": true, "127.0.0.1:26": true, "[::1]:26": true,
		"192.0.2.25:2525": false, "192.0.2.99:110": false, "198.51.100.1:25": false, "198.51.100.1:26": false,
	} {
		if got := h.isSelfAddr(netip.MustParseAddrPort(addr)); got != want {
			t.Errorf("%s: %v", addr, got)
		}
	}
	for name, want := range map[relay.Domain]bool{"mail.office.test": true, "office.test": true, "mx.partner.example": false} {
		if got := h.isSelfName(name); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// A password crosses the line without TLS where the config says so, from trusted networks alone;
// POP3 takes one from this machine, too.
func TestPlaintextAuth(t *testing.T) {
	t.Parallel()
	trusted, stranger, local := netip.MustParseAddr("192.168.1.5"), netip.MustParseAddr("203.0.113.5"), netip.MustParseAddr("::1")
	for _, allowed := range []bool{false, true} {
		cfg := config.Default()
		cfg.TrustNetworks = []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24")}
		cfg.Submission.PlaintextAuth, cfg.POP3.PlaintextAuth = allowed, allowed
		h := houseAt(cfg)
		for _, c := range []struct {
			client           netip.Addr
			submission, pop3 bool
		}{{trusted, allowed, allowed}, {stranger, false, false}, {local, false, true}} {
			if got := h.plaintextSubmission(c.client); got != c.submission {
				t.Errorf("submission from %v: %v", c.client, got)
			}
			if got := h.plaintextPOP3(c.client); got != c.pop3 {
				t.Errorf("pop3 from %v: %v", c.client, got)
			}
		}
	}
}
