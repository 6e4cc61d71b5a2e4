//go:build interop

package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func (ca *testCA) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw})
}

// openPairs opens an office whose certificates ca has signed.
func openPairs(t *testing.T, ca *testCA, life time.Duration) *office {
	t.Helper()
	dir := t.TempDir()
	ca.write(t, filepath.Join(dir, "mail.pem"), life, "mail.office.test")
	ca.write(t, filepath.Join(dir, "pop.pem"), life, "pop.office.test")
	o := openOfficeIn(t, dir, pairsConfig)
	o.write("ca.pem", string(ca.pem()))
	return o
}

// finding is an element of testssl's list.
type finding struct{ ID, Severity, Finding string }

// testssl finds nothing above "low" on any of the five ports, and has looked.
func TestInteropTestssl(t *testing.T) {
	o := openPairs(t, newTestCA(t), 90*24*time.Hour)
	var wg sync.WaitGroup
	for service, starttls := range map[string]string{"smtp": "smtp", "submission": "smtp", "submissions": "", "pop3": "pop3", "pop3s": ""} {
		wg.Go(func() {
			out := o.path(service + ".json")
			args := []string{"--quiet", "--color", "0", "--warnings", "off", "--nodns", "none", "--ip", "127.0.0.1", "--add-ca", o.path("ca.pem"),
				"--connect-timeout", "20", "--openssl-timeout", "20", "--jsonfile", out, "-p", "-s", "-S", "-U"}
			if starttls != "" {
				args = append(args, "-t", starttls)
			}
			said, err := o.try("", "timeout", append([]string{"400", "testssl"}, append(args, "mail.office.test:"+port(o.addrs[service]))...)...)
			data, readErr := os.ReadFile(out)
			var all []finding
			if readErr != nil || json.Unmarshal(data, &all) != nil {
				t.Errorf("%s: %v, %v\n%s", service, err, readErr, said)
				return
			}
			judge(t, service, all)
			if t.Failed() {
				t.Logf("%s:\n%s", service, said)
			}
		})
	}
	wg.Wait()
}

// judge looks at testssl's findings: at all for their severity, and at a few for what they say.
func judge(t *testing.T, service string, all []finding) {
	said := map[string]string{}
	for _, f := range all {
		said[f.ID] = f.Finding
		// engine_problem is about the openssl that testssl uses itself.
		if slices.Contains([]string{"MEDIUM", "HIGH", "CRITICAL", "FATAL", "WARN"}, f.Severity) && f.ID != "engine_problem" {
			t.Errorf("%s: %s %s: %s", service, f.Severity, f.ID, f.Finding)
		}
	}
	for id, want := range map[string]string{
		"SSLv3": "not offered", "TLS1": "not offered", "TLS1_1": "not offered", "TLS1_2": "offered", "TLS1_3": "offered",
		"cert_chain_of_trust": "passed", "secure_renego": "supported", "secure_client_renego": "not vulnerable", "LUCKY13": "not vulnerable",
		"sessionresumption_ticket": "not supported",
	} {
		if !strings.HasPrefix(said[id], want) {
			t.Errorf("%s: testssl says of %s %q, not %q", service, id, said[id], want)
		}
	}
}

// Clients that check certificates take ours from an authority they know, and refuse one that is
// over, one that we signed ourselves, and one for another name; those that do not check send.
func TestInteropCheckedCertificates(t *testing.T) {
	ca := newTestCA(t)
	for _, c := range []struct {
		what, name string
		life       time.Duration
		signed     bool
		good       bool
	}{
		{"good", "mail.office.test", 90 * 24 * time.Hour, true, true},
		{"chosen by name", "pop.office.test", 90 * 24 * time.Hour, true, true},
		{"of another name", "elsewhere.test", 90 * 24 * time.Hour, true, false},
		{"expired", "mail.office.test", -time.Hour, true, false},
		{"self-signed", "mail.office.test", 0, false, false},
	} {
		t.Run(strings.ReplaceAll(c.what, " ", "_"), func(t *testing.T) {
			var o *office
			if c.signed {
				o = openPairs(t, ca, c.life)
			} else {
				config, _, _ := strings.Cut(pairsConfig, "[tls]")
				o = openOffice(t, config)
				o.write("ca.pem", string(ca.pem()))
			}
			for _, service := range tlsServices {
				o.checkWithCurl(service, c.name, c.good)
			}
			swaks := []string{"--server", "127.0.0.1", "--port", port(o.addrs["smtp"]), "--helo", "client.example", "--timeout", "20",
				"--from", "x@partner.example", "--to", "ann@office.test", "--tls", "--tls-sni", c.name}
			if out, err := o.try("", "swaks", swaks...); err != nil || !strings.Contains(out, "queued as") {
				t.Errorf("swaks that does not check: %v\n%s", err, out)
			}
			// It does not compare names.
			_, err := o.try("", "swaks", append(swaks, "--tls-verify", "--tls-ca-path", o.path("ca.pem"))...)
			if takes := c.signed && c.life > 0; (err == nil) != takes {
				t.Errorf("swaks that checks: %v", err)
			}
		})
	}
}

