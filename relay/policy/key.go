package policy

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"relayd/relay"
	"relayd/relay/durable"
)

// Role is what a key is for just now.
type Role string

// The roles. A domain has one active key of each algorithm; Next waits for its record and for
// Rotate, Old has signed letters that may still be under way.
const (
	Active Role = "active"
	Next   Role = "next"
	Old    Role = "old"
)

// The algorithms, by their names in a signature (RFC 6376 §3.3, RFC 8463 §3).
const (
	RSA     = "rsa-sha256"
	Ed25519 = "ed25519-sha256"
)

// rsaBits is what every verifier takes and what still fits into DNS answers (RFC 8301 §3.2).
const rsaBits = 2048

// Key is one key of a domain, and what is known of its record.
type Key struct {
	Domain    relay.Domain
	Selector  string
	Algorithm string // RSA or Ed25519
	Role      Role
	Made      time.Time
	Since     time.Time // it has its Role

	Visible bool      // its record was right when it was last seen
	Checked time.Time // when the DNS answered last; zero: not since the start
	Problem string    // why it is not Visible; empty before the first look

	signer crypto.Signer
	path   string
}

// newKey makes a key and puts it on the disk.
func newKey(path string, k Key) (*Key, error) {
	var err error
	if k.Algorithm == RSA {
		k.signer, err = rsa.GenerateKey(rand.Reader, rsaBits)
	} else {
		_, k.signer, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		return nil, fmt.Errorf("policy: make a key: %w", err)
	}
	k.path = path
	return &k, k.save()
}

// The headers of a key file.
const (
	roleHeader  = "Role"
	madeHeader  = "Made"
	sinceHeader = "Since"
	seenHeader  = "Seen" // present: its record was right
)

func (k *Key) save() error {
	der, err := x509.MarshalPKCS8PrivateKey(k.signer)
	if err != nil {
		return fmt.Errorf("policy: %s: %w", k.path, err)
	}
	b := &pem.Block{Type: "PRIVATE KEY", Bytes: der, Headers: map[string]string{
		roleHeader: string(k.Role), madeHeader: k.Made.Format(time.RFC3339), sinceHeader: k.Since.Format(time.RFC3339),
	}}
	if k.Visible {
		b.Headers[seenHeader] = "yes"
	}
	return durable.Replace(k.path, pem.EncodeToMemory(b))
}

// maxKeyFile bounds what is read of a key file, in octets.
const maxKeyFile = 64 << 10

// readKey reads a key file. A file of PKCS #8 without our headers is a Next key: whoever puts one
// there brings it along from another server.
func readKey(path string, domain relay.Domain, selector string) (*Key, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.Size() > maxKeyFile {
		return nil, errors.New("it is too large for a key")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New(`it is not a "PRIVATE KEY" in PEM (PKCS #8)`)
	}
	k := &Key{Domain: domain, Selector: selector, Role: Next, Made: st.ModTime(), Since: st.ModTime(), path: path}
	switch r := Role(block.Headers[roleHeader]); r {
	case Active, Old:
		k.Role = r
	}
	if t, err := time.Parse(time.RFC3339, block.Headers[madeHeader]); err == nil {
		k.Made = t
	}
	if t, err := time.Parse(time.RFC3339, block.Headers[sinceHeader]); err == nil {
		k.Since = t
	}
	k.Visible = block.Headers[seenHeader] != ""
	return k, k.parse(block.Bytes)
}

func (k *Key) parse(der []byte) error {
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return err
	}
	switch p := parsed.(type) {
	case *rsa.PrivateKey:
		if p.N.BitLen() < 1024 {
			return errors.New("an RSA key of less than 1024 bits is believed by nobody (RFC 8301 §3.2)")
		}
		k.Algorithm, k.signer = RSA, p
	case ed25519.PrivateKey:
		k.Algorithm, k.signer = Ed25519, p
	default:
		return fmt.Errorf("keys of type %T do not sign mail", p)
	}
	return nil
}

// RecordName is where the public half belongs in the DNS (RFC 6376 §3.6.2.1).
func (k *Key) RecordName() string { return k.Selector + "._domainkey." + string(k.Domain) }

// Record is the text of its TXT record.
func (k *Key) Record() string {
	if k.Algorithm == RSA {
		return "v=DKIM1; k=rsa; h=sha256; p=" + k.public()
	}
	return "v=DKIM1; k=ed25519; h=sha256; p=" + k.public()
}

// public is the p= of the record: the SubjectPublicKeyInfo of RSA, the bare 32 octets of Ed25519
// (RFC 8463 §4.2).
func (k *Key) public() string {
	if pub, ok := k.signer.Public().(ed25519.PublicKey); ok {
		return base64.StdEncoding.EncodeToString(pub)
	}
	der, err := x509.MarshalPKIXPublicKey(k.signer.Public())
	if err != nil {
		panic("policy: an RSA key without a public half: " + err.Error())
	}
	return base64.StdEncoding.EncodeToString(der)
}

// compare says what is wrong with the TXT records found at RecordName; empty: a verifier will find
// the key.
func (k *Key) compare(found []string) string {
	if len(found) != 1 {
		return fmt.Sprintf("there are %d records, verifiers want one (RFC 6376 §3.6.2.2)", len(found))
	}
	tags := map[string]string{}
	for part := range strings.SplitSeq(found[0], ";") {
		name, value, _ := strings.Cut(part, "=")
		// Blanks may stand anywhere in a folded value (RFC 6376 §3.2).
		tags[strings.TrimSpace(name)] = strings.Join(strings.Fields(value), "")
	}
	algorithm, _, _ := strings.Cut(k.Algorithm, "-")
	named, version := tags["k"], tags["v"]
	if named == "" {
		named = "rsa"
	}
	switch p := tags["p"]; {
	case version != "" && version != "DKIM1":
		return "the record is not one of DKIM"
	case p == "":
		return "the record has no key"
	case named != algorithm:
		return "the record is for another kind of key"
	case p != k.public() && strings.HasPrefix(k.public(), p):
		return "the record is cut short: servers want strings of at most 255 octets"
	case p != k.public():
		return "the record has another key"
	}
	return ""
}

// TXTStrings cuts the text of a TXT record into the strings of at most 255 octets that DNS servers
// hold (RFC 1035 §3.3), quoted for a zone file.
func TXTStrings(text string) string {
	const most = 255
	var parts []string
	for len(text) > most {
		parts, text = append(parts, text[:most]), text[most:]
	}
	parts = append(parts, text)
	for i, p := range parts {
		parts[i] = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(p) + `"`
	}
	return strings.Join(parts, " ")
}
