package certs_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"relayd/relay/certs"
)

// pairOf writes a pair for name into dir.
func pairOf(t testing.TB, dir, file, name string, life time.Duration) certs.Pair {
	t.Helper()
	cert, key := made(t, name, life)
	path := filepath.Join(dir, file+".pem")
	write(t, path, append(cert, key...))
	return certs.Pair{Cert: path, Key: path}
}

// shown is the file whose certificate a client gets that asks for sni.
func shown(t testing.TB, s *certs.Source, c *tls.Config, dir string) string {
	t.Helper()
	c.InsecureSkipVerify = true
	state, err := shake(t, s, c)
	if err != nil {
		t.Fatalf("%s: %v", c.ServerName, err)
	}
	paths, _ := filepath.Glob(filepath.Join(dir, "*.pem"))
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
			if bytes.Equal(block.Bytes, state.PeerCertificates[0].Raw) {
				return strings.TrimSuffix(filepath.Base(path), ".pem")
			}
		}
	}
	return "none of them"
}

// The name a client asks for chooses the pair; a client that asks for none, or for somebody
// else's, gets the default pair.
func TestPairsByName(t *testing.T) {
	t.Parallel()
	dir, day := t.TempDir(), 24*time.Hour
	pairs := []certs.Pair{
		pairOf(t, dir, "pop", "pop.office.example", day),
		pairOf(t, dir, "over", "old.office.example", -time.Hour), // the next one is better
		pairOf(t, dir, "old", "old.office.example", day),
		pairOf(t, dir, "all", "*.branch.example", day),
		pairOf(t, dir, "dead", "dead.example", -time.Hour), // better than somebody else's
		pairOf(t, dir, "second", string(host), day),
	}
	o := certs.Options{Hostname: host, KeysDir: dir, Default: pairOf(t, dir, "default", string(host), day), Pairs: pairs, Log: silent}
	s := openWith(t, o)
	for sni, want := range map[string]string{
		"": "default", string(host): "default", "POP.office.example": "pop", "old.office.example": "old", "mx.branch.example": "all",
		"dead.example": "dead", "elsewhere.example": "default", "a.b.branch.example": "default",
	} {
		if got := shown(t, s, &tls.Config{ServerName: sni}, dir); got != want {
			t.Errorf("%q: shown %s, want %s", sni, got, want)
		}
	}
	if exists(filepath.Join(dir, "self-signed.pem")) {
		t.Error("a self-signed certificate was made beside a default pair")
	}
	// Without a default pair a client that names nobody means the host name.
	o.Default = certs.Pair{}
	s = openWith(t, o)
	for sni, want := range map[string]string{"": "second", "elsewhere.example": "second", "pop.office.example": "pop"} {
		if got := shown(t, s, &tls.Config{ServerName: sni}, dir); got != want {
			t.Errorf("without a default pair, %q: shown %s, want %s", sni, got, want)
		}
	}
	o.Pairs = pairs[:1]
	s = openWith(t, o)
	for sni, want := range map[string]string{"": "self-signed", string(host): "self-signed", "elsewhere.example": "self-signed", "pop.office.example": "pop"} {
		if got := shown(t, s, &tls.Config{ServerName: sni}, dir); got != want {
			t.Errorf("with another's pair alone, %q: shown %s, want %s", sni, got, want)
		}
	}
	if st := s.Status(); len(st) != 2 || st[0].From != certs.FromFile || st[1].From != certs.FromSelfSigned {
		t.Errorf("status %+v", st)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Old clients that know only RSA get an RSA pair where there is one for the name.
func TestPairByKindOfKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{string(host)}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "rsa.pem")
	write(t, path, append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})...))
	s := openWith(t, certs.Options{Hostname: host, KeysDir: dir, Default: pairOf(t, dir, "default", string(host), time.Hour),
		Pairs: []certs.Pair{{Cert: path, Key: path}}, Log: silent})
	onlyRSA := []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	for _, sni := range []string{"", string(host)} {
		if got := shown(t, s, &tls.Config{ServerName: sni, MaxVersion: tls.VersionTLS12, CipherSuites: onlyRSA}, dir); got != "rsa" {
			t.Errorf("%q: a client of RSA is shown %s", sni, got)
		}
		if got := shown(t, s, &tls.Config{ServerName: sni}, dir); got != "default" {
			t.Errorf("%q: a client of today is shown %s", sni, got)
		}
	}
}

