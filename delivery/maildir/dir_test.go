package maildir_test

import (
	"path/filepath"
	"strings"
	"testing"

	"relayd/delivery/maildir"
	"relayd/relay"
)

func TestDir(t *testing.T) {
	t.Parallel()
	for local, want := range map[string]string{
		"ann":                    "ann",
		"Ann.Lee+x=y_z-1":        "ann.lee+x=y_z-1",
		"":                       "%",
		".":                      "%2E",
		"..":                     "%2E.",
		".hidden":                "%2Ehidden",
		"-rf":                    "%2Drf",
		"../../etc/passwd":       "%2E.%2F..%2Fetc%2Fpasswd",
		"a\x00b":                 "a%00b",
		"a%2Fb":                  "a%252fb",
		"a b":                    "a%20b",
		"%":                      "%25",
		"tmp":                    "tmp",
		"J\u00FCrgen":            "j\u00FCrgen",
		"Ju\u0308rgen":           "j\u00FCrgen",
		"\u202Eevil":             "%E2%80%AEevil",
		"\xff\xfe":               "%FF%FE",
		"\uFFFD":                 "%EF%BF%BD",
		strings.Repeat("a", 200): strings.Repeat("a", 200),
	} {
		got := maildir.Dir("/mail", relay.Address{Local: local, Domain: "Office.example"})
		if got != "/mail/office.example/"+want {
			t.Errorf("%q: %s, want %s", local, got, want)
		}
	}
	long := maildir.Dir("/mail", relay.Address{Local: strings.Repeat("\u00e4", 500), Domain: "[IPv6:::1]"})
	if len(filepath.Base(long)) > 200 || !strings.HasPrefix(long, "/mail/%5Bipv6%3A%3A%3A1%5D/\u00e4") {
		t.Errorf("long name: %s", long)
	}
}

// A mailbox's directory is root/<domain>/<local>, whatever the address is, and two mailboxes share
// one only if they are the same after normalisation.
func FuzzDir(f *testing.F) {
	f.Add("ann", "office.example", "..", "office.example")
	f.Add("a/../b", "..", "\xff", "\u212A")
	f.Add(strings.Repeat("\x00", 300), "%", "%25", "\u0130")
	f.Fuzz(func(t *testing.T, local, domain, local2, domain2 string) {
		const root = "/srv/mail"
		a := relay.Address{Local: local, Domain: relay.Domain(domain)}
		b := relay.Address{Local: local2, Domain: relay.Domain(domain2)}
		dir := maildir.Dir(root, a)
		if filepath.Clean(dir) != dir || filepath.Dir(filepath.Dir(dir)) != root {
			t.Errorf("%q leads to %q", a, dir)
		}
		for _, part := range strings.Split(strings.TrimPrefix(dir, root+"/"), "/") {
			if part == "" || len(part) > 200 || strings.HasPrefix(part, ".") || strings.ContainsAny(part, "\x00/") {
				t.Errorf("%q has the component %q", a, part)
			}
		}
		fold := func(a relay.Address) relay.Address {
			return relay.Address{Local: maildir.Fold(a.Local), Domain: relay.Domain(maildir.Fold(string(a.Domain)))}
		}
		if got := maildir.Dir(root, fold(a)); got != dir {
			t.Errorf("%q lies in %q, normalised in %q", a, dir, got)
		}
		if same := fold(a) == fold(b); same != (dir == maildir.Dir(root, b)) {
			t.Errorf("%q and %q: same mailbox %v, directories %q and %q", a, b, same, dir, maildir.Dir(root, b))
		}
	})
}
