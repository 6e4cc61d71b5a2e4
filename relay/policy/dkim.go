package policy

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"relayd/relay"
)

// The bounds of verification: whoever writes a letter decides how many signatures it has, and who
// signs decides how long the key is.
const (
	maxSignatures = 8
	minKeyBits    = 1024 // RFC 8301 §3.2
	maxKeyBits    = 8192
	maxSigned     = 1000 // names in h=
)

// signature is one DKIM-Signature field (RFC 6376 §3.5).
type signature struct {
	field    string // as it stands in the letter
	domain   string // d=, lower case
	selector string
	algo     string // a=, lower case
	value    string // b= without white space
	bodySum  []byte
	sig      []byte
	signed   []string // h=, lower case
	relaxed  bool     // of the header
	body     bool     // relaxed, of the body
	length   int64    // l=; -1: all of the body
	strict   bool     // i= is another domain than d=, which a key with t=s forbids

	result Result
	reason string
	key    crypto.PublicKey
}

// judgement is why a signature does not count.
type judgement struct {
	result Result
	reason string
}

func (v *judgement) Error() string { return string(v.result) + ": " + v.reason }

func judged(r Result, format string, args ...any) error {
	return &judgement{r, fmt.Sprintf(format, args...)}
}

func (s *signature) judge(err error) {
	if v, ok := errors.AsType[*judgement](err); ok {
		s.result, s.reason = v.result, v.reason
	} else if err != nil {
		s.result, s.reason = TempError, "the key could not be asked for"
	}
}

// tags reads a tag list (RFC 6376 §3.2). A tag that is given twice makes all of it worthless.
func tags(text string) (map[string]string, bool) {
	all := map[string]string{}
	for part := range strings.SplitSeq(text, ";") {
		name, value, ok := strings.Cut(part, "=")
		name = strings.Trim(name, " \t\r\n")
		if name == "" && !ok {
			continue // behind the last semicolon
		}
		if _, twice := all[name]; !ok || twice || name == "" || len(all) > 100 {
			return nil, false
		}
		all[name] = strings.Trim(value, " \t\r\n")
	}
	return all, true
}

func withoutSpace(s string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(" \t\r\n", r) {
			return -1
		}
		return r
	}, s)
}

// readSignature reads a DKIM-Signature field. The signature is never nil: what could be read of
// it is shown to the reader of the letter.
func readSignature(field string, now time.Time) *signature {
	s := &signature{field: field, length: -1}
	_, text, _ := strings.Cut(field, ":")
	t, ok := tags(text)
	if !ok {
		s.judge(judged(Neutral, "the signature is not a list of tags"))
		return s
	}
	s.domain, s.selector = strings.ToLower(withoutSpace(t["d"])), withoutSpace(t["s"])
	s.algo, s.value = strings.ToLower(withoutSpace(t["a"])), withoutSpace(t["b"])
	s.judge(s.read(t, now))
	return s
}

func (s *signature) read(t map[string]string, now time.Time) error {
	for _, name := range []string{"v", "a", "b", "bh", "d", "h", "s"} {
		if t[name] == "" {
			return judged(Neutral, "the signature has no %s=", name)
		}
	}
	if t["v"] != "1" {
		return judged(Neutral, "the version of the signature is unknown")
	}
	if s.algo == "rsa-sha1" {
		return judged(Policy, "sha1 is too weak")
	}
	if s.algo != "rsa-sha256" && s.algo != "ed25519-sha256" {
		return judged(Neutral, "the algorithm is unknown")
	}
	var err1, err2 error
	s.sig, err1 = base64.StdEncoding.DecodeString(s.value)
	s.bodySum, err2 = base64.StdEncoding.DecodeString(withoutSpace(t["bh"]))
	if err1 != nil || err2 != nil {
		return judged(Neutral, "the signature is not in base64")
	}
	if q, ok := t["q"]; ok && !slices.Contains(strings.Split(withoutSpace(q), ":"), "dns/txt") {
		return judged(Neutral, "the key is not in the DNS")
	}
	if !isName(s.domain) || !isName(s.selector) {
		return judged(Neutral, "the signature names no domain")
	}
	return errors.Join(s.readIdentity(t), s.readForms(t), s.readSigned(t), s.readTimes(t, now))
}

