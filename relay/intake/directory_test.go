package intake_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"relayd/relay"
	"relayd/relay/intake"
)

// people is a Users of the mailboxes it lists.
type people []string

func (p people) Mailbox(a relay.Address) (relay.Address, bool) {
	a.Local = strings.ToLower(a.Local)
	return a, slices.Contains(p, a.String())
}

func office() *intake.Directory {
	return &intake.Directory{
		Hostname: "mail.office.example", Default: "office.example", Delimiter: "+",
		Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("2001:db8:1::/48")},
		Users:   people{"ann@office.example", "bob@office.example", "carol@branch.example", "self@office.example"},
		Domains: map[relay.Domain]intake.Domain{
			"office.example": {Postmaster: "ann", Aliases: map[string][]string{
				"sales":  {"ann", "bob", "dora@partner.example"},
				"all":    {"sales", "carol@branch.example"},
				"away":   {"ann@elsewhere.example"},
				"ghost":  {"nobody"},
				"self":   {"self", "bob"},
				"circle": {"circle2"}, "circle2": {"circle"},
			}},
			"branch.example": {},
		},
	}
}

var (
	stranger = relay.Origin{Client: netip.MustParseAddrPort("192.0.2.9:4000"), Server: netip.MustParseAddrPort("198.51.100.1:25")}
	trusted  = relay.Origin{Client: netip.MustParseAddrPort("127.0.0.1:4000"), Server: netip.MustParseAddrPort("127.0.0.1:25"), Trusted: true}
)

// Each line is one dress an open relay comes in (hazards, attacks 4), or one that only looks it.
func TestClassifyFromAStranger(t *testing.T) {
	for _, c := range []struct{ path, want string }{
		{"<ann@office.example>", "ann@office.example"},
		{"<ANN@OFFICE.EXAMPLE>", "ann@office.example"},
		{"<ann@office.example.>", "ann@office.example"},
		{"<ann+tag@office.example>", "ann@office.example"},
		{"<ann+@office.example>", "ann@office.example"},
		{`<"ann"@office.example>`, "ann@office.example"},
		{"<@relay.example,@other.example:ann@office.example>", "ann@office.example"},
		{"<ann@[198.51.100.1]>", "ann@office.example"},
		{"<ann@[IPv6:::ffff:198.51.100.1]>", "ann@office.example"},
		{"<ann@mail.office.example>", "ann@office.example"},
		{"<ann@ｏｆｆｉｃｅ.example>", "ann@office.example"}, // IDNA maps full width to the same name
		{"<postmaster>", "ann@office.example"},
		{"<PostMaster>", "ann@office.example"},
		{"<postmaster@office.example>", "ann@office.example"},
		{"<postmaster@branch.example>", "postmaster@branch.example"},
		{"<postmaster@mail.office.example>", "ann@office.example"},
		{"<sales@office.example>", "ann@office.example bob@office.example >dora@partner.example"},
		{"<Sales+x@office.example>", "ann@office.example bob@office.example >dora@partner.example"},
		{"<all@office.example>", "ann@office.example bob@office.example >dora@partner.example carol@branch.example"},
		{"<away@office.example>", ">ann@elsewhere.example"},
		{"<self@office.example>", "self@office.example bob@office.example"},

		{"<nobody@office.example>", "5.1.1"},
		{"<ghost@office.example>", "5.1.1"},
		{"<circle@office.example>", "5.1.1"},
		{"<+tag@office.example>", "5.1.1"},
		{"<ann@branch.example>", "5.1.1"},
		{"<dora%partner.example@office.example>", "5.1.1"},
		{"<ann%office.example@office.example>", "5.1.1"},
		{"<partner.example!dora@office.example>", "5.1.1"},
		{`<"dora@partner.example"@office.example>`, "5.1.1"},
		{`<"@partner.example:dora"@office.example>`, "5.1.1"},
		{"<ann@sub.office.example>", "5.7.1"},
		{"<ann@office.example.partner.example>", "5.7.1"},
		{"<ann@xoffice.example>", "5.7.1"},
		{"<ann@оffice.example>", "5.7.1"}, // Cyrillic о
		{"<dora@partner.example>", "5.7.1"},
		{"<@office.example:dora@partner.example>", "5.7.1"},
		{"<dora%office.example@partner.example>", "5.7.1"},
		{"<ann@[192.0.2.77]>", "5.7.1"},
		{"<ann@[127.0.0.1]>", "5.7.1"},
		{"<ann@[IPv6:2001:db8::1]>", "5.7.1"},
		{"<ann@198.51.100.1>", "5.7.1"},
	} {
		if got := classify(t, stranger, c.path); got != c.want {
			t.Errorf("%s: got %q, want %q", c.path, got, c.want)
		}
	}
}

func TestClassifyMayRelay(t *testing.T) {
	loggedIn := stranger
	loggedIn.User = "ann@office.example"
	for _, o := range []relay.Origin{trusted, loggedIn} {
		for path, want := range map[string]string{
			"<dora@partner.example>":   ">dora@partner.example",
			"<d%e@partner.example>":    ">d%e@partner.example",
			"<ann@sub.office.example>": ">ann@sub.office.example",
			"<nobody@office.example>":  "5.1.1",
		} {
			if got := classify(t, o, path); got != want {
				t.Errorf("%s: got %q, want %q", path, got, want)
			}
		}
	}
}

func TestTrusts(t *testing.T) {
	d := office()
	for addr, want := range map[string]bool{
		"127.0.0.1": true, "127.9.9.9": true, "::ffff:127.0.0.1": true, "2001:db8:1::5": true,
		"128.0.0.1": false, "2001:db8:2::5": false, "::1": false,
	} {
		if got := d.Trusts(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %v, want %v", addr, got, want)
		}
	}
	if d.Trusts(netip.Addr{}) {
		t.Error("an unknown client is trusted")
	}
}

// The alias that is a bomb costs a refusal, not the machine.
func TestClassifyBoundsAliases(t *testing.T) {
	d := office()
	var many []string
	for i := range 2000 {
		many = append(many, "x"+strings.Repeat("y", i%50)+string(relay.NewID(d0))+"@partner.example")
	}
	d.Domains["office.example"].Aliases["bomb"] = many
	_, err := d.Classify(stranger, relay.Address{Local: "bomb", Domain: "office.example"})
	if f, ok := errors.AsType[*relay.Failure](err); !ok || f.Reply.Code != 550 {
		t.Errorf("got %v", err)
	}
}

func classify(t *testing.T, o relay.Origin, path string) string {
	t.Helper()
	to, err := relay.ParsePath(path, true)
	if err != nil {
		t.Errorf("%s: %v", path, err)
		return ""
	}
	found, err := office().Classify(o, to)
	if f, ok := errors.AsType[*relay.Failure](err); ok {
		if f.Reply.Code != 550 {
			t.Errorf("%s: refused with %d", path, f.Reply.Code)
		}
		return f.Reply.Status.String()
	}
	var out []string
	for _, r := range found {
		if r.Mailbox.IsNull() {
			out = append(out, ">"+r.Addr.String())
		} else {
			out = append(out, r.Mailbox.String())
		}
	}
	return strings.Join(out, " ")
}
