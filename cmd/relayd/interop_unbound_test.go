//go:build interop

package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"relayd/relay/relaytest"
)

// signedZone is served by a real unbound, which validates it. %[1]d is the port of the mail hosts, %[2]s the
// TLSA record that they fulfil.
const signedZone = `$ORIGIN signed.test.
$TTL 1
@ SOA ns hostmaster 1 3600 600 86400 1
@ NS ns
ns A 127.0.0.1
good MX 10 mx.good
mx.good A 127.0.0.2
_%[1]d._tcp.mx.good TLSA %[2]s
wrong MX 10 mx.wrong
mx.wrong A 127.0.0.2
_%[1]d._tcp.mx.wrong TLSA 3 1 1 0000000000000000000000000000000000000000000000000000000000000000
forged MX 10 mx.forged
mx.forged A 127.0.0.2
_%[1]d._tcp.mx.forged TLSA 3 1 1 1111111111111111111111111111111111111111111111111111111111111111
stolen MX 10 mx.stolen
mx.stolen A 127.0.0.2
alias MX 10 mx.alias
mx.alias CNAME mx.good
away MX 10 mx.away
mx.away CNAME mx.plain.test.
_%[1]d._tcp.mx.away TLSA 3 1 1 0000000000000000000000000000000000000000000000000000000000000000
bare MX 10 mx.bare
mx.bare A 127.0.0.2
`

// unsignedZone has the wrong record too, which means nothing where nobody vouches for it.
const unsignedZone = `$ORIGIN plain.test.
$TTL 1
@ SOA ns hostmaster 1 3600 600 86400 1
@ NS ns
ns A 127.0.0.1
@ MX 10 mx
mx A 127.0.0.2
_%[1]d._tcp.mx TLSA 3 1 1 0000000000000000000000000000000000000000000000000000000000000000
`

// unbound signs the zones and serves them from an unbound of Debian's, which validates what it serves like any
// answer of the network. Afterwards one TLSA record and one MX record are not as they were signed.
func unbound(t *testing.T, mxPort int, tlsa string) (addr string) {
	t.Helper()
	dir := t.TempDir()
	run := func(name string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("signed.test", fmt.Sprintf(signedZone, mxPort, tlsa))
	write("plain.test", fmt.Sprintf(unsignedZone, mxPort))
	key := run("ldns-keygen", "-a", "ECDSAP256SHA256", "-k", "signed.test")
	run("ldns-signzone", "signed.test", key)
	signed, err := os.ReadFile(filepath.Join(dir, "signed.test.signed"))
	if err != nil {
		t.Fatal(err)
	}
	forged := regexp.MustCompile(`(?m)^(stolen\.signed\.test\.\s.*\sMX\s+10\s+)mx\.stolen`).ReplaceAllString(string(signed), "${1}mx.good")
	forged = strings.Replace(forged, "3 1 1 1111", "3 1 1 1112", 1)
	if strings.Count(forged, "\n") != strings.Count(string(signed), "\n") || !strings.Contains(forged, "1112") || strings.Contains(forged, "mx.stolen.signed.test.\tMX") {
		t.Fatalf("the zone is not forged:\n%s", forged)
	}
	write("signed.test.signed", forged)
	port := freePort()
	write("unbound.conf", fmt.Sprintf(`
server:
  interface: 127.0.0.1
  port: %[2]d
  username: ""
  chroot: ""
  directory: "%[1]s"
  pidfile: ""
  use-syslog: no
  logfile: ""
  do-ip6: no
  num-threads: 1
  module-config: "validator iterator"
  trust-anchor-file: "%[1]s/%[3]s.ds"
  local-zone: "test." nodefault
  val-log-level: 2
auth-zone:
  name: "signed.test"
  zonefile: "%[1]s/signed.test.signed"
  for-downstream: no
auth-zone:
  name: "plain.test"
  zonefile: "%[1]s/plain.test"
  for-downstream: no
remote-control:
  control-enable: no
`, dir, port, key))
	addr = fmt.Sprintf("127.0.0.1:%d", port)
	background(t, nil, "unbound", "-d", "-p", "-c", filepath.Join(dir, "unbound.conf"))
	awaitPort(t, addr) // it listens over TCP too, before it answers
	return addr
}

// DANE with a real validating resolver: a key that the signed zone names gets the letter, also behind an alias;
// another key, a record that was changed after it was signed, and MX records that were, keep it here. What is not
// signed means nothing.
func TestInteropUnbound(t *testing.T) {
	mxPort := freePort()
	mx, err := relaytest.NewMX(fmt.Sprintf("127.0.0.2:%d", mxPort), relaytest.MXScript{Host: "mx.good.signed.test", StartTLS: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mx.Close() })
	dns := unbound(t, mxPort, fmt.Sprintf("3 1 1 %x", sha256.Sum256(mx.Certificate().RawSubjectPublicKeyInfo)))
	o := openOffice(t, officeConfig+fmt.Sprintf("[dns]\nservers = [%q]\n[outbound]\nport = %d\nallow_loopback = true\n", dns, mxPort))
	file := o.write("out.eml", "Subject: private\r\n\r\nx\r\n")
	said := map[string]string{
		"a@good.signed.test": "verified (dane)", "b@alias.signed.test": "verified (dane)",
		"c@plain.test": ", unverified", "d@bare.signed.test": ", unverified",
		"e@wrong.signed.test":  "its certificate does not prove that it is mx.wrong.signed.test (dane asks for it): no TLSA record matches it",
		"f@forged.signed.test": "its TLSA records cannot be looked up (dane asks for it): ",
		"g@stolen.signed.test": "cannot look up the MX records of stolen.signed.test: ",
		"h@away.signed.test":   "its certificate does not prove that it is mx.away.signed.test (dane asks for it): no TLSA record matches it",
	}
	for who := range said {
		o.run("", "curl", "-sS", "--url", "smtp://"+o.addrs["smtp"]+"/client.example", "--mail-from", "ann@office.test",
			"--mail-rcpt", who, "--upload-file", file)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	if err := mx.Wait(ctx, 4); err != nil {
		t.Error(err)
	}
	o.awaitTried(4)
	d := o.server
	o.close()
	for who, want := range said {
		if !strings.Contains(lineOf(d.log.String(), who), want) {
			t.Errorf("%s: want %q in %s", who, want, lineOf(d.log.String(), who))
		}
	}
	if n := mx.Count(); n != 4 || strings.Count(d.log.String(), "SERVFAIL") < 2 {
		t.Errorf("%d letters arrived, want 4; the log:\n%s", n, d.log.String())
	}
}

// awaitTried waits until n letters are left, and each of them has been tried.
func (o *office) awaitTried(n int) {
	o.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var list string
	for deadline := time.Now().Add(2 * patience); time.Now().Before(deadline); <-tick.C {
		list = o.ctl("", "--json", "queue", "ls")
		if strings.Count(list, "\n") == n && strings.Count(list, `"last_answer":"451 `) == n {
			return
		}
	}
	o.t.Errorf("waiting:\n%s", list)
}

// lineOf is what the log says that came of a recipient.
func lineOf(log, rcpt string) string {
	for line := range strings.Lines(log) {
		if strings.Contains(line, "room=delivery") && strings.Contains(line, "rcpt="+rcpt) {
			return line
		}
	}
	return "nothing"
}
