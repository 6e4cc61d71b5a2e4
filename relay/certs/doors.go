package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/net/netutil"
)

// doors are the HTTP servers where an authority sees that a name is ours: plain on port 80,
// secure on port 443. They answer its challenges; everything else is for Options.Visitors, or 404.
type doors struct{ plain, secure *http.Server }

// maxVisitors bounds the connections of one door; others wait.
const maxVisitors = 64

func (d *doors) init(s *Source, visitors http.Handler) {
	if visitors == nil {
		visitors = http.NotFoundHandler()
	}
	handler := visitors
	// The first call tells autocert to try http-01 at all, so it belongs before the first order.
	if s.authority != nil && s.authority.HTTP {
		handler = s.authority.manager.HTTPHandler(handler)
	}
	newServer := func(h http.Handler) *http.Server {
		return &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 10 * time.Second,
			WriteTimeout: 10 * time.Second, IdleTimeout: 10 * time.Second, MaxHeaderBytes: 8 << 10,
			ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug)}
	}
	d.plain, d.secure = newServer(handler), newServer(visitors)
}

// ServeHTTP answers http-01 challenges on ln, which is port 80 for the world, until Shutdown; then
// it returns nil.
func (s *Source) ServeHTTP(ctx context.Context, ln net.Listener) error {
	return visit(ctx, s.doors.plain, netutil.LimitListener(ln, maxVisitors))
}

// ServeHTTPS answers tls-alpn-01 challenges on ln, which is port 443 for the world, until
// Shutdown; then it returns nil.
func (s *Source) ServeHTTPS(ctx context.Context, ln net.Listener) error {
	// TLS is outermost, so that visitors' handlers can tell it (http.Request.TLS).
	return visit(ctx, s.doors.secure, tls.NewListener(netutil.LimitListener(ln, maxVisitors), s.challengeConfig()))
}

// challengeConfig shows the certificate that answers a challenge to whoever speaks acme-tls/1 and
// nothing else (RFC 8737 §3), and the one in service to everybody else.
func (s *Source) challengeConfig() *tls.Config {
	c := s.ServerConfig()
	c.NextProtos = []string{"http/1.1"}
	if s.authority == nil || !s.authority.TLS {
		return c
	}
	c.NextProtos = append(c.NextProtos, acme.ALPNProto)
	c.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if slices.Equal(hello.SupportedProtos, []string{acme.ALPNProto}) {
			return s.authority.manager.GetCertificate(hello)
		}
		return s.choose(hello), nil
	}
	return c
}

func visit(ctx context.Context, srv *http.Server, ln net.Listener) error {
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	err := srv.Serve(ln)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("certs: serve %s: %w", ln.Addr(), err)
}

// Shutdown closes the doors; visitors get until ctx ends.
func (s *Source) Shutdown(ctx context.Context) {
	var wg sync.WaitGroup
	for _, srv := range []*http.Server{s.doors.plain, s.doors.secure} {
		wg.Go(func() {
			if srv.Shutdown(ctx) != nil {
				srv.Close()
			}
		})
	}
	wg.Wait()
}
