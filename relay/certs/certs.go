// Package certs says where our TLS certificates come from. cmd/relayd hands ServerConfig to the
// listeners and Status to relayctl and the metrics, and runs Run, which looks after them.
//
// There are three places, in order of preference:
//
//   - the files of the config, the default pair first; whoever renews them only writes them anew;
//   - a certificate authority that speaks ACME (RFC 8555), one certificate for each name;
//   - a self-signed certificate for the host name, made at the first start, so that TLS works on
//     day one. There is none where the config has a default pair.
//
// A client that names a host (SNI, RFC 6066 §3) gets the first certificate in that order that is
// for the name, is not over and is of a kind the client can use. A client that names none, or one
// that no certificate is for, gets the default pair or, without one, what a client gets that names
// our host name: until the authority has issued a certificate, that is the self-signed one. So
// TLS is always offered, and no handshake ever waits for an authority or the disk.
//
// A renewal is seen within ten seconds. One that cannot be used leaves the old certificate in
// service and is told in the log, in Status and thereby in the metrics. Running sessions are never
// touched.
package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"relayd/relay"
)

// checkEvery is the time between two looks at where certificates come from. A renewal is to be
// seen within a minute.
const checkEvery = 10 * time.Second

// Where a certificate comes from, in Status.
const (
	FromFile       = "file"
	FromACME       = "acme"
	FromSelfSigned = "self-signed"
)

// Options say which certificates there are.
type Options struct {
	Hostname relay.Domain // what clients mean that name no host
	KeysDir  string       // the folder of keys of our own making, made where it is missing
	Default  Pair         // the zero Pair: none
	Pairs    []Pair       // more, chosen by name
	ACME     *ACME        // nil: no authority is asked
	Visitors http.Handler // answers ServeHTTP's and ServeHTTPS's visitors who bring no challenge; nil: 404
	Log      *slog.Logger
}

// Pair is a certificate chain and its key in PEM files, which may be one file.
type Pair struct{ Cert, Key string }

// Source holds the certificates in service. Its methods may be called by many goroutines.
type Source struct {
	hostname  string
	hasPair   bool // slots[0] is the default pair
	authority *authority
	log       *slog.Logger
	doors     doors

	mu    sync.RWMutex
	slots []*slot // in order of preference
}

// slot is one certificate of ours and its renewals.
type slot struct {
	from    provider
	current *tls.Certificate // Leaf is set; nil: none yet
	problem string           // why the last renewal is not in use; empty: it is
	told    urgency          // what the log has said of the end of current
}

// provider is one place certificates come from.
type provider interface {
	// load returns the certificate to serve instead of current, which is nil until there is one.
	// The same current means that nothing has changed; an error, that current must do.
	load(current *tls.Certificate, now time.Time) (*tls.Certificate, error)
	kind() string // a From constant
	name() string // of the file, or of the host
}

// Status is one certificate of ours, for people and metrics.
type Status struct {
	From     string // FromFile, FromACME or FromSelfSigned
	File     string // of FromFile and FromSelfSigned
	Names    []string
	NotAfter time.Time // zero: there is none yet
	Problem  string    // why a renewal is not in use
}

// New opens the pairs of o and makes the self-signed certificate where one is needed and there is
// none. Errors name the file. Whether an authority can be reached shows only in Run.
func New(o Options) (*Source, error) {
	log := o.Log.With("room", "certs")
	s := &Source{hostname: string(o.Hostname), hasPair: o.Default != Pair{}, log: log}
	add := func(from provider) { s.slots = append(s.slots, &slot{from: from}) }
	if s.hasPair {
		add(&files{Pair: o.Default})
	}
	for _, p := range o.Pairs {
		add(&files{Pair: p})
	}
	if o.ACME != nil {
		s.authority = newAuthority(*o.ACME, o.KeysDir, log)
		for _, name := range s.authority.names(o.Hostname) {
			add(s.authority.order(name, s.hasFile))
		}
	}
	if !s.hasPair {
		add(&selfSigned{hostname: o.Hostname, dir: o.KeysDir, log: log})
	}
	s.doors.init(s, o.Visitors)
	now := time.Now()
	for _, slot := range s.slots {
		cert, err := slot.from.load(nil, now)
		if err != nil {
			return nil, fmt.Errorf("certs: %w", err)
		}
		slot.current = cert
	}
	s.warnOfName()
	return s, nil
}

// warnOfName logs that clients which check certificates will not like ours.
func (s *Source) warnOfName() {
	c := s.choose(&tls.ClientHelloInfo{})
	if err := c.Leaf.VerifyHostname(s.hostname); err != nil {
		s.log.Warn("the certificate is not for our host name", "file", s.slots[0].from.name(), "err", err)
	}
}

// Run renews certificates until ctx ends.
func (s *Source) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	var news <-chan struct{}
	if s.authority != nil {
		news = s.authority.news
		wg.Go(func() { s.authority.run(ctx) })
	}
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		s.look(time.Now())
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-news:
		}
	}
}

