package mx

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"relayd/relay"
)

// believed is a network whose DNS has something to say of our own IPv6 address.
type believed struct {
	*network
	ptr    []relay.Domain
	err    error
	stalls bool
	asked  atomic.Int32
}

func (b *believed) PTR(ctx context.Context, a netip.Addr) ([]relay.Domain, error) {
	b.asked.Add(1)
	if b.stalls {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if a != addr("2001:db8::25") {
		return nil, errors.New("another address was asked about")
	}
	if b.ptr == nil && b.err == nil {
		return nil, relay.ErrNoRecord
	}
	return b.ptr, b.err
}

// bothFamilies is partner.example with an IPv4 and an IPv6 address.
func bothFamilies() *network {
	n := partner(&remote{})
	n.addrs["mx1.partner.example"] = []netip.Addr{addr("2001:db8:7::7"), addr("192.0.2.7")}
	n.addrs["mail.office.example"] = []netip.Addr{addr("192.0.2.25"), addr("2001:db8::25")}
	n.hosts["2001:db8:7::7"] = &remote{}
	return n
}

func (b *believed) deliver(t *testing.T, c *Client) relay.Result {
	t.Helper()
	return c.Deliver(t.Context(), envelope("ann@partner.example"), "partner.example", strings.NewReader(hello))[0]
}

func (b *believed) client() *Client {
	return b.network.client(func(cfg *Config) {
		cfg.Resolver = b
		cfg.Source = func(netip.Addr) netip.Addr { return addr("2001:db8::25") }
	})
}

// Which family is used, by what the DNS says of our own address.
func TestFamilies(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*believed)
		host   string // that took the letter
		way    string
	}{
		"believed": {func(b *believed) { b.ptr = []relay.Domain{"other.example", "mail.office.example"} }, "[2001:db8:7::7]", "IPv6"},
		"no PTR": {func(b *believed) {}, "[192.0.2.7]",
			"IPv4, not IPv6: our address 2001:db8::25 has no PTR record"},
		"PTR of the provider": {func(b *believed) { b.ptr = []relay.Domain{"host-25.isp.example"} }, "[192.0.2.7]",
			"IPv4, not IPv6: the PTR record of our address 2001:db8::25 names host-25.isp.example and not mail.office.example"},
		"not back": {func(b *believed) {
			b.ptr = []relay.Domain{"mail.office.example"}
			b.addrs["mail.office.example"] = []netip.Addr{addr("192.0.2.25")}
		}, "[192.0.2.7]", "IPv4, not IPv6: our address 2001:db8::25 is not one of those that the DNS has for mail.office.example"},
		"DNS trouble": {func(b *believed) { b.err = errors.New("SERVFAIL") }, "[192.0.2.7]",
			"IPv4, not IPv6: the PTR record of our address 2001:db8::25 cannot be looked up"},
		"DNS silent": {func(b *believed) { b.stalls = true }, "[192.0.2.7]",
			"IPv4, not IPv6: it is not known yet whether 2001:db8::25 has a PTR record that names us"},
		"DNS trouble, no IPv4 there": {func(b *believed) {
			b.err = errors.New("SERVFAIL")
			delete(b.hosts, "192.0.2.7")
		}, "[2001:db8:7::7]", "IPv6"},
		"only IPv6": {func(b *believed) {
			b.addrs["mx1.partner.example"] = []netip.Addr{addr("2001:db8:7::7")}
		}, "[2001:db8:7::7]", ""},
		"only IPv4": {func(b *believed) {
			b.addrs["mx1.partner.example"] = []netip.Addr{addr("192.0.2.7")}
		}, "[192.0.2.7]", ""},
		"IPv6 refused": {func(b *believed) {
			b.ptr = []relay.Domain{"mail.office.example"}
			delete(b.hosts, "2001:db8:7::7")
		}, "[192.0.2.7]", "IPv4, not IPv6: it took longer, or failed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := &believed{network: bothFamilies()}
				c.change(b)
				client := b.client()
				start := time.Now()
				r := b.deliver(t, client)
				if r.Outcome != relay.Delivered || !strings.Contains(r.Host, c.host) || r.Way != c.way {
					t.Errorf("%s by %s, %q; want %s, %q", r.Outcome, r.Host, r.Way, c.host, c.way)
				}
				if took := time.Since(start); took > sourceWait {
					t.Errorf("the letter waited %v", took)
				}
				client.Close()
				b.wg.Wait()
			})
		})
	}
}

// Where our address is doubted nothing is dialled by IPv6, however IPv4 fares; and the DNS is asked once an hour,
// not at every letter.
func TestDoubtedIsNotDialled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &believed{network: bothFamilies()}
		delete(b.hosts, "192.0.2.7")
		c := b.client()
		for range 3 {
			if r := b.deliver(t, c); r.Outcome != relay.Deferred {
				t.Errorf("%+v", r)
			}
		}
		for _, d := range b.dialed {
			if strings.HasPrefix(d, "[") {
				t.Errorf("dialled %s", d)
			}
		}
		if n := b.asked.Load(); n != 1 {
			t.Errorf("asked %d times", n)
		}
		// The record is mended.
		b.ptr = []relay.Domain{"mail.office.example"}
		time.Sleep(sourceBad)
		if r := b.deliver(t, c); r.Outcome != relay.Delivered || r.Way != "IPv6" {
			t.Errorf("%+v", r)
		}
		time.Sleep(sourceGood - time.Minute)
		b.deliver(t, c)
		if n := b.asked.Load(); n != 2 {
			t.Errorf("asked %d times", n)
		}
		c.Close()
		b.wg.Wait()
	})
}

// An IPv6 address that swallows packets costs a letter a third of a second, and the next ones nothing.
func TestHeadStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &believed{network: bothFamilies(), ptr: []relay.Domain{"mail.office.example"}}
		swallow := true
		c := b.network.client(func(cfg *Config) {
			cfg.Resolver = b
			cfg.Source = func(netip.Addr) netip.Addr { return addr("2001:db8::25") }
			cfg.Dial = func(ctx context.Context, local netip.Addr, to netip.AddrPort) (net.Conn, error) {
				if swallow && to.Addr().Is6() {
					<-ctx.Done()
					return nil, ctx.Err()
				}
				return b.dial(ctx, local, to)
			}
		})
		start := time.Now()
		if r := b.deliver(t, c); r.Outcome != relay.Delivered || !strings.Contains(r.Host, "[192.0.2.7]") || time.Since(start) != headStart {
			t.Errorf("after %v: %+v", time.Since(start), r)
		}
		start = time.Now()
		if r := b.deliver(t, c); r.Outcome != relay.Delivered || time.Since(start) != 0 || r.Way != "IPv4, not IPv6: 2001:db8:7::7 was slow to answer" {
			t.Errorf("after %v: %+v", time.Since(start), r)
		}
		time.Sleep(slowFor + time.Second)
		swallow = false
		if r := b.deliver(t, c); r.Way != "IPv6" {
			t.Errorf("%+v", r)
		}
		// Both swallow: the attempt ends when a connection may take no longer.
		swallow = true
		delete(b.hosts, "192.0.2.7")
		if r := b.deliver(t, c); r.Outcome != relay.Deferred || r.Reply.Status != (relay.Status{4, 4, 1}) {
			t.Errorf("%+v", r)
		}
		c.Close()
		b.wg.Wait()
	})
}
