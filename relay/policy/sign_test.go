package policy

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/emersion/go-msgauth/dkim"

	"relayd/relay"
)

// zone is a DNS of TXT records.
type zone struct {
	mu   sync.Mutex
	txt  map[string][]string
	down bool
}

func (z *zone) TXT(_ context.Context, name string) ([]string, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.down {
		return nil, errors.New("nobody answers")
	}
	if found, ok := z.txt[name]; ok {
		return found, nil
	}
	return nil, relay.ErrNoRecord
}

func (z *zone) publish(keys ...Key) {
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, k := range keys {
		z.txt[k.RecordName()] = []string{k.Record()}
	}
}

const office relay.Domain = "office.example"

// newOffice has keys whose records are published and seen.
func newOffice(t *testing.T) (*Keys, *zone, []Key) {
	t.Helper()
	z := &zone{txt: map[string][]string{}}
	ks := open(t, filepath.Join(t.TempDir(), "dkim"), z)
	ks.SetDomains([]relay.Domain{office})
	z.publish(list(t, ks)...)
	return ks, z, list(t, ks)
}

func open(t *testing.T, dir string, z *zone) *Keys {
	t.Helper()
	ks, err := OpenKeys(dir, z, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return ks
}

func list(t *testing.T, ks *Keys) []Key {
	t.Helper()
	all, err := ks.List(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// sign returns the letter with its signatures in front, written in pieces of n octets.
func sign(t *testing.T, ks *Keys, letter string, n int) string {
	t.Helper()
	header, _, _ := strings.Cut(letter, "\r\n\r\n")
	s := ks.Sign(office, []byte(header+"\r\n"))
	if s == nil {
		return letter
	}
	defer s.Close()
	for rest := letter; rest != ""; {
		piece := rest[:min(n, len(rest))]
		s.Write([]byte(piece))
		rest = rest[len(piece):]
	}
	fields, err := s.Fields()
	if err != nil {
		t.Fatal(err)
	}
	return fields + letter
}

// verdict is "rsa pass, ed25519 pass" as go-msgauth's verifier sees it.
func verdict(t *testing.T, z *zone, letter string) string {
	t.Helper()
	if !strings.Contains(letter, "\r\n\r\n") {
		letter += "\r\n" // the verifier wants one
	}
	found, err := dkim.VerifyWithOptions(strings.NewReader(letter), &dkim.VerifyOptions{
		LookupTXT: func(name string) ([]string, error) { return z.TXT(t.Context(), name) }})
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for _, v := range found {
		word := "pass"
		if v.Err != nil {
			word = "fail"
		}
		words = append(words, string(v.Domain)+" "+word)
	}
	return strings.Join(words, ", ")
}

const dinner = "From: Ann <ann@office.example>\r\nTo: bob@partner.example\r\nSubject: dinner\r\n" +
	"Date: Sat, 21 Nov 2026 09:00:00 +0000\r\nMessage-ID: <1@office.example>\r\n"

const both = "office.example pass, office.example pass"

func TestSign(t *testing.T) {
	t.Parallel()
	ks, z, _ := newOffice(t)
	long := strings.Repeat("a  line of\twords  \r\n", 10_000)
	for name, letter := range map[string]string{
		"plain":        dinner + "\r\nready\r\n",
		"no body":      dinner + "\r\n",
		"header alone": dinner,
		"blanks":       dinner + "\r\n \r\n\t x  y \r\n\r\n \r\n\r\n",
		"only blanks":  dinner + "\r\n\r\n\r\n",
		"no last CRLF": dinner + "\r\nready",
		"dots, 8 bit":  dinner + "\r\n.\r\n..\r\nGr\xfc\xdfe \u00fc\r\n",
		"long":         dinner + "\r\n" + long,
		"odd header":   "x y z\r\n" + dinner + "X-Folded: a\r\n b\r\n\tc\r\nX-Raw: \xff\r\n\r\nx\r\n",
		"two subjects": "Subject: other\r\n" + dinner + "\r\nx\r\n",
		"list":         dinner + "List-Unsubscribe: <https://office.example/x>\r\n\r\nx\r\n",
	} {
		for _, n := range []int{1, 7, 32 << 10} {
			if n < 10 && len(letter) > 10_000 {
				continue
			}
			signed := sign(t, ks, letter, n)
			if got := verdict(t, z, signed); got != both {
				t.Errorf("%s in pieces of %d: %s\n%.2000s", name, n, got, signed)
			}
		}
	}
}

// Nothing that a reader sees may be added or changed; a mailing list may add its fields.
func TestSignatureCovers(t *testing.T) {
	t.Parallel()
	ks, z, _ := newOffice(t)
	letter := sign(t, ks, dinner+"List-Id: <ours.office.example>\r\n\r\nready\r\n", 4096)
	for _, field := range []string{"From: <eve@elsewhere.example>", "To: eve@elsewhere.example", "Cc: eve@elsewhere.example",
		"Subject: pay", "Date: Sat, 21 Nov 2025 09:00:00 +0000", "Message-ID: <2@x>", "Reply-To: eve@elsewhere.example",
		"MIME-Version: 1.0", "Content-Type: text/html", "Content-Transfer-Encoding: base64", "List-Id: <x>"} {
		if got := verdict(t, z, field+"\r\n"+letter); strings.Contains(got, "pass") {
			t.Errorf("with %s added: %s", field, got)
		}
	}
	if got := verdict(t, z, strings.Replace(letter, "ready", "spoilt", 1)); strings.Contains(got, "pass") {
		t.Errorf("with another body: %s", got)
	}
	relaxed := strings.Replace(letter, "ready", "ready  ", 1)
	if got := verdict(t, z, "List-Post: <mailto:list@lists.example>\r\nReceived: x\r\n"+relaxed); got != both {
		t.Errorf("through a mailing list: %s", got)
	}
}

func TestSignRunsOfBlanks(t *testing.T) {
	t.Parallel()
	ks, z, _ := newOffice(t)
	half := strings.Repeat("\r\n", maxBlank/4)
	letter := sign(t, ks, dinner+"\r\na"+half+"b"+half+"c\r\n", 1000)
	if got := verdict(t, z, letter); got != both {
		t.Errorf("two runs below the limit: %s", got)
	}
	s := ks.Sign(office, []byte(dinner))
	defer s.Close()
	s.Write([]byte(dinner + "\r\n"))
	for range 1000 {
		s.Write([]byte(half))
	}
	s.Write([]byte("x\r\n"))
	if fields, err := s.Fields(); !errors.Is(err, errBlank) || fields != "" {
		t.Errorf("far beyond the limit: %q, %v", fields, err)
	}
}

// The vectors of RFC 8463, appendix A: our record makes its signature pass, our hash is its hash.
func TestRFC8463(t *testing.T) {
	t.Parallel()
	seed, _ := base64.StdEncoding.DecodeString("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")
	der, err := x509.MarshalPKCS8PrivateKey(ed25519.NewKeyFromSeed(seed))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	folder := filepath.Join(dir, "football.example.com")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	data := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der, Headers: map[string]string{"Role": "active"}})
	if err := os.WriteFile(filepath.Join(folder, "brisbane.pem"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	z := &zone{txt: map[string][]string{}}
	ks := open(t, dir, z)
	z.publish(list(t, ks)...)
	k := list(t, ks)[0]
	if want := "v=DKIM1; k=ed25519; h=sha256; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="; k.Record() != want || !k.Visible {
		t.Errorf("the record is %q, seen %v", k.Record(), k.Visible)
	}
	const letter = "From: Joe SixPack <joe@football.example.com>\r\nTo: Suzie Q <suzie@shopping.example.net>\r\n" +
		"Subject: Is dinner ready?\r\nDate: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\n" +
		"Message-ID: <20030712040037.46341.5F8J@football.example.com>\r\n\r\n" +
		"Hi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n"
	const bh = "bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;"
	published := "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\r\n d=football.example.com; i=@football.example.com;\r\n" +
		" q=dns/txt; s=brisbane; t=1528637909; h=from : to :\r\n subject : date : message-id : from : subject : date;\r\n " + bh + "\r\n" +
		" b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus\r\n Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==\r\n"
	if got := verdict(t, z, published+letter); got != "football.example.com pass" {
		t.Errorf("the signature of the RFC: %s", got)
	}
	header, _, _ := strings.Cut(letter, "\r\n\r\n")
	s := ks.Sign("football.example.com", []byte(header+"\r\n"))
	s.Write([]byte(letter))
	fields, err := s.Fields()
	if err != nil || !strings.Contains(fields, bh) {
		t.Errorf("ours: %v\n%s", err, fields)
	}
	if got := verdict(t, z, fields+letter); got != "football.example.com pass" {
		t.Errorf("our signature: %s\n%s", got, fields)
	}
}

func BenchmarkSign(b *testing.B) {
	z := &zone{txt: map[string][]string{}}
	ks, err := OpenKeys(b.TempDir(), z, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	ks.SetDomains([]relay.Domain{office})
	all, _ := ks.List(b.Context(), false)
	z.publish(all...)
	ks.List(b.Context(), true)
	chunk := []byte(strings.Repeat("some words in a line of text, as letters have them\r\n", 600))
	for _, chunks := range []int{1, 100} {
		b.Run(fmt.Sprintf("%dkB", chunks*len(chunk)/1000), func(b *testing.B) {
			b.SetBytes(int64(chunks * len(chunk)))
			b.ReportAllocs()
			for b.Loop() {
				s := ks.Sign(office, []byte(dinner))
				s.Write([]byte(dinner + "\r\n"))
				for range chunks {
					s.Write(chunk)
				}
				if _, err := s.Fields(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "letters/s")
		})
	}
}
