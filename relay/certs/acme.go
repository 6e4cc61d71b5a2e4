package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"

	"relayd/relay"
)

// ACME says which certificate authority to ask and for what (RFC 8555).
type ACME struct {
	Directory string         // the URL of its directory
	Email     string         // where it may write to; may be empty
	Names     []relay.Domain // beside the host name, one certificate each
	// HTTP and TLS say which challenges the authority will find us to answer, on port 80
	// (http-01, RFC 8555 §8.3) and on port 443 (tls-alpn-01, RFC 8737).
	HTTP, TLS bool
}

// retries are the waits after failures; the last one repeats. Let's Encrypt allows five failed
// validations of a name in an hour, and an attempt makes up to two.
var retries = [...]time.Duration{5 * time.Minute, time.Hour, time.Hour, 2 * time.Hour, 4 * time.Hour}

// authority orders certificates with autocert. autocert would order in the middle of a client's
// handshake and let it wait; here it is asked by run alone, and handshakes take what is there. It
// renews by timers of its own, when a third of a certificate's time, or 30 days, are left.
type authority struct {
	ACME
	manager *autocert.Manager
	wire    *acmeWire
	log     *slog.Logger
	orders  []*order
	news    chan struct{} // an order has something to load
}

func newAuthority(c ACME, keys string, log *slog.Logger) *authority {
	a := &authority{ACME: c, log: log, wire: newACMEWire(c, log), news: make(chan struct{}, 1)}
	a.manager = &autocert.Manager{
		Prompt: autocert.AcceptTOS, // the operator did, by tls.acme = true
		Cache:  cache(filepath.Join(keys, "acme", folderName(c.Directory))),
		Email:  c.Email,
		HostPolicy: func(_ context.Context, host string) error {
			if name, _, err := net.SplitHostPort(host); err == nil {
				host = name
			}
			if !slices.ContainsFunc(a.orders, func(o *order) bool { return strings.EqualFold(o.host, host) }) {
				return errNotOurs
			}
			return nil
		},
		Client: &acme.Client{DirectoryURL: c.Directory, HTTPClient: &http.Client{Transport: a.wire}, UserAgent: "relayd",
			RetryBackoff: a.wire.backoff},
	}
	return a
}

var errNotOurs = errors.New("not a name of ours")

// names are those to order certificates for.
func (a *authority) names(hostname relay.Domain) []string {
	all := []string{string(hostname)}
	for _, n := range a.Names {
		if !slices.Contains(all, string(n)) {
			all = append(all, string(n))
		}
	}
	return all
}

// order is the provider of one name's certificate. hasFile says that a file has one, so that
// nothing need be ordered.
func (a *authority) order(host string, hasFile func(string, time.Time) bool) *order {
	o := &order{host: host, hasFile: hasFile, authority: a}
	a.orders = append(a.orders, o)
	return o
}

