package web_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"testing"
	"time"

	"relayd/delivery/web"
	"relayd/relay"
)

// book answers for one host.
type book struct {
	relay.Resolver
	addrs []netip.Addr
}

func (b book) Addrs(_ context.Context, host relay.Domain) ([]netip.Addr, error) {
	if host != "www.partner.example" {
		return nil, relay.ErrNoRecord
	}
	return b.addrs, nil
}

// TestDials: of the addresses that may be asked the first three are, on the port of the URL, and
// a literal is held to the same.
func TestDials(t *testing.T) {
	t.Parallel()
	var b book
	for _, a := range []string{"0.0.0.0", "::", "224.0.0.1", "ff02::1", "10.1.2.3", "192.0.2.1", "2001:db8::2", "192.0.2.3", "192.0.2.4"} {
		b.addrs = append(b.addrs, netip.MustParseAddr(a))
	}
	for url, want := range map[string][]string{
		"https://www.partner.example/":      {"192.0.2.1:443", "[2001:db8::2]:443", "192.0.2.3:443"},
		"https://WWW.partner.example.:8443": {"192.0.2.1:8443", "[2001:db8::2]:8443", "192.0.2.3:8443"},
		"https://192.0.2.9/":                {"192.0.2.9:443"},
		"https://10.1.2.3/":                 nil,
		"https://[::ffff:10.1.2.3]/":        nil,
		"https://elsewhere.example/":        nil,
	} {
		var dialled []string
		c := web.NewClient(web.Options{Timeout: time.Minute, Resolver: b,
			MayAsk: func(a netip.Addr) bool { return !a.IsPrivate() },
			Dial: func(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
				dialled = append(dialled, addr.String())
				if _, bounded := ctx.Deadline(); !bounded {
					t.Error("a dial without an end")
				}
				return nil, errors.New("nobody there")
			}})
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp, err := c.Do(req); err == nil {
			resp.Body.Close()
			t.Errorf("%s was reached", url)
		}
		if !slices.Equal(dialled, want) {
			t.Errorf("%s: dialled %q, want %q", url, dialled, want)
		}
	}
}
