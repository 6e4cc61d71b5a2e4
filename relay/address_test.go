package relay_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"relayd/relay"
)

func TestParsePath(t *testing.T) {
	long := strings.Repeat("x", 65)
	for _, c := range []struct {
		in   string
		utf8 bool
		out  string
		err  error
	}{
		{"<>", false, "", nil},
		{"<ann@office.example>", false, "ann@office.example", nil},
		{"<Ann@OFFICE.Example.>", false, "Ann@office.example", nil},
		{`<"ann"@office.example>`, false, "ann@office.example", nil},
		{`<"a@b"@c.example>`, false, `"a@b"@c.example`, nil},
		{`<"a\"b\\c d"@c.example>`, false, `"a\"b\\c d"@c.example`, nil},
		{`<"a> NOTIFY=NEVER ORCPT=rfc822;x"@y.example>`, false, `"a> NOTIFY=NEVER ORCPT=rfc822;x"@y.example`, nil},
		{"<a..b@c.example>", false, `"a..b"@c.example`, nil},
		{"<@x.example:ann@office.example>", false, "ann@office.example", nil},
		{"<@x.example,@[IPv6:2001:db8::1]:ann@office.example>", false, "ann@office.example", nil},
		{"<postMASTER>", false, "postmaster", nil},
		{"<ann@[192.0.2.1]>", false, "ann@[192.0.2.1]", nil},
		{"<ann@[ipv6:2001:DB8:0:0::1]>", false, "ann@[IPv6:2001:db8::1]", nil},
		{"<jürgen@büro.example>", true, "jürgen@xn--bro-hoa.example", nil},
		{"<ann@büro.example>", true, "ann@xn--bro-hoa.example", nil},
		{"<" + long[1:] + "@c.example>", false, long[1:] + "@c.example", nil},

		{"<jürgen@büro.example>", false, "", relay.ErrNeedsUTF8},
		{"ann@office.example", false, "", relay.ErrAddressSyntax},
		{"<ann>", false, "", relay.ErrAddressSyntax},
		{"<@office.example>", false, "", relay.ErrAddressSyntax},
		{"<ann@>", false, "", relay.ErrDomainEmpty},
		{"<ann@.>", false, "", relay.ErrDomainEmpty},
		{"<ann@a..b>", false, "", relay.ErrDomainSyntax},
		{"<ann@office.example..>", false, "", relay.ErrDomainSyntax},
		{"<ann@off ice.example>", false, "", relay.ErrDomainSyntax},
		{"<a@b@c.example>", false, "", relay.ErrDomainSyntax},
		{"<a b@c.example>", false, "", relay.ErrAddressSyntax},
		{`<""@c.example>`, false, "", relay.ErrAddressSyntax},
		{`<"a\"@c.example>`, false, "", relay.ErrAddressSyntax},
		{`<"a"b@c.example>`, false, "", relay.ErrAddressSyntax},
		{"<ann@[192.0.2.1>", false, "", relay.ErrDomainSyntax},
		{"<ann@[300.0.2.1]>", false, "", relay.ErrDomainSyntax},
		{"<ann@[IPv6:fe80::1%eth0]>", false, "", relay.ErrDomainSyntax},
		{"<ann\x00@c.example>", false, "", relay.ErrControl},
		{"<ann\r\n@c.example>", false, "", relay.ErrControl},
		{"<a\u202eb@c.example>", true, "", relay.ErrControl},
		{"<a\xff@c.example>", true, "", relay.ErrAddressSyntax},
		{"<" + long + "@c.example>", false, "", relay.ErrLocalLong},
		{"<a@" + long + ".example>", false, "", relay.ErrDomainLong},
		{"<a@" + strings.Repeat("x.", 130) + "example>", false, "", relay.ErrDomainLong},
		{"<" + long[1:] + "@" + strings.Repeat("x.", 100) + "example>", false, "", relay.ErrPathLong},
		{"<" + strings.Repeat("x", 2000) + ">", false, "", relay.ErrPathLong},
	} {
		a, err := relay.ParsePath(c.in, c.utf8)
		if !errors.Is(err, c.err) || a.String() != c.out {
			t.Errorf("%.80q: got %q, %v; want %q, %v", c.in, a, err, c.out, c.err)
		}
	}
}

// What is parsed and written again means the same, and what is written can be put between angle
// brackets without opening a door.
func FuzzAddress(f *testing.F) {
	for _, s := range []string{`<"a@b"@c.example>`, "<@x:ann@office.example.>", "<>", "<postmaster>", `<"a\\\" "@[1.2.3.4]>`, "<jürgen@büro.example>"} {
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, s string, utf8OK bool) {
		a, err := relay.ParsePath(s, utf8OK)
		if err != nil {
			return
		}
		again, err := relay.ParsePath(a.Path(), utf8OK)
		if err != nil || again != a {
			t.Errorf("%q -> %q -> %q, %v", s, a.Path(), again, err)
		}
		if len(a.Path()) > relay.MaxPath || strings.ContainsAny(a.Path(), "\r\n\x00") {
			t.Errorf("%q -> %q", s, a.Path())
		}
		if !utf8OK && !a.IsASCII() {
			t.Errorf("%q is not ASCII", a)
		}
		if d, err := relay.ParseDomain(string(a.Domain)); a.Domain != "" && (err != nil || d != a.Domain) {
			t.Errorf("domain %q -> %q, %v", a.Domain, d, err)
		}
	})
}

func TestID(t *testing.T) {
	now := time.Date(2026, 11, 21, 9, 0, 0, 123e6, time.UTC)
	seen := map[relay.ID]bool{}
	for range 1000 {
		id := relay.NewID(now)
		if seen[id] {
			t.Fatalf("%s twice", id)
		}
		seen[id] = true
		if got, err := relay.ParseID(string(id)); err != nil || got != id {
			t.Fatalf("%s: %q, %v", id, got, err)
		}
	}
	if a, b := relay.NewID(now), relay.NewID(now.Add(time.Millisecond)); a >= b {
		t.Errorf("%s is not older than %s", a, b)
	}
	for _, bad := range []string{"", "short", "0123456789abcdeu", "0123456789abcde/", "0123456789ABCDEF", "0123456789abcdef0"} {
		if _, err := relay.ParseID(bad); !errors.Is(err, relay.ErrBadID) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestReplyIsTemporaryUnlessKnownBetter(t *testing.T) {
	for code, want := range map[int]bool{0: true, 421: true, 450: true, 354: true, 999: true, 250: false, 550: false} {
		if got := (relay.Reply{Code: code}).Temporary(); got != want {
			t.Errorf("%d: %v", code, got)
		}
	}
}

func TestParseStatus(t *testing.T) {
	for in, want := range map[string]bool{"5.1.1": true, "4.7.999": true, "2.0.0": true, "5.1": false, "3.1.1": false, "5.1.1000": false, "5..1": false, "5.-1.1": false, "5.+1.1": false} {
		if _, ok := relay.ParseStatus(in); ok != want {
			t.Errorf("%s: %v", in, ok)
		}
	}
}