// checkWithCurl logs in at a service as host name, checking the certificate and then not.
func (o *office) checkWithCurl(service, name string, good bool) {
	o.t.Helper()
	scheme := map[string]string{"smtp": "smtp", "submission": "smtp", "submissions": "smtps", "pop3": "pop3", "pop3s": "pop3s"}[service]
	at := port(o.addrs[service])
	args := []string{"-sS", "--ssl-reqd", "--cacert", o.path("ca.pem"), "--resolve", name + ":" + at + ":127.0.0.1",
		"--url", scheme + "://" + name + ":" + at + "/"}
	if strings.HasPrefix(service, "pop3") {
		args = append(args, "--user", "ann@office.test:"+officePassword)
	} else {
		args = append(args, "-X", "NOOP")
	}
	out, err := o.try("", "curl", args...)
	if (err == nil) != good {
		o.t.Errorf("%s as %s: curl that checks: %v\n%s", service, name, err, out)
	}
	// 60: the certificate cannot be trusted. Anything else is not what this is about.
	if exit, ok := err.(*exec.ExitError); !good && (!ok || exit.ExitCode() != 60) {
		o.t.Errorf("%s as %s: curl fails with %v, not over the certificate\n%s", service, name, err, out)
	}
	if out, err := o.try("", "curl", append(args, "-k")...); err != nil {
		o.t.Errorf("%s as %s: curl that does not check: %v\n%s", service, name, err, out)
	}
}

