//go:build interop

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"relayd/relay/admin"
	"relayd/relay/relaytest"
)

// dkimpyScript verifies every signature of a letter by dkimpy; argv: the letter, the records as JSON.
const dkimpyScript = `
import sys, json, dkim
records = json.load(open(sys.argv[2]))
letter = open(sys.argv[1], "rb").read()
d = dkim.DKIM(letter)
for i in range(letter.split(b"\r\n\r\n")[0].count(b"DKIM-Signature:")):
    ok = d.verify(idx=i, dnsfunc=lambda name, timeout=5: records[name.decode().rstrip(".")].encode())
    print(d.signature_fields[b"a"].decode(), "pass" if ok else "fail")
`

// OpenDKIM believes our RSA signatures (Debian's knows no Ed25519), dkimpy both, of letters of
// many shapes as a remote gets them; of a letter that was changed, neither.
func TestInteropDKIM(t *testing.T) {
	port := freePort()
	mx, err := relaytest.NewMX(fmt.Sprintf("127.0.0.2:%d", port), relaytest.MXScript{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mx.Close() })
	zone := "good.test. MX 10 mx.good.test.\nmx.good.test. A 127.0.0.2\n"
	dns := relaytest.ServeDNS(t, zone)
	o := openOffice(t, officeConfig+fmt.Sprintf("[dns]\nservers = [%q]\n[outbound]\nport = %d\nallow_loopback = true\n", dns.Addr(), port))
	if err := mx.KeepIn(o.path("kept")); err != nil {
		t.Fatal(err)
	}
	if err := dns.SetZone(zone + o.ctl("", "dkim", "dns")); err != nil {
		t.Fatal(err)
	}
	records, local := map[string]string{}, ""
	for line := range strings.Lines(o.ctl("", "dkim", "ls", "--json")) {
		var k admin.Key
		if err := json.Unmarshal([]byte(line), &k); err != nil || !k.Visible {
			t.Fatalf("%v: %s", err, line)
		}
		records[k.Name] = k.Record
		local += k.Name + " " + k.Record + "\n"
	}
	text, _ := json.Marshal(records)
	o.write("records.json", string(text))
	o.write("keys", local)
	o.write("opendkim.conf", "Mode v\nTestDNSData file:"+o.path("keys")+"\n")

	bodies := []string{"plain\n", "", "trailing  \n\n  \n\n", "dots\n.\n..\n.x\n", strings.Repeat("long  line\tof words \n", 20_000)}
	for i, body := range bodies {
		file := o.write("letter", "From: Ann <ann@office.test>\nTo: x@good.test\nSubject: a\n  folded\n\tsubject\nList-Id: <ours.office.test>\n\n"+body)
		o.run("", "curl", "-sS", "--crlf", "--url", "smtp://"+o.addrs["smtp"]+"/client.example", "--mail-from", "ann@office.test",
			"--mail-rcpt", "x@good.test", "--upload-file", file)
		o.awaitFiles("kept/*.env", i+1)
	}
	for _, file := range o.awaitFiles("kept/*.eml", len(bodies)) {
		if got, want := o.run("", "/usr/bin/python3", "-c", dkimpyScript, file, o.path("records.json")), "rsa-sha256 pass\ned25519-sha256 pass\n"; got != want {
			t.Errorf("dkimpy on %s:\n%s", file, got)
		}
		if out, err := o.try("", "/usr/sbin/opendkim", "-x", o.path("opendkim.conf"), "-t", file); err != nil || !strings.Contains(out, "verification (s=r") || !strings.Contains(out, "succeeded") {
			t.Errorf("opendkim on %s: %v\n%s", file, err, out)
		}
		letter, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		changed := o.write("changed", strings.Replace(string(letter), "Subject: a", "Subject: b", 1))
		if got, want := o.run("", "/usr/bin/python3", "-c", dkimpyScript, changed, o.path("records.json")), "rsa-sha256 fail\ned25519-sha256 fail\n"; got != want {
			t.Errorf("dkimpy on a changed letter:\n%s", got)
		}
		if out, _ := o.try("", "/usr/sbin/opendkim", "-x", o.path("opendkim.conf"), "-t", changed); strings.Contains(out, "succeeded") {
			t.Errorf("opendkim on a changed letter:\n%s", out)
		}
	}
}