// look asks every provider for something newer. Only Run and tests call it, so that no two of
// them are under way; handshakes go on meanwhile.
func (s *Source) look(now time.Time) {
	for _, slot := range s.slots {
		cert, err := slot.from.load(slot.current, now)
		if err != nil {
			s.keep(slot, err)
		} else {
			s.renew(slot, cert)
		}
		if slot.current != nil {
			s.remind(slot, now)
		}
	}
}

// keep says once why the old certificate stays.
func (s *Source) keep(slot *slot, err error) {
	if slot.problem == err.Error() {
		return
	}
	s.mu.Lock()
	slot.problem = err.Error()
	s.mu.Unlock()
	if slot.current == nil {
		s.log.Error("there is no certificate yet", "from", slot.from.kind(), "name", slot.from.name(), "err", err)
		return
	}
	s.log.Error("the new certificate cannot be used; the old one stays", "from", slot.from.kind(), "name", slot.from.name(),
		"not_after", slot.current.Leaf.NotAfter, "err", err)
}

// renew puts cert in service, which may be there already.
func (s *Source) renew(slot *slot, cert *tls.Certificate) {
	switch {
	case cert != slot.current:
		s.log.Info("a new certificate is in service", "from", slot.from.kind(), "name", slot.from.name(),
			"names", names(cert.Leaf), "not_after", cert.Leaf.NotAfter)
		slot.told = 0
	case slot.problem != "":
		s.log.Info("the certificate is in order again", "from", slot.from.kind(), "name", slot.from.name())
	default:
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	slot.current, slot.problem = cert, ""
}

// urgency is how near the end of a certificate is.
type urgency int

const (
	soon urgency = iota + 1
	over
)

// soonBefore is when whoever renews a certificate should have done so long ago: 30 days before the
// end is usual, a third of its time for one that lasts less than 90 days.
const soonBefore = 7 * 24 * time.Hour

// remind says once that the certificate in service ends soon, and once that it is over.
func (s *Source) remind(slot *slot, now time.Time) {
	leaf := slot.current.Leaf
	left := leaf.NotAfter.Sub(now)
	what := urgency(0)
	switch {
	case left < 0:
		what = over
	case left < min(soonBefore, leaf.NotAfter.Sub(leaf.NotBefore)/6):
		what = soon
	}
	if what <= slot.told {
		return
	}
	slot.told = what
	text := "the certificate ends soon"
	if what == over {
		text = "the certificate has expired"
	}
	s.log.Warn(text, "from", slot.from.kind(), "name", slot.from.name(), "not_after", leaf.NotAfter)
}

// Status describes the certificates: those in service and those an authority still owes us.
func (s *Source) Status() []Status {
	now := time.Now()
	s.mu.RLock()
	defer s.mu.RUnlock()
	var all []Status
	for _, slot := range s.slots {
		st := Status{From: slot.from.kind(), Problem: slot.problem}
		switch c := slot.current; {
		case c != nil:
			st.Names, st.NotAfter = names(c.Leaf), c.Leaf.NotAfter
		case s.covered(slot.from.name(), now):
			continue // nothing is owed
		default:
			st.Names = []string{slot.from.name()}
		}
		if st.From != FromACME {
			st.File = slot.from.name()
		}
		if st.From == FromSelfSigned && len(all) > 0 && s.covered(s.hostname, now) {
			continue // nobody gets it
		}
		all = append(all, st)
	}
	return all
}

// covered says whether a file or an authority has given us a certificate for name that is good
// now. The caller holds mu.
func (s *Source) covered(name string, now time.Time) bool {
	for _, slot := range s.slots {
		if slot.from.kind() != FromSelfSigned && slot.current != nil && isGood(slot.current, now) &&
			slot.current.Leaf.VerifyHostname(name) == nil {
			return true
		}
	}
	return false
}

// hasFile says whether a file has a certificate for name that is good now, so that no authority
// need be asked.
func (s *Source) hasFile(name string, now time.Time) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, slot := range s.slots {
		if slot.from.kind() == FromFile && slot.current != nil && isGood(slot.current, now) && slot.current.Leaf.VerifyHostname(name) == nil {
			return true
		}
	}
	return false
}

func isGood(c *tls.Certificate, now time.Time) bool {
	return !now.After(c.Leaf.NotAfter) && !now.Before(c.Leaf.NotBefore)
}

func names(leaf *x509.Certificate) []string {
	all := append([]string{}, leaf.DNSNames...)
	for _, ip := range leaf.IPAddresses {
		all = append(all, ip.String())
	}
	return all
}

// pair makes a certificate of PEM texts, leaf parsed.
func pair(cert, key []byte) (*tls.Certificate, error) {
	c, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	if c.Leaf == nil {
		c.Leaf, err = x509.ParseCertificate(c.Certificate[0])
	}
	return &c, err
}