// A renewal is served within a minute, without a restart and while a session goes on; a broken one
// keeps the old pair and shows in relayctl status and the metrics.
func TestInteropRenewedFiles(t *testing.T) {
	ca := newTestCA(t)
	o := openPairs(t, ca, 10*24*time.Hour)
	session, err := o.secured("pop3s", &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	talk := &dialogue{Conn: session, r: bufio.NewReader(session)}
	talk.expect("+OK")
	o.write("pop.pem", "garbage")
	renewed := ca.write(t, o.path("mail.pem"), 90*24*time.Hour, "mail.office.test")
	o.await(time.Minute, func() string {
		if got := o.leaf("mail.office.test"); !got.Equal(renewed) {
			return "the renewed certificate is not served"
		}
		return ""
	})
	if got := o.leaf("pop.office.test"); got.VerifyHostname("pop.office.test") != nil {
		t.Errorf("after a broken renewal %q is served", got.DNSNames)
	}
	wantAll(t, o.ctl("", "status"), `^certificate +mail\.office\.test, from .*, good until .* \(89 days\)$`,
		`^certificate +pop\.office\.test, .* \(9 days\); its renewal failed: .*/pop\.pem `)
	wantAll(t, scraped(t, o.addrs["metrics"]), `^relayd_certificate_problem{from=".*/pop\.pem",name="pop\.office\.test"} 1$`,
		`^relayd_certificate_expiry_seconds{from=".*/pop\.pem",name="pop\.office\.test"} 86[0-9]{4}\.`)
	session.SetDeadline(time.Now().Add(patience))
	talk.write("CAPA\r\n")
	talk.expect("+OK")
	if talk.err != nil {
		t.Errorf("the session did not live on: %v", talk.err)
	}
}

// leaf is the certificate that submissions shows to a client that asks for name; nil where the
// handshake fails.
func (o *office) leaf(name string) *x509.Certificate {
	o.t.Helper()
	conn, err := o.secured("submissions", &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err != nil {
		o.t.Errorf("a handshake failed: %v", err)
		return &x509.Certificate{}
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0]
}

// await asks until wrong says "".
func (o *office) await(limit time.Duration, wrong func() string) {
	o.t.Helper()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(limit); ; <-tick.C {
		text := wrong()
		switch {
		case text == "":
			return
		case time.Now().After(deadline):
			o.t.Fatalf("after %v: %s", limit, text)
		}
	}
}

// pebble is Let's Encrypt's test authority, for certificates that last life. It resolves every name
// to 127.0.0.1 and knocks at the two ports.
type pebble struct{ directory, caFile, httpPort, tlsPort string }

func startPebble(t *testing.T, life time.Duration) pebble {
	t.Helper()
	for _, name := range []string{"pebble", "pebble-challtestsrv"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Fatalf("%v: .ci/interop installs it", err)
		}
	}
	dir, ca := t.TempDir(), newTestCA(t)
	ca.write(t, filepath.Join(dir, "pebble.pem"), time.Hour, "localhost")
	p := pebble{caFile: filepath.Join(dir, "ca.pem"), httpPort: fmt.Sprint(freePort()), tlsPort: fmt.Sprint(freePort())}
	at, dns := fmt.Sprintf("127.0.0.1:%d", freePort()), fmt.Sprintf("127.0.0.1:%d", freePort())
	p.directory = "https://localhost:" + port(at) + "/dir"
	config := fmt.Sprintf(`{"pebble": {"listenAddress": %q, "managementListenAddress": "127.0.0.1:0", "certificate": %q, "privateKey": %[2]q,
		"httpPort": %[3]s, "tlsPort": %[4]s, "retryAfter": {"authz": 1, "order": 1}, "keyAlgorithm": "ecdsa",
		"profiles": {"default": {"description": "the only one", "validityPeriod": %[5]d}}}}`,
		at, filepath.Join(dir, "pebble.pem"), p.httpPort, p.tlsPort, int(life.Seconds()))
	for name, text := range map[string]string{p.caFile: string(ca.pem()), filepath.Join(dir, "pebble.json"): config} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	background(t, nil, "pebble-challtestsrv", "-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-dnsserver", dns,
		"-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "", "-management", "127.0.0.1:0")
	background(t, []string{"PEBBLE_VA_NOSLEEP=1"}, "pebble", "-config", filepath.Join(dir, "pebble.json"), "-dnsserver", dns)
	awaitPort(t, at)
	awaitPort(t, dns)
	return p
}

// background runs a program until the test ends, and shows what it said if the test fails.
func background(t *testing.T, env []string, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		log.Close()
		if text, _ := os.ReadFile(log.Name()); t.Failed() {
			t.Logf("%s said:\n%s", name, text)
		}
	})
}

func awaitPort(t *testing.T, addr string) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-tick.C {
		if conn, err := net.Dial("tcp", addr); err == nil {
			conn.Close()
			return
		}
	}
	t.Fatalf("nobody listens at %s", addr)
}

const acmeConfig = `
hostname = "mail.office.test"
data_dir = "data"
[listen]
submissions = "127.0.0.1:0"
metrics = "127.0.0.1:0"
%s
[domains."office.test"]
postmaster = "ann"
[tls]
acme = true
acme_directory = %q
acme_email = "ann@office.test"
acme_names = ["pop.office.test"]
`

// openACME opens an office that asks p for certificates and has the doors of [listen].
func openACME(t *testing.T, p pebble, doors string) *office {
	t.Helper()
	t.Setenv("SSL_CERT_FILE", p.caFile)
	return openOffice(t, fmt.Sprintf(acmeConfig, doors, p.directory))
}

// isOf says whether leaf is the authority's, for name.
func isOf(leaf *x509.Certificate, name string) bool {
	return leaf.VerifyHostname(name) == nil && strings.HasPrefix(leaf.Issuer.CommonName, "Pebble")
}

