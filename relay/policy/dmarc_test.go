package policy

import (
	"slices"
	"strings"
	"testing"
	"time"
)

var now1 = time.Unix(1_700_000_000, 0)

func TestParseRecord(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]record{
		"v=DMARC1; p=reject":                                         {p: WishReject, sp: WishReject, np: WishReject},
		"v=DMARC1;p=Quarantine;SP=none;":                             {p: WishQuarantine},
		"v=DMARC1; p=none; sp=quarantine; np=reject":                 {sp: WishQuarantine, np: WishReject},
		"v=DMARC1; p=none; adkim=s; aspf=S; t=y; psd=y; pct=0; fo=1": {strictDKIM: true, strictSPF: true, testing: true, public: true, fo: "1"},
		"v=DMARC1; p=reject; psd=n; t=n; adkim=r; psd=y":             {p: WishReject, sp: WishReject, np: WishReject, private: true},
		// Without a usable p= there is a policy only for somebody who asks for reports.
		"v=DMARC1":                                   {useless: true},
		"v=DMARC1; p=refuse":                         {useless: true},
		"v=DMARC1; rua=mailto:A@b.c":                 {rua: "mailto:A@b.c"},
		"v=DMARC1; p=reject; sp=x; rua=mailto:a@b.c": {rua: "mailto:a@b.c"},
	} {
		if got, ok := parseRecord(text); !ok || got != want {
			t.Errorf("%q: %+v %v, want %+v", text, got, ok, want)
		}
	}
	for _, text := range []string{"", "v=spf1 -all", "v=DMARC12; p=reject", "p=reject; v=DMARC1", "v=dmarc1; p=reject", "DMARC1; p=none"} {
		if _, ok := parseRecord(text); ok {
			t.Errorf("%q is taken for a record", text)
		}
	}
}

func TestSteps(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"example":               "example",
		"a.example":             "a.example example",
		"a.b.c.d.e.f.g":         "a.b.c.d.e.f.g b.c.d.e.f.g c.d.e.f.g d.e.f.g e.f.g f.g g",
		"a.b.c.d.e.f.g.h":       "a.b.c.d.e.f.g.h b.c.d.e.f.g.h c.d.e.f.g.h d.e.f.g.h e.f.g.h f.g.h g.h h",
		"a.b.c.d.e.f.g.h.i.j.k": "a.b.c.d.e.f.g.h.i.j.k e.f.g.h.i.j.k f.g.h.i.j.k g.h.i.j.k h.i.j.k i.j.k j.k k",
	} {
		if got := steps(name); !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%s: %v", name, got)
		}
	}
}