// run orders what is missing and takes over what was renewed, until ctx ends. An attempt under
// way ends soon after.
func (a *authority) run(ctx context.Context) {
	defer a.wire.inner.CloseIdleConnections()
	stop := context.AfterFunc(ctx, a.wire.stop)
	defer stop()
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		for _, o := range a.orders {
			if ctx.Err() == nil {
				o.attempt()
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// order is the certificate for one name.
type order struct {
	host      string
	hasFile   func(string, time.Time) bool
	authority *authority
	failures  int       // only attempt uses it
	due       time.Time // the next attempt, while there is no certificate

	mu   sync.Mutex
	cert *tls.Certificate
	err  error
}

func (o *order) kind() string { return FromACME }
func (o *order) name() string { return o.host }

// load takes what attempt has got. At the start it is what was kept, so that a restart shows
// clients the same certificate.
func (o *order) load(current *tls.Certificate, now time.Time) (*tls.Certificate, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if current == nil && o.cert == nil && o.err == nil {
		o.cert = o.kept()
	}
	if o.err != nil {
		return nil, o.err
	}
	return o.cert, nil
}

// kept is the certificate in the cache, if there is a whole one. autocert looks at it once more.
func (o *order) kept() *tls.Certificate {
	text, err := o.authority.manager.Cache.Get(context.Background(), o.host)
	if err != nil {
		return nil
	}
	c, err := pair(text, text)
	if err != nil {
		o.authority.log.Error("a kept certificate cannot be read; a new one will be ordered", "name", o.host, "err", err)
		return nil
	}
	return c
}

// attempt orders the certificate if it is missing and time has come, or looks whether autocert
// has renewed it.
func (o *order) attempt() {
	now := time.Now()
	if now.Before(o.due) || o.hasFile(o.host, now) {
		return
	}
	wire := o.authority.wire
	cert, err := o.authority.manager.GetCertificate(&tls.ClientHelloInfo{
		ServerName: o.host, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
		SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256}, SupportedCurves: []tls.CurveID{tls.CurveP256},
	})
	cause := wire.problem(o.host)
	switch {
	case err != nil:
		o.due = now.Add(retries[min(o.failures, len(retries)-1)])
		o.failures++
		// autocert's own words are then that no challenge was left to try.
		if cause != "" {
			err = errors.New(cause)
		}
		err = fmt.Errorf("%w; next attempt %s", err, o.due.Format(time.RFC3339))
	case cause != "" && ends(cert, now):
		err = errors.New(cause)
	case o.waits(cert, now):
		return
	default:
		o.failures, o.due = 0, time.Time{}
	}
	o.set(cert, err)
}

// ends says whether a certificate is in the last third of its time, so that autocert is at work
// on its renewal.
func ends(c *tls.Certificate, now time.Time) bool {
	life := c.Leaf.NotAfter.Sub(c.Leaf.NotBefore)
	return now.After(c.Leaf.NotAfter.Add(-min(life/3, 30*24*time.Hour)))
}

// waits says whether a renewal has failed and not been made up for.
func (o *order) waits(c *tls.Certificate, now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err != nil && o.cert != nil && bytes.Equal(c.Certificate[0], o.cert.Certificate[0]) && ends(c, now)
}

// set hands the outcome of an attempt to load and wakes who calls it.
func (o *order) set(cert *tls.Certificate, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case o.authority.news <- struct{}{}:
	default:
	}
	o.err = err
	if cert != nil && (o.cert == nil || !bytes.Equal(cert.Certificate[0], o.cert.Certificate[0])) {
		o.cert = cert
	}
}

// cache is a folder for autocert: the account's key, certificates with their keys, and the answers
// to challenges while they are under way. Each authority has one of its own: a certificate of the
// one for tests must not be served once the other is asked.
type cache string

// folderName makes a name for files of an authority's URL.
func folderName(directory string) string {
	_, name, _ := strings.Cut(directory, "://")
	return strings.Map(func(r rune) rune {
		if r == '.' || r == '-' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return '_'
	}, name)
}

// path is that of a key of autocert's. A part of it may come from a stranger's URL.
func (c cache) path(key string) (string, error) {
	if !filepath.IsLocal(key) || strings.ContainsAny(key, "/\x00") || strings.HasPrefix(key, ".") || len(key) > 255 {
		return "", fs.ErrInvalid
	}
	return filepath.Join(string(c), key), nil
}

// Get, Put and Delete are for autocert.Cache.
func (c cache) Get(_ context.Context, key string) ([]byte, error) {
	name, err := c.path(key)
	if err != nil {
		return nil, autocert.ErrCacheMiss
	}
	data, err := readFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, autocert.ErrCacheMiss
	}
	return data, err
}

func (c cache) Put(_ context.Context, key string, data []byte) error {
	name, err := c.path(key)
	if err != nil {
		return err
	}
	return writeFile(name, data)
}

func (c cache) Delete(_ context.Context, key string) error {
	name, err := c.path(key)
	if err != nil {
		return err
	}
	if err := os.Remove(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
