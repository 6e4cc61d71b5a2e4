package policy_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/dkim"
	"pgregory.net/rapid"

	"relayd/relay"
	"relayd/relay/policy"
)

// texts is a DNS that knows TXT records and nothing else.
type texts map[string][]string

func (z texts) TXT(_ context.Context, name string) ([]string, error) {
	if r, ok := z[name]; ok {
		return r, nil
	}
	return nil, relay.ErrNoRecord
}
func (texts) MX(context.Context, relay.Domain) ([]relay.MX, error) { return nil, relay.ErrNoRecord }
func (texts) Addrs(context.Context, relay.Domain) ([]netip.Addr, error) {
	return nil, relay.ErrNoRecord
}
func (texts) PTR(context.Context, netip.Addr) ([]relay.Domain, error) { return nil, relay.ErrNoRecord }

const key = "sel._domainkey.example.org"

func edKey(t testing.TB) (crypto.Signer, texts) {
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return priv, texts{key: {"v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(pub)}}
}

func sign(t interface{ Fatal(...any) }, o dkim.SignOptions, message string) string {
	var b bytes.Buffer
	o.Domain, o.Selector = "example.org", "sel"
	if err := dkim.Sign(&b, strings.NewReader(message), &o); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// look checks a letter whose body comes in pieces of size octets.
func look(dns relay.Resolver, message string, size int) []policy.Finding {
	head, body, _ := strings.Cut(message, "\r\n\r\n")
	c := policy.Begin(context.Background(), dns, policy.Letter{
		Client: netip.MustParseAddr("192.0.2.1"), Header: []byte(head + "\r\n"), Fields: 1, Authors: []relay.Domain{"example.org"},
	})
	for len(body) > 0 {
		n := min(size, len(body))
		c.Write([]byte(body[:n]))
		body = body[n:]
	}
	var out []policy.Finding
	for _, f := range c.Finish().All {
		if f.Method == "dkim" {
			out = append(out, f)
		}
	}
	return out
}

const head = "From: Ann <ann@example.org>\r\nSubject:  a  subject\r\n\t folded \r\nTo: bob@office.test\r\n"

// TestSignersAgree signs bodies of every shape with the library that signs for us and reads them
// in pieces: what it says holds, and a change of one octet does not.
func TestSignersAgree(t *testing.T) {
	t.Parallel()
	signer, dns := edKey(t)
	forms := []dkim.Canonicalization{dkim.CanonicalizationSimple, dkim.CanonicalizationRelaxed}
	piece := rapid.SampledFrom([]string{"\r\n", "\r\n\r\n", " ", "\t", "a", "b c", " \r\n", "x\r\n", "long text of a line"})
	rapid.Check(t, func(r *rapid.T) {
		body := strings.Join(rapid.SliceOfN(piece, 0, 12).Draw(r, "body"), "")
		if body != "" && !strings.HasSuffix(body, "\r\n") {
			body += "\r\n"
		}
		o := dkim.SignOptions{
			Signer: signer, HeaderCanonicalization: rapid.SampledFrom(forms).Draw(r, "header form"),
			BodyCanonicalization: rapid.SampledFrom(forms).Draw(r, "body form"),
		}
		message := sign(r, o, head+"\r\n"+body)
		size := rapid.IntRange(1, 40).Draw(r, "size")
		if got := look(dns, message, size); len(got) != 1 || got[0].Result != policy.Pass {
			r.Fatalf("%+v of %q", got, message)
		}
		for _, changed := range []string{message + "y", strings.Replace(message, "Ann", "Eve", 1)} {
			if got := look(dns, changed, size); got[0].Result != policy.Fail {
				r.Fatalf("%+v of %q", got, changed)
			}
		}
	})
}

// TestSignatures says what becomes of signatures that are unusual, weak or wrong.
func TestSignatures(t *testing.T) {
	t.Parallel()
	signer, dns := edKey(t)
	record := dns[key][0]
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	der, _ := x509.MarshalPKIXPublicKey(&small.PublicKey)
	small1024 := "k=rsa; p=" + base64.StdEncoding.EncodeToString(der)
	const key512 = "p=MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAL1vWzb0nqFqCWIm2d4rZHBzgqWRpgLkDdHXhVn1eT8XXpTPGwTfHNZPxK7mJ0sMmwCoLpHaO5h4b9S5Xr7b2uECAwEAAQ=="
	for _, c := range []struct {
		name   string
		o      dkim.SignOptions
		record string
		change func(string) string
		want   policy.Result
	}{
		{name: "plain", want: policy.Pass},
		{name: "i= in other letters than d=", o: dkim.SignOptions{Identifier: "Ann@EXAMPLE.org"}, want: policy.Pass},
		{name: "i= below d=", o: dkim.SignOptions{Identifier: "ann@news.example.org"}, want: policy.Pass},
		{name: "i= below d=, key with t=s", o: dkim.SignOptions{Identifier: "ann@news.example.org"}, record: record + "; t=s", want: policy.PermError},
		{name: "i= elsewhere", o: dkim.SignOptions{Identifier: "ann@badexample.org"}, want: policy.PermError},
		{name: "expired", o: dkim.SignOptions{Expiration: time.Unix(1, 0)}, want: policy.Fail},
		{name: "not yet expired", o: dkim.SignOptions{Expiration: time.Now().Add(time.Hour)}, want: policy.Pass},
		{name: "key for other hashes", record: record + "; h=sha1", want: policy.PermError},
		{name: "key for other services", record: record + "; s=tlsrpt", want: policy.PermError},
		{name: "key of another version", record: strings.Replace(record, "DKIM1", "DKIM2", 1), want: policy.PermError},
		{name: "key of another kind", record: small1024, want: policy.PermError},
		{name: "1024 bits", o: dkim.SignOptions{Signer: small}, record: small1024, want: policy.Pass},
		{name: "512 bits", o: dkim.SignOptions{Signer: small}, record: key512, want: policy.Policy},
		{name: "key not in base64", record: "k=ed25519; p=!", want: policy.PermError},
		{name: "a tag twice", change: func(s string) string { return strings.Replace(s, "v=1;", "v=1; v=1;", 1) }, want: policy.Neutral},
		{name: "no tags", change: func(s string) string { return "DKIM-Signature: nonsense\r\n" + head + "\r\nx\r\n" }, want: policy.Neutral},
		{name: "unknown version", change: func(s string) string { return strings.Replace(s, "v=1;", "v=2;", 1) }, want: policy.Neutral},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.o.Signer == nil {
				c.o.Signer = signer
			}
			zone := texts{key: {record}}
			if c.record != "" {
				zone[key] = []string{c.record}
			}
			message := sign(t, c.o, head+"\r\nx\r\n")
			if c.change != nil {
				message = c.change(message)
			}
			if got := look(zone, message, 100); got[0].Result != c.want {
				t.Errorf("%+v, want %s", got[0], c.want)
			}
		})
	}
}

// TestBodyLength signs with l=, which the library does not: a pass only where it covers all.
func TestBodyLength(t *testing.T) {
	t.Parallel()
	signer, dns := edKey(t)
	for length, want := range map[int]policy.Result{3: policy.Pass, 2: policy.Policy, 0: policy.Policy, 4: policy.Fail} {
		message := sign(t, dkim.SignOptions{Signer: signer}, head+"\r\nx\r\n")
		field, rest, _ := strings.Cut(message, "From: ")
		field = strings.Replace(field, " h=", fmt.Sprintf(" l=%d; h=", length), 1)
		if got := look(dns, field+"From: "+rest, 100); want != policy.Pass && got[0].Result != want {
			t.Errorf("l=%d: %+v, want %s", length, got[0], want)
		} else if want == policy.Pass && got[0].Reason != "the header has been changed" {
			// l= is part of what is signed: everything else must have been right.
			t.Errorf("l=%d: %+v, want only its own header to be changed", length, got[0])
		}
	}
}

// TestHostileSignatures: thousands of signatures, names and empty lines are looked at in no time.
func TestHostileSignatures(t *testing.T) {
	t.Parallel()
	signer, dns := edKey(t)
	one, _, _ := strings.Cut(sign(t, dkim.SignOptions{Signer: signer}, head+"\r\nx\r\n"), "From: ")
	many := strings.Replace(one, " h=", " h="+strings.Repeat("from:", 5000), 1)
	start := time.Now()
	got := look(dns, strings.Repeat(many, 20)+head+"\r\n"+strings.Repeat("\r\n", 1<<20)+"x\r\n", 32<<10)
	if len(got) != 9 || got[0].Result != policy.Policy || got[8].Reason != "only 8 signatures are looked at" {
		t.Errorf("%+v", got)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}

func BenchmarkVerify(b *testing.B) {
	for _, form := range []dkim.Canonicalization{dkim.CanonicalizationSimple, dkim.CanonicalizationRelaxed} {
		b.Run(string(form), func(b *testing.B) {
			signer, dns := edKey(b)
			message := sign(b, dkim.SignOptions{Signer: signer, BodyCanonicalization: form}, head+"\r\n"+strings.Repeat(strings.Repeat("0123456789 abcdef", 4)+"\r\n", 15000))
			b.SetBytes(int64(len(message)))
			for b.Loop() {
				if got := look(dns, message, 32<<10); got[0].Result != policy.Pass {
					b.Fatal(got)
				}
			}
			perSecond(b)
		})
	}
}