// isName says whether s may be asked for in the DNS.
func isName(s string) bool {
	return s != "" && len(s) < 254 && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '\\' || r == '"' })
}

// readIdentity checks that i= lies in d=, in any case of letters (RFC 6376 §3.5).
func (s *signature) readIdentity(t map[string]string) error {
	i, ok := t["i"]
	if !ok {
		return nil
	}
	i = strings.ToLower(withoutSpace(i))
	domain := i[strings.LastIndexByte(i, '@')+1:]
	if !strings.Contains(i, "@") || domain != s.domain && !strings.HasSuffix(domain, "."+s.domain) {
		return judged(PermError, "i= does not lie in d=")
	}
	s.strict = domain != s.domain
	return nil
}

func (s *signature) readForms(t map[string]string) error {
	head, body, _ := strings.Cut(strings.ToLower(withoutSpace(t["c"])), "/")
	for _, form := range []string{head, body} {
		if form != "" && form != "simple" && form != "relaxed" {
			return judged(Neutral, "the canonical form is unknown")
		}
	}
	s.relaxed, s.body = head == "relaxed", body == "relaxed"
	if l, ok := t["l"]; ok {
		n, err := strconv.ParseUint(withoutSpace(l), 10, 62)
		if err != nil {
			return judged(Neutral, "l= is not a number")
		}
		s.length = int64(n)
	}
	return nil
}

func (s *signature) readSigned(t map[string]string) error {
	s.signed = strings.Split(strings.ToLower(withoutSpace(t["h"])), ":")
	if !slices.Contains(s.signed, "from") {
		return judged(PermError, "From is not signed")
	}
	if len(s.signed) > maxSigned {
		return judged(Policy, "more than %d fields are signed", maxSigned)
	}
	return nil
}

func (s *signature) readTimes(t map[string]string, now time.Time) error {
	x, ok := t["x"]
	if !ok {
		return nil
	}
	end, err := strconv.ParseUint(withoutSpace(x), 10, 62)
	if err != nil {
		return judged(Neutral, "x= is not a time")
	}
	if now.Unix() > int64(end) {
		return judged(Fail, "the signature has expired")
	}
	return nil
}

// findKey asks for the key. It is called once, beside everything else that is asked.
func (s *signature) findKey(ctx context.Context, dns relay.Resolver) {
	records, err := dns.TXT(ctx, s.selector+"._domainkey."+s.domain)
	if errors.Is(err, relay.ErrNoRecord) {
		err = judged(PermError, "there is no key")
	}
	if err == nil {
		s.key, err = s.readKey(records)
	}
	s.judge(err)
}

// readKey finds the key in its record (RFC 6376 §3.6.1, RFC 8463 §4).
func (s *signature) readKey(records []string) (crypto.PublicKey, error) {
	var t map[string]string
	for _, r := range records {
		found, ok := tags(r)
		if _, isKey := found["p"]; !ok || !isKey {
			continue // whatever a wildcard answers
		}
		if t != nil {
			return nil, judged(PermError, "there is more than one key")
		}
		t = found
	}
	kind, _, _ := strings.Cut(s.algo, "-")
	k, given := t["k"]
	hashes, hashesGiven := t["h"]
	uses, usesGiven := t["s"]
	flags := strings.Split(withoutSpace(t["t"]), ":")
	list := func(text string) []string { return strings.Split(withoutSpace(text), ":") }
	switch {
	case t == nil:
		return nil, judged(PermError, "there is no key")
	case t["v"] != "" && t["v"] != "DKIM1":
		return nil, judged(PermError, "the record is not a DKIM key")
	case t["p"] == "":
		return nil, judged(PermError, "the key has been revoked")
	case given && k != kind, !given && kind != "rsa":
		return nil, judged(PermError, "the key is of another kind")
	case hashesGiven && !slices.Contains(list(hashes), "sha256"):
		return nil, judged(PermError, "the key is not for sha256")
	case usesGiven && !slices.Contains(list(uses), "*") && !slices.Contains(list(uses), "email"):
		return nil, judged(PermError, "the key is not for mail")
	case s.strict && slices.Contains(flags, "s"):
		return nil, judged(PermError, "the key is not for subdomains")
	}
	der, err := base64.StdEncoding.DecodeString(withoutSpace(t["p"]))
	if err != nil {
		return nil, judged(PermError, "the key is not in base64")
	}
	return parseKey(kind, der)
}

