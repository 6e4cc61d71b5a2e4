package certs_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"relayd/relay"
	"relayd/relay/certs"
)

// ordering is a Source that asks f, and what it logs.
func ordering(t *testing.T, f *fakeAuthority, keys string, change func(*certs.Options)) (*certs.Source, *buffer) {
	t.Helper()
	log := &buffer{}
	o := certs.Options{Hostname: host, KeysDir: keys, Log: slog.New(slog.NewTextHandler(log, nil)),
		ACME: &certs.ACME{Directory: f.URL + "/dir", Email: "ann@office.example", Names: []relay.Domain{"pop.office.example"}, HTTP: true}}
	if change != nil {
		change(&o)
	}
	return openWith(t, o), log
}

// doorOf serves a door of s.
func doorOf(t *testing.T, serve func(net.Listener) error) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- serve(ln) }()
	t.Cleanup(func() {
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

// visitHTTP asks for what stands at a path of a name at addr.
func visitHTTP(addr, name, path string) (int, string, error) {
	req, err := http.NewRequest(http.MethodGet, "http://"+addr+path, nil)
	if err != nil {
		return 0, "", err
	}
	req.Host = name
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

// awaitStatus polls until good says so.
func awaitStatus(t *testing.T, s *certs.Source, good func([]certs.Status) bool) []certs.Status {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); ; <-tick.C {
		st := s.Status()
		if good(st) {
			return st
		}
		if time.Now().After(deadline) {
			t.Fatalf("status %+v", st)
		}
	}
}

func issued(all []certs.Status) bool {
	for _, st := range all {
		if st.From == certs.FromACME && st.NotAfter.IsZero() {
			return false
		}
	}
	return true
}

func issuer(t *testing.T, s *certs.Source, sni string) string {
	t.Helper()
	state, err := shake(t, s, &tls.Config{ServerName: sni, InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	leaf := state.PeerCertificates[0]
	return fmt.Sprint(leaf.Issuer.CommonName, " for ", leaf.DNSNames)
}

// Until an authority has issued, the self-signed certificate is served; then its own, for each
// name and for clients without one. All of it is private, and a restart asks nobody again.
func TestACMEIssues(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"http-01", "tls-alpn-01"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			f, keys := newAuthority(t), t.TempDir()
			s, _ := ordering(t, f, keys, func(o *certs.Options) { o.ACME.HTTP, o.ACME.TLS = kind == "http-01", kind != "http-01" })
			door := doorOf(t, func(ln net.Listener) error {
				if kind == "http-01" {
					return s.ServeHTTP(t.Context(), ln)
				}
				return s.ServeHTTPS(t.Context(), ln)
			})
			f.knock = func(knocks, name, token string) error {
				if knocks != kind {
					t.Errorf("%s was tried though it has no door", knocks)
				}
				return knockAt(door, knocks, name, token)
			}
			if got := issuer(t, s, ""); got != "mail.office.example for [mail.office.example]" {
				t.Errorf("before the authority was asked, %s is served", got)
			}
			run(t, s)
			awaitStatus(t, s, issued)
			for sni, want := range map[string]string{"": string(host), string(host): string(host), "pop.office.example": "pop.office.example", "elsewhere.example": string(host)} {
				if got := issuer(t, s, sni); got != "Fake Authority for ["+want+"]" {
					t.Errorf("%q is served %s", sni, got)
				}
			}
			private(t, keys)
			asked := f.asked()
			again, _ := ordering(t, f, keys, nil)
			run(t, again)
			if got := issuer(t, again, ""); got != "Fake Authority for [mail.office.example]" || f.asked() != asked {
				t.Errorf("after a restart %s is served, and the authority asked for %s", got, strings.TrimPrefix(f.asked(), asked))
			}
			// Another authority's certificates are not served as this one's.
			other, _ := ordering(t, f, keys, func(o *certs.Options) { o.ACME.Directory = f.URL + "/dir?staging" })
			if got := issuer(t, other, ""); got != "mail.office.example for [mail.office.example]" {
				t.Errorf("of another authority %s is served", got)
			}
		})
	}
}

// knockAt does what an authority does to see that a name is ours.
func knockAt(door, kind, name, token string) error {
	if kind == "http-01" {
		code, body, err := visitHTTP(door, name, "/.well-known/acme-challenge/"+token)
		if err == nil && (code != http.StatusOK || !strings.HasPrefix(body, token+".")) {
			err = fmt.Errorf("%d %s", code, body)
		}
		return err
	}
	conn, err := tls.Dial("tcp", door, &tls.Config{ServerName: name, NextProtos: []string{"acme-tls/1"}, InsecureSkipVerify: true})
	if err != nil {
		return err
	}
	defer conn.Close()
	for _, e := range conn.ConnectionState().PeerCertificates[0].Extensions {
		if e.Id.String() == "1.3.6.1.5.5.7.1.31" && e.Critical { // id-pe-acmeIdentifier, RFC 8737 §3
			return nil
		}
	}
	return errors.New("no certificate that answers")
}

// private checks that only we can read what lies below a folder.
func private(t *testing.T, folder string) {
	t.Helper()
	files := 0
	filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		info, _ := d.Info()
		if path != folder && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v", path, info.Mode())
		}
		if !d.IsDir() {
			files++
		}
		return err
	})
	if files < 4 { // the account, two certificates and the self-signed one
		t.Errorf("%d files in %s", files, folder)
	}
}