// awaitIssued waits until clients are shown the authority's certificates, also those that name
// nobody.
func (o *office) awaitIssued() {
	o.t.Helper()
	o.await(time.Minute, func() string {
		for asked, want := range map[string]string{"mail.office.test": "mail.office.test", "": "mail.office.test", "pop.office.test": "pop.office.test"} {
			if leaf := o.leaf(asked); !isOf(leaf, want) {
				return fmt.Sprintf("%q is shown a certificate of %q for %q", asked, leaf.Issuer.CommonName, leaf.DNSNames)
			}
		}
		return ""
	})
}

// Over either challenge certificates are issued and kept where only we read them, a restart shows
// the same ones without asking, and they are renewed in time.
func TestInteropACME(t *testing.T) {
	for _, door := range []string{"http", "https"} {
		t.Run(door, func(t *testing.T) {
			p := startPebble(t, 30*time.Second)
			doors := fmt.Sprintf("http = \"127.0.0.1:%s\"", p.httpPort)
			if door == "https" {
				doors = fmt.Sprintf("https = \"127.0.0.1:%s\"", p.tlsPort)
			}
			o := openACME(t, p, doors)
			o.awaitIssued()
			first := o.leaf("mail.office.test")
			o.keptPrivate("data/keys", "acme_account+key", "mail.office.test", "pop.office.test", "self-signed.pem")
			wantAll(t, o.ctl("", "status"), `^certificate +mail\.office\.test, from acme, good until `)
			wantAll(t, scraped(t, o.addrs["metrics"]), `^relayd_certificate_expiry_seconds{from="acme",name="pop\.office\.test"} [12]\d\.`)
			o.close()
			o.open()
			if !o.leaf("mail.office.test").Equal(first) {
				t.Error("a restart shows another certificate")
			}
			o.await(time.Minute, func() string {
				if o.leaf("mail.office.test").Equal(first) {
					return "the certificate is not renewed"
				}
				return ""
			})
			o.awaitIssued()
		})
	}
}

// keptPrivate checks the modes below a folder, and that it has the files.
func (o *office) keptPrivate(folder string, files ...string) {
	o.t.Helper()
	var found []string
	err := filepath.WalkDir(o.path(folder), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			o.t.Errorf("%s: %v", path, info.Mode())
		}
		found = append(found, d.Name())
		return err
	})
	for _, name := range files {
		if !slices.Contains(found, name) {
			o.t.Errorf("%s is not among %q, %v", name, found, err)
		}
	}
}

// While the authority finds nobody at our door the self-signed certificate is served, and the
// reason it gave stands in relayctl status, the metrics and the log; after a restart with the door
// open it issues.
func TestInteropACMEFailure(t *testing.T) {
	p := startPebble(t, time.Hour)
	o := openACME(t, p, "http = \"127.0.0.1:0\"")
	reason := `http-01 failed: connection: .* connection refused`
	o.await(time.Minute, func() string {
		if st := o.ctl("", "status"); !strings.Contains(st, "http-01 failed: connection") {
			return st
		}
		return ""
	})
	wantAll(t, o.ctl("", "status"), `^certificate +mail\.office\.test, from acme, not there yet: `+reason, `^certificate +mail\.office\.test, self-signed, `)
	wantAll(t, scraped(t, o.addrs["metrics"]), `^relayd_certificate_problem{from="acme",name="mail\.office\.test"} 1$`)
	for _, name := range []string{"", "mail.office.test", "pop.office.test"} {
		if leaf := o.leaf(name); leaf.VerifyHostname("mail.office.test") != nil || isOf(leaf, "mail.office.test") {
			t.Errorf("%q is shown a certificate of %q for %q", name, leaf.Issuer.CommonName, leaf.DNSNames)
		}
	}
	d := o.server
	o.close()
	wantAll(t, d.log.String(), `level=ERROR .*room=certs .*name=mail\.office\.test .*`+reason)
	o.write("relayd.toml", fmt.Sprintf(acmeConfig, "http = \"127.0.0.1:"+p.httpPort+"\"", p.directory))
	o.open()
	o.awaitIssued()
	wantAll(t, scraped(t, o.addrs["metrics"]), `^relayd_certificate_problem{from="acme",name="mail\.office\.test"} 0$`)
}