func parseKey(kind string, der []byte) (crypto.PublicKey, error) {
	if kind == "ed25519" {
		if len(der) != ed25519.PublicKeySize {
			return nil, judged(PermError, "the key cannot be read")
		}
		return ed25519.PublicKey(der), nil
	}
	// Both forms are in use (RFC 6376, erratum 3017).
	found, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		found, err = x509.ParsePKCS1PublicKey(der)
	}
	key, ok := found.(*rsa.PublicKey)
	if err != nil || !ok {
		return nil, judged(PermError, "the key cannot be read")
	}
	if bits := key.N.BitLen(); bits < minKeyBits || bits > maxKeyBits {
		return nil, judged(Policy, "the key has %d bits", bits)
	}
	return key, nil
}

// letter is what all signatures of a letter have in common.
type letter struct {
	header []string
	bodies [2]*bodyHash // simple, relaxed; nil where no signature needs it
	sums   [2][]byte
}

// verify compares the signature with the letter, of which everything has been seen.
func (s *signature) verify(l *letter) {
	form := 0
	if s.body {
		form = 1
	}
	total := l.bodies[form].size
	switch {
	case s.length >= 0 && s.length > total:
		s.judge(judged(Fail, "the body is shorter than l= says"))
	case s.length >= 0 && s.length < total:
		// Whatever stands behind could be anybody's, and a reader sees no border.
		s.judge(judged(Policy, "l= leaves a part of the body unsigned"))
	case !bytes.Equal(l.sums[form], s.bodySum):
		s.judge(judged(Fail, "the body has been changed"))
	case !s.fits(s.headerSum(l.header)):
		s.judge(judged(Fail, "the header has been changed"))
	default:
		s.result = Pass
	}
}

func (s *signature) fits(sum []byte) bool {
	switch key := s.key.(type) {
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(key, crypto.SHA256, sum, s.sig) == nil
	case ed25519.PublicKey:
		return ed25519.Verify(key, sum, s.sig)
	}
	return false
}

// headerSum hashes the signed fields, of several with one name the last first, and the signature
// itself without b= (RFC 6376 §3.7, §5.4.2).
func (s *signature) headerSum(header []string) []byte {
	places := map[string][]int{}
	for i, field := range header {
		name, _, _ := strings.Cut(field, ":")
		name = strings.ToLower(strings.TrimRight(name, " \t"))
		places[name] = append(places[name], i)
	}
	sum := sha256.New()
	for _, name := range s.signed {
		if left := places[name]; len(left) > 0 {
			sum.Write([]byte(canonicalField(header[left[len(left)-1]], s.relaxed)))
			places[name] = left[:len(left)-1]
		}
	}
	own := canonicalField(withoutValue(s.field), s.relaxed)
	sum.Write([]byte(strings.TrimSuffix(own, "\r\n")))
	return sum.Sum(nil)
}

// withoutValue empties b= and leaves everything else as it is.
func withoutValue(field string) string {
	head, text, _ := strings.Cut(field, ":")
	parts := strings.Split(text, ";")
	for i, part := range parts {
		if name, _, ok := strings.Cut(part, "="); ok && strings.Trim(name, " \t\r\n") == "b" {
			parts[i] = name + "="
		}
	}
	return head + ":" + strings.Join(parts, ";")
}
