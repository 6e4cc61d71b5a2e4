//go:build interop

package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"strings"
	"testing"

	"relayd/relay/relaytest"
)

// dkimpySigner signs a letter; argv: the letter, the key, the selector, the algorithm, the two canonical
// forms.
const dkimpySigner = `
import sys, dkim
letter = open(sys.argv[1], "rb").read()
head, body = sys.argv[5].encode().split(b"/")
sys.stdout.buffer.write(dkim.sign(letter, sys.argv[3].encode(), b"foreign.test", open(sys.argv[2], "rb").read(),
    canonicalize=(head, body), signature_algorithm=sys.argv[4].encode()) + letter)
`

const strangersConfig = `
hostname = "mail.office.test"
data_dir = "data"
[listen]
smtp = "127.0.0.1:0"
[domains."office.test"]
postmaster = "ann"
[dns]
servers = [%q]
`

// signingKeys makes the keys of foreign.test as OpenDKIM and dkimpy read them, and returns their records.
func signingKeys(t *testing.T, o *office) string {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	o.write("rsa.key", string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(private)})))
	public, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	short, seed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	o.write("ed25519.key", base64.StdEncoding.EncodeToString(seed.Seed()))
	text := base64.StdEncoding.EncodeToString(public)
	return fmt.Sprintf("rsa._domainkey.foreign.test. TXT \"v=DKIM1; k=rsa; p=%s\" \"%s\"\n", text[:200], text[200:]) +
		fmt.Sprintf("ed25519._domainkey.foreign.test. TXT \"v=DKIM1; k=ed25519; p=%s\"\n", base64.StdEncoding.EncodeToString(short))
}

// What dkimpy signs, in both algorithms and all canonical forms, and what OpenDKIM signs, passes here;
// of the same letters changed on the way, none does.
func TestInteropVerify(t *testing.T) {
	dns := relaytest.ServeDNS(t, "x.test. A 192.0.2.1\n")
	o := openOffice(t, fmt.Sprintf(strangersConfig, dns.Addr()))
	if err := dns.SetZone(signingKeys(t, o) + "_dmarc.foreign.test. TXT \"v=DMARC1; p=none\"\n"); err != nil {
		t.Fatal(err)
	}
	n := 0
	check := func(signed, algorithm, want string) {
		t.Helper()
		n++
		file := o.write(fmt.Sprintf("signed%d", n), signed)
		o.run("", "curl", "-sS", "--interface", "127.0.0.9", "--url", "smtp://"+o.addrs["smtp"]+"/client.example", "--mail-from", "x@foreign.test",
			"--mail-rcpt", "ann@office.test", "--upload-file", file)
		var letter string
		for _, name := range o.awaitFiles("data/mail/office.test/ann/new/*", 1) {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			letter = string(text)
			os.Remove(name)
		}
		results, _, _ := strings.Cut(strings.ReplaceAll(letter, "\n\t", " "), "\nReceived:")
		if !strings.Contains(results, "dkim="+want) || want == "pass" && !strings.Contains(results, "header.a="+algorithm+" ") ||
			!strings.Contains(results, "dmarc="+want) {
			t.Errorf("letter %d, %s, want %s: %s", n, algorithm, want, results)
		}
	}
	signers := []*openDKIM{startOpenDKIM(t, o, "relaxed/relaxed"), startOpenDKIM(t, o, "simple/simple")}
	for _, body := range []string{"plain\r\n", "", "trailing  \r\n\r\n  \r\n\r\n", "dots\r\n.\r\n..\r\n.x\r\n", strings.Repeat("long  line\tof words \r\n", 20_000)} {
		letter := "From: X <x@foreign.test>\r\nTo: ann@office.test\r\nSubject: a\r\n  folded\r\n\tsubject \r\n\r\n" + body
		file := o.write("letter", letter)
		for _, algorithm := range []string{"rsa-sha256", "ed25519-sha256"} {
			selector, _, _ := strings.Cut(algorithm, "-")
			for _, forms := range []string{"relaxed/relaxed", "simple/simple", "relaxed/simple", "simple/relaxed"} {
				signed := o.run("", "/usr/bin/python3", "-c", dkimpySigner, file, o.path(selector+".key"), selector, algorithm, forms)
				check(signed, algorithm, "pass")
				check(strings.Replace(signed, "Subject: a", "Subject: b", 1), algorithm, "fail")
				check(signed+"more\r\n", algorithm, "fail")
			}
		}
		for _, d := range signers {
			signed := d.sign(letter)
			check(signed, "rsa-sha256", "pass")
			check(strings.Replace(signed, "Subject: a", "Subject: b", 1), "rsa-sha256", "fail")
		}
	}
}
