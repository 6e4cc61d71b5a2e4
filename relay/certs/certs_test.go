package certs_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"relayd/relay"
	"relayd/relay/certs"
)

const host = relay.Domain("mail.office.example")

var silent = slog.New(slog.DiscardHandler)

func open(t testing.TB, keys, cert, key string) *certs.Source {
	t.Helper()
	return openWith(t, certs.Options{Hostname: host, KeysDir: keys, Default: certs.Pair{Cert: cert, Key: key}, Log: silent})
}

func openWith(t testing.TB, o certs.Options) *certs.Source {
	t.Helper()
	s, err := certs.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// run lets a Source look after its certificates until the test ends.
func run(t testing.TB, s *certs.Source) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// shake makes a handshake over a pipe and returns what the client saw.
func shake(t testing.TB, s *certs.Source, client *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	there, here := net.Pipe()
	done := make(chan error, 1)
	go func() {
		server := tls.Server(there, s.ServerConfig())
		done <- server.Handshake()
		there.Close()
	}()
	conn := tls.Client(here, client)
	err := conn.Handshake()
	if err == nil {
		conn.Read(make([]byte, 1)) // tickets of TLS 1.3 come behind the handshake
	}
	here.Close()
	<-done
	return conn.ConnectionState(), err
}

// served is the certificate a client without SNI gets.
func served(t testing.TB, s *certs.Source) *x509.Certificate {
	t.Helper()
	state, err := shake(t, s, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	return state.PeerCertificates[0]
}

// The certificate made at the first start serves every client, passes verification for those who
// trust it, and is the same after a restart.
func TestSelfSigned(t *testing.T) {
	t.Parallel()
	keys := filepath.Join(t.TempDir(), "keys")
	s := open(t, keys, "", "")
	leaf := served(t, s)
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	for _, c := range []*tls.Config{
		{RootCAs: roots, ServerName: string(host)},
		{RootCAs: roots, ServerName: string(host), MaxVersion: tls.VersionTLS12},
		{InsecureSkipVerify: true, ServerName: "elsewhere.example"},
	} {
		state, err := shake(t, s, c)
		if err != nil || !bytes.Equal(state.PeerCertificates[0].Raw, leaf.Raw) {
			t.Errorf("%q: %v", c.ServerName, err)
		}
	}
	if _, err := shake(t, s, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}); err == nil {
		t.Error("TLS 1.1 is spoken")
	}
	if key, ok := leaf.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P256() {
		t.Errorf("key %T", leaf.PublicKey)
	}
	if life := leaf.NotAfter.Sub(leaf.NotBefore); life > 825*24*time.Hour || life < 365*24*time.Hour {
		t.Errorf("lasts %v", life)
	}
	if again := served(t, open(t, keys, "", "")); !bytes.Equal(again.Raw, leaf.Raw) {
		t.Error("a restart made another certificate")
	}
	want := []certs.Status{{From: certs.FromSelfSigned, File: filepath.Join(keys, "self-signed.pem"), Names: []string{string(host)}, NotAfter: leaf.NotAfter}}
	if diff := cmp.Diff(want, s.Status()); diff != "" {
		t.Errorf("status: -want +got\n%s", diff)
	}
}

// Nobody else on the machine can read the key.
func TestSelfSignedModes(t *testing.T) {
	t.Parallel()
	keys := filepath.Join(t.TempDir(), "keys")
	open(t, keys, "", "")
	files, _ := filepath.Glob(filepath.Join(keys, "*"))
	if len(files) != 1 {
		t.Fatalf("files %v", files)
	}
	for path, want := range map[string]fs.FileMode{keys: 0o700, files[0]: 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
}

// The certificate is remade before it ends, with the server running, and keeps its key.
func TestSelfSignedIsRemade(t *testing.T) {
	keys := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := open(t, keys, "", "")
		first := served(t, s)
		time.Sleep(time.Until(first.NotAfter) - 31*24*time.Hour)
		run(t, s)
		time.Sleep(time.Minute)
		if got := served(t, s); !bytes.Equal(got.Raw, first.Raw) {
			t.Error("remade 31 days before its end")
		}
		time.Sleep(2 * 24 * time.Hour)
		second := served(t, s)
		if bytes.Equal(second.Raw, first.Raw) || time.Until(second.NotAfter) < 365*24*time.Hour {
			t.Errorf("29 days before its end it is still served, until %v", second.NotAfter)
		}
		if !second.PublicKey.(*ecdsa.PublicKey).Equal(first.PublicKey) {
			t.Error("the key changed")
		}
		if again := served(t, open(t, keys, "", "")); !bytes.Equal(again.Raw, second.Raw) {
			t.Error("the new one was not kept")
		}
	})
}

