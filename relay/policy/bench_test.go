package policy_test

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/emersion/go-msgauth/dkim"

	"relayd/relay"
	"relayd/relay/policy"
	"relayd/relay/relaytest"
	"relayd/relay/resolver"
)

// perSecond adds letters a second to the octets a second of SetBytes.
func perSecond(b *testing.B) { b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "letters/s") }

// BenchmarkCrypto is what signing and verifying a letter can cost at the least: the hash of its body
// and one operation with the key.
func BenchmarkCrypto(b *testing.B) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		b.Fatal(err)
	}
	_, short, _ := ed25519.GenerateKey(rand.Reader)
	body := make([]byte, 10<<10)
	sum := sha256.Sum256(body)
	long, _ := rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
	brief := ed25519.Sign(short, sum[:])
	for name, f := range map[string]func(sum []byte){
		"sign/rsa":       func(sum []byte) { rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum) },
		"sign/ed25519":   func(sum []byte) { ed25519.Sign(short, sum) },
		"verify/rsa":     func([]byte) { rsa.VerifyPKCS1v15(&key.PublicKey, crypto.SHA256, sum[:], long) },
		"verify/ed25519": func([]byte) { ed25519.Verify(short.Public().(ed25519.PublicKey), sum[:], brief) },
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				sum := sha256.Sum256(body)
				f(sum[:])
			}
			perSecond(b)
		})
	}
}

// benchmarkLetter is a letter of 10 KiB of example.org with a signature, and the zone it needs.
func benchmarkLetter(b *testing.B, algorithm string) (header, body []byte, zone string) {
	b.Helper()
	var signer crypto.Signer
	var record string
	if algorithm == "rsa" {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			b.Fatal(err)
		}
		der, _ := x509.MarshalPKIXPublicKey(key.Public())
		text := "v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(der)
		signer, record = key, fmt.Sprintf("%q %q", text[:200], text[200:])
	} else {
		public, key, _ := ed25519.GenerateKey(rand.Reader)
		signer, record = key, fmt.Sprintf("%q", "v=DKIM1; k=ed25519; p="+base64.StdEncoding.EncodeToString(public))
	}
	head := "From: Ann <ann@example.org>\r\nTo: bob@office.test\r\nSubject: figures\r\nDate: Sat, 21 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@example.org>\r\n"
	text := strings.Repeat("some words in a line of text, as letters have them\r\n", 197)
	var signed strings.Builder
	err := dkim.Sign(&signed, strings.NewReader(head+"\r\n"+text), &dkim.SignOptions{Domain: "example.org", Selector: "s", Signer: signer,
		HeaderCanonicalization: dkim.CanonicalizationRelaxed, BodyCanonicalization: dkim.CanonicalizationRelaxed})
	if err != nil {
		b.Fatal(err)
	}
	h, t, _ := strings.Cut(signed.String(), "\r\n\r\n")
	return []byte(h + "\r\n"), []byte(t), "$TTL 300\ns._domainkey.example.org. TXT " + record + `
example.org. TXT "v=spf1 include:spf.example.net mx -all"
spf.example.net. TXT "v=spf1 ip4:192.0.2.0/24 -all"
_dmarc.example.org. TXT "v=DMARC1; p=reject; rua=mailto:rua@example.org"
mx.example.org. A 192.0.2.1
1.2.0.192.in-addr.arpa. PTR mx.example.org.
org. 300 SOA ns.org. hostmaster.org. 1 3600 600 86400 300
`
}

// BenchmarkCheck is what all checks add to a letter of 10 KiB, iprev, SPF, DKIM and DMARC together, when
// every answer of the DNS is cached; BenchmarkCrypto's verify is the part of it that cannot be less.
func BenchmarkCheck(b *testing.B) {
	for _, algorithm := range []string{"rsa", "ed25519"} {
		b.Run(algorithm, func(b *testing.B) {
			header, body, zone := benchmarkLetter(b, algorithm)
			server := relaytest.ServeDNS(b, zone)
			dns, err := resolver.New([]netip.AddrPort{server.Addr()})
			if err != nil {
				b.Fatal(err)
			}
			defer dns.Close()
			letter := policy.Letter{Client: netip.MustParseAddr("192.0.2.1"), Helo: "mx.example.org", Header: header, Fields: 1,
				From: relay.Address{Local: "ann", Domain: "example.org"}, Authors: []relay.Domain{"example.org"}}
			check := func(ctx context.Context) string {
				c := policy.Begin(ctx, dns, letter)
				c.Write(body)
				return c.Finish().String()
			}
			if got := check(b.Context()); got != "iprev=pass spf=pass spf=none dkim=pass dmarc=pass" {
				b.Fatal(got)
			}
			questions := func() (n int) {
				for _, q := range []string{"_dmarc.example.org. TXT", "_dmarc.org. TXT", "example.org. TXT", "mx.example.org. TXT", "s._domainkey.example.org. TXT"} {
					n += server.Asked(q)
				}
				return n
			}
			asked := questions()
			b.SetBytes(int64(len(header) + len(body)))
			b.ReportAllocs()
			for b.Loop() {
				check(b.Context())
			}
			perSecond(b)
			if now := questions(); now != asked {
				b.Errorf("%d questions were not cached", now-asked)
			}
		})
	}
}
