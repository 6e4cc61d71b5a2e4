package policy

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"relayd/relay"
)

// records is a DNS of TXT records alone, which remembers what it was asked.
type records struct {
	texts map[string]string
	mu    sync.Mutex
	asked []string
}

func (z *records) TXT(_ context.Context, name string) ([]string, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.asked = append(z.asked, name)
	if text, ok := z.texts[name]; ok {
		return []string{text}, nil
	}
	return nil, relay.ErrNoName
}
func (*records) MX(context.Context, relay.Domain) ([]relay.MX, error) { return nil, relay.ErrNoRecord }
func (*records) Addrs(context.Context, relay.Domain) ([]netip.Addr, error) {
	return nil, relay.ErrNoRecord
}
func (*records) PTR(context.Context, netip.Addr) ([]relay.Domain, error) {
	return nil, relay.ErrNoRecord
}

// TestRFC9989Walk: the example of §4.10 needs eight questions, these.
func TestRFC9989Walk(t *testing.T) {
	t.Parallel()
	z := &records{}
	if _, err := Organization(t.Context(), z, "a.b.c.d.e.f.g.h.i.j.mail.example.com"); err != nil {
		t.Fatal(err)
	}
	want := []string{"_dmarc.a.b.c.d.e.f.g.h.i.j.mail.example.com", "_dmarc.g.h.i.j.mail.example.com", "_dmarc.h.i.j.mail.example.com",
		"_dmarc.i.j.mail.example.com", "_dmarc.j.mail.example.com", "_dmarc.mail.example.com", "_dmarc.example.com", "_dmarc.com"}
	if !slices.Equal(z.asked, want) {
		t.Errorf("asked for\n%s", strings.Join(z.asked, "\n"))
	}
}

// TestRFC9989Organization: the examples of §4.10.2.
func TestRFC9989Organization(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		texts map[string]string
		want  string
	}{
		{map[string]string{"_dmarc.mail.example.com": "v=DMARC1; p=none", "_dmarc.example.com": "v=DMARC1; p=none"}, "example.com"},
		{map[string]string{"_dmarc.mail.example.com": "v=DMARC1; p=none; psd=n", "_dmarc.example.com": "v=DMARC1; p=none"}, "mail.example.com"},
		{map[string]string{"_dmarc.com": "v=DMARC1; p=none; psd=y"}, "example.com"},
		{map[string]string{"_dmarc.example.com": "v=DMARC1; p=none; psd=y"}, "mail.example.com"},
		{nil, "a.mail.example.com"},
	} {
		if got, err := Organization(t.Context(), &records{texts: c.texts}, "a.mail.example.com"); got != c.want || err != nil {
			t.Errorf("%v: %s, %v, want %s", c.texts, got, err, c.want)
		}
	}
}

// TestRFC9989Alignment: the table of §4.4 and the examples of appendix B.1, by SPF and by DKIM alike.
func TestRFC9989Alignment(t *testing.T) {
	t.Parallel()
	z := &records{texts: map[string]string{"_dmarc.example.com": "v=DMARC1; p=reject", "_dmarc.example.net": "v=DMARC1; p=reject"}}
	for _, c := range []struct {
		author, proven  string
		relaxed, strict bool
	}{
		{"news.example.com", "foo.example.com", true, false},
		{"news.example.com", "news.example.com", true, true},
		{"news.example.com", "foo.example.net", false, false},
		{"example.com", "example.com", true, true},
		{"example.com", "child.example.com", true, false},
		{"child.example.com", "example.com", true, false},
		{"child.example.com", "example.net", false, false},
	} {
		tree := &tree{dns: z, seen: map[string]*found{}}
		for strict, want := range map[bool]bool{false: c.relaxed, true: c.strict} {
			if got, err := tree.aligned(t.Context(), c.author, c.proven, strict); got != want || err != nil {
				t.Errorf("%s for %s, strict %v: %v, %v", c.proven, c.author, strict, got, err)
			}
		}
		for _, spf := range []bool{false, true} {
			j := tree.judgeAuthor(t.Context(), c.author, []proof{{c.proven, Pass, spf}})
			if pass := j.result == Pass; pass != c.relaxed || spf && j.dkim || !spf && j.spf {
				t.Errorf("%s for %s: %+v", c.proven, c.author, j)
			}
		}
	}
}

// TestRFC9989Records: the records of appendix B.2 and B.3.
func TestRFC9989Records(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]record{
		"v=DMARC1; p=none; rua=mailto:dmarc-feedback@example.com":                                                                        {rua: "mailto:dmarc-feedback@example.com"},
		"v=DMARC1; p=none; rua=mailto:dmarc-feedback@example.com; ruf=mailto:auth-reports@example.com":                                   {rua: "mailto:dmarc-feedback@example.com"},
		"v=DMARC1; p=quarantine; rua=mailto:dmarc-feedback@example.com,mailto:tld-test@thirdparty.example.net; t=y":                      {p: WishQuarantine, sp: WishQuarantine, np: WishQuarantine, testing: true, rua: "mailto:dmarc-feedback@example.com,mailto:tld-test@thirdparty.example.net"},
		"v=DMARC1; p=reject; rua=mailto:dmarc-feedback@example.com,mailto:tld-test@thirdparty.example.net":                               {p: WishReject, sp: WishReject, np: WishReject, rua: "mailto:dmarc-feedback@example.com,mailto:tld-test@thirdparty.example.net"},
		"v=DMARC1; p=reject; aspf=r;\n     rua=mailto:dmarc-feedback@example.com":                                                        {p: WishReject, sp: WishReject, np: WishReject, rua: "mailto:dmarc-feedback@example.com"},
		"v=DMARC1; rua=mailto:aggregate-reports@thirdparty.example.net; ruf=mailto:failure-reports@thirdparty.example.net; pct=50; ri=1": {rua: "mailto:aggregate-reports@thirdparty.example.net"},
	} {
		if got, ok := parseRecord(text); !ok || got != want {
			t.Errorf("%q: %+v %v", text, got, ok)
		}
	}
	// B.3.1: both identifiers align, and so the policy is not applied.
	z := &records{texts: map[string]string{"_dmarc.example.com": "v=DMARC1; p=reject; aspf=r; rua=mailto:dmarc-feedback@example.com"}}
	tree := &tree{dns: z, seen: map[string]*found{}}
	j := tree.judgeAuthor(t.Context(), "example.com", []proof{{"mail.example.com", Pass, true}, {"example.com", Pass, false}})
	if j.result != Pass || !j.spf || !j.dkim {
		t.Errorf("%+v", j)
	}
}
