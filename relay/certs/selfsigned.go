package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"time"

	"relayd/relay"
)

const (
	// Clients distrust server certificates that last longer than 825 days.
	lifetime = 730 * 24 * time.Hour
	// A new one is made this long before the end.
	margin = 30 * 24 * time.Hour
	// The clock of a machine that was just set up, or of its client, may be off.
	tolerance = 24 * time.Hour
)

// selfSigned is an ECDSA P-256 certificate of our own, in one file with its key so that a crash
// cannot leave a pair that does not match. A new certificate keeps the key, because people's mail
// programs and TLSA records (RFC 6698, 3 1 1) may remember it.
type selfSigned struct {
	hostname relay.Domain
	dir      string
	log      *slog.Logger
}

func (s *selfSigned) kind() string { return FromSelfSigned }
func (s *selfSigned) name() string { return filepath.Join(s.dir, "self-signed.pem") }

func (s *selfSigned) load(current *tls.Certificate, now time.Time) (*tls.Certificate, error) {
	if current == nil {
		kept, err := s.read()
		if err != nil {
			return nil, err
		}
		current = kept
	}
	if current != nil && s.good(current, now) {
		return current, nil
	}
	var key crypto.Signer
	if current != nil {
		key, _ = current.PrivateKey.(crypto.Signer)
	}
	return s.remake(key, now)
}

// good says whether a certificate will do for some time yet.
func (s *selfSigned) good(c *tls.Certificate, now time.Time) bool {
	return slices.Contains(c.Leaf.DNSNames, string(s.hostname)) &&
		now.Add(margin).Before(c.Leaf.NotAfter) && now.After(c.Leaf.NotBefore)
}

// read returns the certificate kept in the file; nil where there is none. A file that cannot be
// read as one is set aside: it may hold a key that somebody wants back.
func (s *selfSigned) read() (*tls.Certificate, error) {
	text, err := readFile(s.name())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	c, err := pair(text, text)
	if err == nil {
		return c, nil
	}
	aside := s.name() + ".broken"
	s.log.Error("the self-signed certificate is broken; it is set aside and a new one made",
		"file", s.name(), "aside", aside, "err", err)
	return nil, os.Rename(s.name(), aside)
}

// remake makes and keeps a certificate for key, or for a new key if that is nil.
func (s *selfSigned) remake(key crypto.Signer, now time.Time) (*tls.Certificate, error) {
	if key == nil {
		made, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		key = made
	}
	text, err := s.encode(key, now)
	if err != nil {
		return nil, fmt.Errorf("make a certificate for %s: %w", s.hostname, err)
	}
	if err := writeFile(s.name(), text); err != nil {
		return nil, err
	}
	return pair(text, text)
}

// encode signs a certificate with key and returns both in PEM.
func (s *selfSigned) encode(key crypto.Signer, now time.Time) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		DNSNames:              []string{string(s.hostname)},
		NotBefore:             now.Add(-tolerance),
		NotAfter:              now.Add(lifetime),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	// A common name has 64 characters at most (RFC 5280, appendix A.1); a host name may have more.
	if len(s.hostname) <= 64 {
		template.Subject = pkix.Name{CommonName: string(s.hostname)}
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
	return append(text, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})...), nil
}
