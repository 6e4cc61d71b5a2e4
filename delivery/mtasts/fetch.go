package mtasts

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"time"

	"relayd/relay"
)

// Bounds of a fetch.
const (
	fetchTimeout = 30 * time.Second
	dialTimeout  = 8 * time.Second // one address
	maxAddrs     = 3
	maxHeader    = 16 << 10
)

// newClient makes an HTTPS client that asks our own resolver, follows no redirects (RFC 8461
// §3.3: who could answer one could answer for the domain) and knows no proxy.
func (s *Store) newClient() *http.Client {
	return &http.Client{
		Timeout:       fetchTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext:            s.dialHost,
			TLSClientConfig:        &tls.Config{RootCAs: s.o.Roots, MinVersion: tls.VersionTLS12},
			MaxResponseHeaderBytes: maxHeader,
			DisableKeepAlives:      true,
			DisableCompression:     true,
		},
	}
}

func (s *Store) dialHost(ctx context.Context, _, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	addrs, err := s.o.Resolver.Addrs(ctx, relay.Domain(host))
	if err != nil {
		return nil, err
	}
	err = errors.New("it has no address that may be asked")
	tried := 0
	for _, a := range addrs {
		if a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() && !s.o.AllowLoopback || tried == maxAddrs {
			continue
		}
		tried++
		var c net.Conn
		if c, err = s.dialOne(ctx, netip.AddrPortFrom(a, 443)); err == nil {
			return c, nil
		}
	}
	return nil, err
}

func (s *Store) dialOne(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	return s.o.Dial(ctx, addr)
}

// errInvalid is of a policy that was fetched and says nothing that can be followed.
var errInvalid = errors.New("it is no policy")

// get asks the policy host of d.
func (s *Store) get(ctx context.Context, d relay.Domain) (policy, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://mta-sts."+string(d)+"/.well-known/mta-sts.txt", nil)
	if err != nil {
		return policy{}, err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return policy{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return policy{}, fmt.Errorf("the web server answers %d", resp.StatusCode)
	}
	if kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || kind != "text/plain" {
		return policy{}, fmt.Errorf("it is of type %.40q, not text/plain", resp.Header.Get("Content-Type"))
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		return policy{}, err
	}
	if len(text) > maxBody {
		return policy{}, fmt.Errorf("it is longer than %d octets", maxBody)
	}
	p, err := parse(string(text))
	if err != nil {
		return policy{}, fmt.Errorf("%w: %w", errInvalid, err)
	}
	return p, nil
}