// Each pair is renewed by itself, and one that is broken is named.
func TestPairsAreReloaded(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		pop, web := pairOf(t, dir, "pop", "pop.office.example", 90*24*time.Hour), pairOf(t, dir, "web", "www.office.example", 90*24*time.Hour)
		s := openWith(t, certs.Options{Hostname: host, KeysDir: dir, Pairs: []certs.Pair{pop, web}, Log: silent})
		run(t, s)
		write(t, pop.Cert, []byte("garbage"))
		pairOf(t, dir, "web", "www.office.example", 180*24*time.Hour)
		time.Sleep(time.Minute)
		if got := shown(t, s, &tls.Config{ServerName: "www.office.example"}, dir); got != "web" {
			t.Errorf("after a renewal www is shown %s", got)
		}
		if got := shown(t, s, &tls.Config{ServerName: "pop.office.example"}, dir); got != "none of them" {
			t.Errorf("after a broken renewal pop is shown %s, not what it was shown before", got)
		}
		if st := s.Status(); !strings.Contains(st[0].Problem, pop.Cert) || st[1].Problem != "" || time.Until(st[1].NotAfter) < 100*24*time.Hour {
			t.Errorf("status %+v", st)
		}
	})
}

// The log tells of a certificate that nobody renews, a week before its end and at its end.
func TestEndIsTold(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var log buffer
		s := openWith(t, certs.Options{Hostname: host, KeysDir: dir, Default: pairOf(t, dir, "default", string(host), 8*24*time.Hour),
			Log: slog.New(slog.NewTextHandler(&log, nil))})
		run(t, s)
		for _, c := range []struct {
			hours time.Duration
			lines int
		}{{23, 0}, {2, 1}, {6 * 24, 1}, {24, 2}, {24, 2}} {
			time.Sleep(c.hours * time.Hour)
			if n := strings.Count(log.String(), "\n"); n != c.lines {
				t.Errorf("%d lines in the log, want %d:\n%s", n, c.lines, log.String())
			}
		}
	})
}

// No tickets: Microsoft's mail servers hang up on them. And only suites with forward secrecy and
// authenticated encryption, in TLS 1.2 too.
func TestServerConfig(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), "", "")
	tickets := &countingCache{}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for range 2 {
			state, err := shake(t, s, &tls.Config{ServerName: string(host), InsecureSkipVerify: true, MaxVersion: version, MinVersion: version, ClientSessionCache: tickets})
			if err != nil || state.DidResume {
				t.Errorf("%s: resumed %v, %v", tls.VersionName(version), state.DidResume, err)
			}
		}
	}
	if tickets.n > 0 {
		t.Errorf("%d tickets were given out", tickets.n)
	}
	var weak []uint16
	for _, suite := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		if strings.HasSuffix(suite.Name, "_SHA") || strings.Contains(suite.Name, "_CBC_") || strings.HasPrefix(suite.Name, "TLS_RSA_") {
			weak = append(weak, suite.ID)
		}
	}
	if _, err := shake(t, s, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, CipherSuites: weak}); err == nil || len(weak) < 10 {
		t.Errorf("one of %d weak suites is spoken", len(weak))
	}
}

type countingCache struct{ n int }

func (c *countingCache) Get(string) (*tls.ClientSessionState, bool) { return nil, false }
func (c *countingCache) Put(_ string, s *tls.ClientSessionState) {
	if s != nil {
		c.n++
	}
}
