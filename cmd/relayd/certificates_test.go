package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// testCA signs certificates as an authority does.
type testCA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newTestCA(t *testing.T) *testCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Office Test Authority"},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(10 * 365 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &testCA{cert, key}
}

// write makes a certificate for names that ends after life, and writes it and its key to file.
func (ca *testCA) write(t *testing.T, file string, life time.Duration, names ...string) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	// testssl looks for a way to hear of revocations; it does not go there.
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: time.Now().Add(-30 * 24 * time.Hour), NotAfter: time.Now().Add(life), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		CRLDistributionPoints: []string{"http://crl.office.test/ca.crl"}}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key.Public(), ca.key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	pem.Encode(&text, &pem.Block{Type: "PRIVATE KEY", Bytes: private})
	if err := os.WriteFile(file, text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

// pairsConfig has a default pair, one chosen by name, and all five ports.
const pairsConfig = `
hostname = "mail.office.test"
data_dir = "data"
[listen]
smtp = "127.0.0.1:0"
submission = "127.0.0.1:0"
submissions = "127.0.0.1:0"
pop3 = "127.0.0.1:0"
pop3s = "127.0.0.1:0"
metrics = "127.0.0.1:0"
[domains."office.test"]
postmaster = "ann"
[tls]
cert = "mail.pem"
key = "mail.pem"
[[tls.pair]]
cert = "pop.pem"
key = "pop.pem"
`

// secured goes to a service of the daemon and on to TLS, asking for a name.
func (d *server) secured(service string, c *tls.Config) (*tls.Conn, error) {
	conn, err := dial(d.addrs[service])
	if err != nil {
		return nil, err
	}
	switch service {
	case "smtp", "submission":
		conn.expect("220")
		conn.say("EHLO client.example")
		conn.write("STARTTLS\r\n")
		conn.expect("220")
	case "pop3":
		conn.expect("+OK")
		conn.write("STLS\r\n")
		conn.expect("+OK")
	}
	if conn.err != nil {
		conn.Close()
		return nil, conn.err
	}
	secure := tls.Client(conn.Conn, c)
	if err := secure.Handshake(); err != nil {
		conn.Close()
		return nil, err
	}
	return secure, nil
}

var tlsServices = []string{"smtp", "submission", "submissions", "pop3", "pop3s"}

// Every port shows the certificate for the name that the client asks for, to TLS 1.2 and 1.3 and
// to nothing older; relayctl status and the metrics know them all.
func TestCertificatesByName(t *testing.T) {
	t.Parallel()
	dir, ca := t.TempDir(), newTestCA(t)
	mail := ca.write(t, filepath.Join(dir, "mail.pem"), 90*24*time.Hour, "mail.office.test")
	pop := ca.write(t, filepath.Join(dir, "pop.pem"), 90*24*time.Hour, "pop.office.test", "pop3.office.test")
	config := filepath.Join(dir, "relayd.toml")
	if err := os.WriteFile(config, []byte(pairsConfig), 0o600); err != nil {
		t.Fatal(err)
	}
	d := launched(t, dir, config)
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	for _, service := range tlsServices {
		for name, want := range map[string]*x509.Certificate{"mail.office.test": mail, "pop3.office.test": pop, "": mail, "elsewhere.test": mail} {
			c := &tls.Config{ServerName: name, RootCAs: roots, InsecureSkipVerify: want.VerifyHostname(name) != nil}
			conn, err := d.secured(service, c)
			if err != nil {
				t.Errorf("%s of %q: %v", service, name, err)
				continue
			}
			if got := conn.ConnectionState().PeerCertificates[0]; !got.Equal(want) {
				t.Errorf("%s of %q: shown %q", service, name, got.DNSNames)
			}
			conn.Close()
		}
		old := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
		if conn, err := d.secured(service, old); err == nil {
			t.Errorf("%s speaks %s", service, tls.VersionName(conn.ConnectionState().Version))
			conn.Close()
		}
	}
	out, err := exec.Command(program(t, "relayctl"), "--config", config, "status").CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	wantAll(t, string(out), `^certificate +mail\.office\.test, from .*/mail\.pem, good until .* \(89 days\)$`,
		`^certificate +pop\.office\.test pop3\.office\.test, from .*/pop\.pem, good until `)
	text := scraped(t, d.addrs["metrics"])
	for _, name := range []string{"mail", "pop"} {
		wantAll(t, text, fmt.Sprintf(`^relayd_certificate_expiry_seconds{from=".*/%s\.pem",name="%[1]s\.office\.test"} 7\.77.*e\+06$`, name),
			fmt.Sprintf(`^relayd_certificate_problem{from=".*/%s\.pem",name="%[1]s\.office\.test"} 0$`, name))
	}
	if exists(filepath.Join(dir, "data/keys/self-signed.pem")) {
		t.Error("a self-signed certificate was made though there is a default pair")
	}
}

// launched starts the relayd on PATH with a config; it is stopped when the test ends.
func launched(t *testing.T, dir, config string) *server {
	t.Helper()
	d, err := launch(program(t, "relayd"), dir, "--config", config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.stop(); err != nil {
			t.Errorf("stopping relayd: %v\n%s", err, d.log.String())
		}
	})
	return d
}

// program is where a command of ours is.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// scraped are the metrics served at addr.
func scraped(t *testing.T, addr string) string {
	t.Helper()
	resp, err := http.Get("http://" + addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v", resp.Status, err)
	}
	return string(text)
}