// What the authority says when it refuses, when it finds nobody at our door, or why it cannot be
// reached, is told in the status and the log; the self-signed certificate is served meanwhile.
func TestACMEFailureIsTold(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what, want string
		prepare    func(*fakeAuthority)
	}{
		{"account", "says unauthorized: the office owes us money", func(f *fakeAuthority) { f.refuse = "the office owes us money" }},
		{"door", "http-01 failed: connection: http-01 nobody opened", func(f *fakeAuthority) {
			f.knock = func(string, string, string) error { return errors.New("nobody opened") }
		}},
		{"gone", "connection refused", func(f *fakeAuthority) { f.Close() }},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			f := newAuthority(t)
			c.prepare(f)
			s, log := ordering(t, f, t.TempDir(), nil)
			run(t, s)
			st := awaitStatus(t, s, func(all []certs.Status) bool { return all[0].Problem != "" })
			if !strings.Contains(st[0].Problem, c.want) || !strings.Contains(log.String(), c.want) || !strings.Contains(st[0].Problem, "next attempt 20") {
				t.Errorf("status %+v\nlog:\n%s", st, log.String())
			}
			if strings.Contains(f.asked(), "tls-alpn-01") {
				t.Errorf("the authority was asked to knock at a door that is not there: %s", f.asked())
			}
			if got := issuer(t, s, string(host)); got != "mail.office.example for [mail.office.example]" {
				t.Errorf("%s is served", got)
			}
		})
	}
}

// A renewal that fails is told, and the old certificate stays in service. (It is tried when a third
// of the time is left, and looked at every ten seconds.)
func TestACMERenewalFails(t *testing.T) {
	t.Parallel()
	f := newAuthority(t)
	f.life = 12 * time.Second
	knocks := 0
	f.knock = func(string, string, string) error {
		if knocks++; knocks > 1 {
			return errors.New("nobody opened any more")
		}
		return nil
	}
	s, log := ordering(t, f, t.TempDir(), func(o *certs.Options) { o.ACME.Names = nil })
	run(t, s)
	first := awaitStatus(t, s, issued)[0].NotAfter
	st := awaitStatus(t, s, func(all []certs.Status) bool { return all[0].Problem != "" })
	if !strings.Contains(st[0].Problem, "nobody opened any more") || !st[0].NotAfter.Equal(first) || !strings.Contains(log.String(), "the old one stays") {
		t.Errorf("status %+v\nlog:\n%s", st, log.String())
	}
	if got := issuer(t, s, ""); got != "Fake Authority for [mail.office.example]" {
		t.Errorf("%s is served", got)
	}
}

// For a name that a file has, no authority is asked.
func TestACMELeavesNamesOfFilesAlone(t *testing.T) {
	t.Parallel()
	f, dir := newAuthority(t), t.TempDir()
	f.knock = func(string, string, string) error { return nil }
	s, _ := ordering(t, f, dir, func(o *certs.Options) { o.Pairs = []certs.Pair{pairOf(t, dir, "mail", string(host), time.Hour)} })
	run(t, s)
	st := awaitStatus(t, s, issued)
	if len(st) != 2 || st[0].From != certs.FromFile || st[1].From != certs.FromACME || st[1].Names[0] != "pop.office.example" {
		t.Errorf("status %+v", st)
	}
	if n := strings.Count(f.asked(), "/finalize/"); n != 1 {
		t.Errorf("%d certificates were issued, want one", n)
	}
	if got := shown(t, s, &tls.Config{}, dir); got != "mail" {
		t.Errorf("without a name %s is shown", got)
	}
}

// The doors have nothing for anybody else: no files of ours, whatever the path, and no redirects.
func TestDoorsAreShut(t *testing.T) {
	t.Parallel()
	f, keys := newAuthority(t), t.TempDir()
	s, _ := ordering(t, f, keys, nil)
	secret := filepath.Join(keys, "acme", strings.NewReplacer("http://", "", ":", "_", "/", "_").Replace(f.URL+"/dir"))
	if err := os.MkdirAll(secret, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(secret, "acme_account+key"), []byte("secret"))
	write(t, filepath.Join(keys, "x+http-01"), []byte("secret"))
	door := doorOf(t, func(ln net.Listener) error { return s.ServeHTTP(t.Context(), ln) })
	for _, path := range []string{"/", "/.well-known/acme-challenge/acme_account+key", "/.well-known/acme-challenge/..%2f..%2fx",
		"/.well-known/acme-challenge/x", "/.well-known/acme-challenge/%00", "/.well-known/acme-challenge/" + strings.Repeat("x", 4000)} {
		for _, name := range []string{string(host), "elsewhere.example"} {
			code, body, err := visitHTTP(door, name, path)
			if err != nil || code < 400 || code >= 500 || strings.Contains(body, "secret") {
				t.Errorf("%s of %s: %d %q, %v", path[:min(len(path), 60)], name, code, body, err)
			}
		}
	}
}
