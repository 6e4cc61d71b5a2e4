// Package web asks web servers that other domains name: delivery/mtasts for a policy, delivery/tlsrpt
// to leave a report. Who names them is a stranger, so that a client follows no redirects, knows no
// proxy, asks our own resolver where they are, and bounds all it waits for.
package web

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"relayd/relay"
)

// Bounds of an exchange, beside Options.Timeout.
const (
	dialTimeout = 8 * time.Second // one address
	maxAddrs    = 3
	maxHeader   = 16 << 10
)

// Options say how a client works. Timeout, Resolver and MayAsk are required.
type Options struct {
	Timeout  time.Duration // of a whole exchange
	Resolver relay.Resolver
	Roots    *x509.CertPool // nil: the system's
	// MayAsk says whether a server may be at an address. Unspecified and multicast ones are never asked.
	MayAsk func(netip.Addr) bool
	// Dial makes the TCP connection to one; nil: it does.
	Dial func(ctx context.Context, addr netip.AddrPort) (net.Conn, error)
}

// NewClient makes an HTTPS client. It checks certificates, and keeps no connection after an exchange.
func NewClient(o Options) *http.Client {
	if o.Dial == nil {
		o.Dial = func(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", addr.String())
		}
	}
	return &http.Client{
		Timeout:       o.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext:            o.dialHost,
			TLSClientConfig:        &tls.Config{RootCAs: o.Roots, MinVersion: tls.VersionTLS12},
			MaxResponseHeaderBytes: maxHeader,
			DisableKeepAlives:      true,
			DisableCompression:     true,
		},
	}
}

func (o *Options) dialHost(ctx context.Context, _, address string) (net.Conn, error) {
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return nil, err
	}
	addrs, err := o.addrs(ctx, host)
	if err != nil {
		return nil, err
	}
	err = errors.New("it has no address that may be asked")
	tried := 0
	for _, a := range addrs {
		if a.IsUnspecified() || a.IsMulticast() || !o.MayAsk(a) || tried == maxAddrs {
			continue
		}
		tried++
		var c net.Conn
		if c, err = o.dialOne(ctx, netip.AddrPortFrom(a, uint16(port))); err == nil {
			return c, nil
		}
	}
	return nil, err
}

func (o *Options) addrs(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a.Unmap()}, nil
	}
	d, err := relay.ParseDomain(host)
	if err != nil {
		return nil, err
	}
	return o.Resolver.Addrs(ctx, d)
}

func (o *Options) dialOne(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	return o.Dial(ctx, addr)
}