// Another host name needs another certificate.
func TestSelfSignedForAnotherName(t *testing.T) {
	t.Parallel()
	keys := t.TempDir()
	open(t, keys, "", "")
	s := openWith(t, certs.Options{Hostname: "mx.office.example", KeysDir: keys, Log: silent})
	if err := served(t, s).VerifyHostname("mx.office.example"); err != nil {
		t.Error(err)
	}
}

// A broken file is set aside, not overwritten, and does not keep the server from starting.
func TestSelfSignedBroken(t *testing.T) {
	t.Parallel()
	keys := t.TempDir()
	open(t, keys, "", "")
	path := filepath.Join(keys, "self-signed.pem")
	write(t, path, []byte("half a file"))
	served(t, open(t, keys, "", ""))
	if got, err := os.ReadFile(path + ".broken"); err != nil || string(got) != "half a file" {
		t.Errorf("%q, %v", got, err)
	}
}

// A folder that cannot be written is an error that names it.
func TestSelfSignedNowhere(t *testing.T) {
	t.Parallel()
	blocked := filepath.Join(t.TempDir(), "keys")
	write(t, blocked, nil)
	if _, err := certs.New(certs.Options{Hostname: host, KeysDir: blocked, Log: silent}); err == nil || !strings.Contains(err.Error(), blocked) {
		t.Errorf("%v", err)
	}
}

// made makes a pair for name that ends after life.
func made(t testing.TB, name string, life time.Duration) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: []string{name},
		NotBefore: time.Now().Add(-1000 * time.Hour), NotAfter: time.Now().Add(life)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pk, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pk})
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// buffer is a log that may be read while it is written.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// A renewal is served within a minute; one that cannot be used leaves the old pair, is told once
// and shows in the status until it is mended.
func TestFilesAreReloaded(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	synctest.Test(t, func(t *testing.T) {
		put := func(cert, key []byte) {
			write(t, certFile, cert)
			write(t, keyFile, key)
		}
		put(made(t, string(host), 90*24*time.Hour))
		var log buffer
		s := openWith(t, certs.Options{Hostname: host, KeysDir: dir, Default: certs.Pair{Cert: certFile, Key: keyFile},
			Log: slog.New(slog.NewTextHandler(&log, nil))})
		run(t, s)
		first := served(t, s)
		time.Sleep(5 * time.Second) // no file is written in the moment the server looks
		minute := func(want []byte, what string) {
			t.Helper()
			time.Sleep(time.Minute)
			if got := served(t, s); (want == nil) != bytes.Equal(got.Raw, first.Raw) {
				t.Errorf("%s: the wrong certificate is served", what)
			}
		}
		cert, key := made(t, string(host), 180*24*time.Hour)
		minute(nil, "nothing new")
		write(t, certFile, cert)
		minute(nil, "half a renewal")
		if s.Status()[0].Problem == "" {
			t.Error("the status says nothing of half a renewal")
		}
		put([]byte("garbage"), key)
		minute(nil, "garbage")
		if err := os.Remove(certFile); err != nil {
			t.Fatal(err)
		}
		minute(nil, "no file")
		put(made(t, string(host), -time.Hour))
		minute(nil, "an expired renewal")
		lines := strings.Count(log.String(), "\n")
		minute(nil, "still expired")
		if n := strings.Count(log.String(), "\n"); n != lines || lines != 4 {
			t.Errorf("%d and then %d lines in the log:\n%s", lines, n, log.String())
		}
		put(cert, key)
		minute(cert, "the renewal")
		if p := s.Status()[0].Problem; p != "" {
			t.Errorf("status after the renewal: %s", p)
		}
	})
}

// Files that cannot be used at the start are errors that name them.
func TestFilesAtStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	good, other, garbage := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "other.pem"), filepath.Join(dir, "garbage.pem")
	cert, key := made(t, string(host), time.Hour)
	_, otherKey := made(t, string(host), time.Hour)
	write(t, good, append(cert, key...)) // both in one file is fine too
	write(t, other, otherKey)
	write(t, garbage, []byte("garbage"))
	missing := filepath.Join(dir, "missing.pem")
	for _, c := range []struct {
		cert, key, named string
		want             error
	}{
		{missing, good, missing, fs.ErrNotExist},
		{good, missing, missing, fs.ErrNotExist},
		{good, other, other, nil},
		{garbage, good, garbage, nil},
		{good, garbage, garbage, nil},
		{dir, good, dir, nil},
	} {
		_, err := certs.New(certs.Options{Hostname: host, KeysDir: dir, Default: certs.Pair{Cert: c.cert, Key: c.key}, Log: silent})
		if err == nil || !strings.Contains(err.Error(), c.named) || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s with %s: %v", c.cert, c.key, err)
		}
	}
	served(t, open(t, dir, good, good))
	// An expired pair at the start is better than none: most clients do not check (RFC 7435).
	cert, key = made(t, "old.example", -time.Hour)
	write(t, good, append(cert, key...))
	served(t, open(t, dir, good, good))
}
