package certs

import (
	"crypto/tls"
	"strings"
	"time"
)

// ServerConfig makes a configuration for a listener: TLS 1.2 and 1.3 (RFC 9325 §3.1.1) and, in
// TLS 1.2, only suites with forward secrecy and authenticated encryption (RFC 9325 §4.2), which
// are those of TLS 1.3 as well. Go's server never renegotiates and says so (RFC 5746).
//
// Session tickets are off. The mail servers of Microsoft drop a connection on which a ticket
// comes right behind the handshake of TLS 1.3, as Go sends it, do not fall back, and tell the
// writer of "Security status Renegotiate" (golang/go#70232, albertito/chasquid#64): their mail would
// never arrive. What others lose is a millisecond of signing in each session.
func (s *Source) ServerConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		CipherSuites: []uint16{
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
		SessionTicketsDisabled: true,
		GetCertificate:         s.GetCertificate,
	}
}

// GetCertificate is for tls.Config. It never fails and never waits.
func (s *Source) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return s.choose(hello), nil
}

func (s *Source) choose(hello *tls.ClientHelloInfo) *tls.Certificate {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var fit []*tls.Certificate
	if name := strings.ToLower(hello.ServerName); name != "" {
		fit = s.matching(name)
	}
	if len(fit) == 0 {
		if s.hasPair {
			fit = append(fit, s.slots[0].current)
		}
		fit = append(fit, s.matching(s.hostname)...)
	}
	if len(fit) == 0 {
		fit = append(fit, s.slots[len(s.slots)-1].current)
	}
	return best(fit, hello, time.Now())
}

// matching are the certificates for a name in order of preference.
func (s *Source) matching(name string) []*tls.Certificate {
	var fit []*tls.Certificate
	for _, slot := range s.slots {
		if slot.current != nil && slot.current.Leaf.VerifyHostname(name) == nil {
			fit = append(fit, slot.current)
		}
	}
	return fit
}

// best is the first certificate that is not over and that the client can use; failing that, the
// first it can use: most mail servers do not look at the date (RFC 7435); failing that, the first.
func best(fit []*tls.Certificate, hello *tls.ClientHelloInfo, now time.Time) *tls.Certificate {
	var usable *tls.Certificate
	for _, c := range fit {
		if len(fit) > 1 && hello.SupportsCertificate(c) != nil {
			continue
		}
		if isGood(c, now) {
			return c
		}
		if usable == nil {
			usable = c
		}
	}
	if usable == nil {
		return fit[0]
	}
	return usable
}
