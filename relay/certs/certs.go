// Package certs says where our TLS certificates come from: from the files of the config, or from
// a self-signed certificate made at the first start, so that TLS works on day one. cmd/relayd
// hands ServerConfig to the listeners and Status to relayctl and the metrics.
//
// There is no goroutine: whether the files have changed or the certificate must be remade is
// looked at when a client connects, at most every ten seconds. A renewal that cannot be used
// leaves the old pair in service. Running sessions are never touched.
package certs

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"relayd/relay"
)

// checkEvery is how long a look at the files is good for. A renewal is to be seen within a minute.
const checkEvery = 10 * time.Second

// Source holds the certificate in service. Its methods may be called by many goroutines.
type Source struct {
	from provider
	log  *slog.Logger

	mu      sync.Mutex
	current *tls.Certificate // Leaf is set
	checked time.Time
	problem string // why the last renewal was not used; empty: it was
}

// provider is one place certificates come from.
type provider interface {
	// load returns the certificate to serve instead of current, which is nil at the start. The
	// same current means that nothing has changed; an error, that current must do.
	load(current *tls.Certificate, now time.Time) (*tls.Certificate, error)
	name() string
}

// Status is the certificate in service, for people and metrics.
type Status struct {
	From     string    `json:"from"` // the file, or the self-signed one
	Names    []string  `json:"names"`
	NotAfter time.Time `json:"not_after"`
	Problem  string    `json:"problem,omitzero"` // why a renewal is not in use
}

// New opens the pair certFile and keyFile or, if both are empty, the self-signed certificate for
// hostname in keysDir, which it makes where there is none. Errors name the file.
func New(hostname relay.Domain, keysDir, certFile, keyFile string, log *slog.Logger) (*Source, error) {
	s := &Source{log: log}
	if certFile != "" || keyFile != "" {
		s.from = &files{cert: certFile, key: keyFile}
	} else {
		s.from = &selfSigned{hostname: hostname, dir: keysDir, log: log}
	}
	now := time.Now()
	cert, err := s.from.load(nil, now)
	if err != nil {
		return nil, fmt.Errorf("certs: %w", err)
	}
	s.current, s.checked = cert, now
	s.warn(hostname, now)
	return s, nil
}

// warn logs what clients that check certificates will not like.
func (s *Source) warn(hostname relay.Domain, now time.Time) {
	leaf := s.current.Leaf
	if err := leaf.VerifyHostname(string(hostname)); err != nil {
		s.log.Warn("the certificate is not for our host name", "file", s.from.name(), "err", err)
	}
	if now.After(leaf.NotAfter) {
		s.log.Warn("the certificate has expired", "file", s.from.name(), "not_after", leaf.NotAfter)
	}
}

// GetCertificate is for tls.Config. Every client gets the one certificate, also one that names
// another host or none.
func (s *Source) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return s.fresh(), nil
}

// ServerConfig makes a configuration for a listener: TLS 1.2 and later, Go's choice of ciphers.
func (s *Source) ServerConfig() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: s.GetCertificate}
}

// Expiry is when the certificate in service ends.
func (s *Source) Expiry() time.Time { return s.fresh().Leaf.NotAfter }

// Status describes the certificate in service.
func (s *Source) Status() Status {
	leaf := s.fresh().Leaf
	s.mu.Lock()
	defer s.mu.Unlock()
	return Status{From: s.from.name(), Names: names(leaf), NotAfter: leaf.NotAfter, Problem: s.problem}
}

func names(leaf *x509.Certificate) []string {
	all := append([]string{}, leaf.DNSNames...)
	for _, ip := range leaf.IPAddresses {
		all = append(all, ip.String())
	}
	return all
}

// fresh is the certificate to serve now.
func (s *Source) fresh() *tls.Certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	// A clock that was set back must not stop the looking.
	if d := now.Sub(s.checked); d >= 0 && d < checkEvery {
		return s.current
	}
	s.checked = now
	cert, err := s.from.load(s.current, now)
	if err != nil {
		s.keep(err)
		return s.current
	}
	switch {
	case cert != s.current:
		s.log.Info("the certificate was renewed", "file", s.from.name(), "not_after", cert.Leaf.NotAfter)
	case s.problem != "":
		s.log.Info("the certificate's files are in order again", "file", s.from.name())
	}
	s.current, s.problem = cert, ""
	return cert
}

// keep logs once why the old certificate stays.
func (s *Source) keep(err error) {
	if s.problem == err.Error() {
		return
	}
	s.problem = err.Error()
	s.log.Error("the new certificate cannot be used; the old one stays", "file", s.from.name(),
		"not_after", s.current.Leaf.NotAfter, "err", err)
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
