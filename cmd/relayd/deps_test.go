package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

// goPackage is what `go list` says of a package of ours.
type goPackage struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

func packages(t *testing.T) (all []goPackage) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", "relayd/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// neighbours says which rooms a room may import, beside relay and relay/durable, which all may.
// cmd/relayd has every key, but not that of relay/relaytest, which is for tests. Otherwise rooms
// meet through small interfaces that the caller declares, so that each can be read, tested and
// replaced alone.
var neighbours = map[string][]string{
	"relay/records":    {},
	"relay":            {}, // the words know nobody
	"relay/durable":    {},
	"relay/listen":     {},
	"relay/drop":       {},
	"relay/sasl":       {},
	"relay/smtpd":      {"relay/listen", "relay/sasl"},
	"relay/gate":       {},
	"relay/intake":     {"relay/policy", "relay/filter", "relay/gate", "relay/dmarc"}, // they find, intake decides, and a DMARC report says it
	"relay/filter":     {},
	"relay/policy":     {"relay/dmarc"}, // its findings are what a report counts
	"relay/dmarc":      {},
	"relay/known":      {},
	"relay/callout":    {},
	"relay/quota":      {},
	"relay/orders":     {},
	"relay/users":      {},
	"relay/autoconfig": {},
	"relay/certs":      {},
	"relay/resolver":   {},
	"relay/relaytest":  {},
	// relay/orders: its pauses and rules are what the verbs carry.
	"relay/admin":      {"queue", "relay/dmarc", "relay/records", "relay/drop", "relay/orders"},
	"config":           {},
	"queue":            {},
	"delivery":         {"queue", "delivery/dsn"},
	"delivery/maildir": {},
	"delivery/mx":      {},
	"delivery/mtasts":  {"delivery/web"}, // where policies lie
	"delivery/tlsrpt":  {"delivery/web"}, // where reports may go
	"delivery/web":     {},
	"delivery/dsn":     {},
	"pop3":             {"relay/listen", "relay/sasl"},
	"cmd/relayctl":     {"cmd/relayctl/ctl"},
	// users: the tool edits the passwd-file itself, so that it works with the daemon down.
	// relay/orders: with the daemon down it shows what rests.
	// delivery/maildir: it reads what was removed and renames it back, as any program may in a maildir.
	"cmd/relayctl/ctl": {"relay/dmarc", "relay/records", "relay/admin", "relay/drop", "relay/orders", "relay/users", "queue", "config", "delivery/maildir", "relay/autoconfig"},
	// delivery/dsn: whoever dropped a letter and went away is told of refusals.
	"cmd/relayd": {"config", "relay/dmarc", "relay/policy", "relay/records", "delivery", "delivery/dsn", "delivery/maildir", "delivery/mtasts", "delivery/mx", "delivery/tlsrpt", "pop3", "queue", "relay/admin", "relay/certs",
		"relay/autoconfig", "relay/drop", "relay/gate", "relay/intake", "relay/known", "relay/orders", "relay/quota", "relay/resolver", "relay/smtpd", "relay/users",
		"relay/callout", "relay/filter"},
}

// homes says in which rooms a library lives. A new one gets a room; the rooms after it pay for it
// when it changes.
var homes = map[string][]string{
	"go.etcd.io/bbolt":                    {"queue"},
	"github.com/emersion/go-smtp":         {"relay/smtpd", "delivery/mx"}, // its LMTP client
	"github.com/emersion/go-sasl":         {"relay/smtpd"},
	"github.com/emersion/go-msgauth":      {"relay/policy"},
	"blitiri.com.ar/go/spf":               {"relay/policy"},
	"github.com/emersion/go-milter":       {"relay/filter"},
	"github.com/miekg/dns":                {"relay/resolver", "relay/relaytest"},
	"github.com/spf13/cobra":              {"cmd/relayd", "cmd/relayctl/ctl"},
	"github.com/spf13/pflag":              {"cmd/relayctl/ctl"},
	"github.com/schollz/progressbar/v3":   {"cmd/relayctl/ctl"},
	"golang.org/x/term":                   {"cmd/relayctl/ctl"},
	"github.com/coreos/go-systemd/v22":    {"cmd/relayd"},
	"github.com/pelletier/go-toml/v2":     {"config"},
	"github.com/prometheus/client_golang": {"relay/admin"},
	"golang.org/x/crypto":                 {"relay/users", "relay/certs"},          // hashes; ACME
	"golang.org/x/net":                    {"relay", "relay/admin", "relay/certs"}, // idna; netutil
	"github.com/xdg-go/scram":             {"relay/users"},
	"github.com/xdg-go/stringprep":        {"relay/users"}, // scram brings it
	"golang.org/x/text":                   {"config", "delivery/maildir", "relay/users"},
	"golang.org/x/sys":                    nil, // next to the standard library: anybody
	"golang.org/x/sync":                   nil,
}

// testHomes adds to homes for tests: the libraries made for them, and the other end of the wire.
var testHomes = map[string][]string{
	"github.com/google/go-cmp":         nil,
	"github.com/rogpeppe/go-internal":  nil,
	"go.uber.org/goleak":               nil,
	"pgregory.net/rapid":               nil,
	"golang.org/x/tools":               nil, // txtar
	"golang.org/x/text":                nil,
	"golang.org/x/crypto":              nil,
	"github.com/pelletier/go-toml/v2":  nil,
	"github.com/emersion/go-smtp":      nil, // its client
	"github.com/emersion/go-sasl":      nil,
	"github.com/emersion/go-milter":    nil, // its server
	"github.com/emersion/go-msgauth":   nil, // its verifier
	"github.com/xdg-go/scram":          nil, // its client
	"github.com/coreos/go-systemd/v22": {"cmd/relayd"},
}

// TestDependencies states who may import whom.
func TestDependencies(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		room := strings.TrimPrefix(p.ImportPath, "relayd/")
		if _, known := neighbours[room]; !known {
			t.Errorf("the room %s is new: say in deps_test.go whom it may import", room)
			continue
		}
		for _, i := range p.Imports {
			checkImport(t, room, i)
		}
		for _, i := range slices.Concat(p.TestImports, p.XTestImports) {
			checkTestImport(t, room, i)
		}
	}
}

func checkImport(t *testing.T, room, imported string) {
	t.Helper()
	if neighbour, ours := strings.CutPrefix(imported, "relayd/"); ours {
		everybody := room != "relay" && (neighbour == "relay" || neighbour == "relay/durable" && room != "config")
		if !everybody && !slices.Contains(neighbours[room], neighbour) {
			t.Errorf("%s may not import %s: declare what you need as an interface, or say why in deps_test.go", room, neighbour)
		}
		return
	}
	if isStandard(imported) {
		return
	}
	library := libraryOf(imported, homes)
	rooms, known := homes[library]
	switch {
	case !known:
		t.Errorf("%s imports %s, which has no home yet: a new dependency gets a room", room, imported)
	case room == "relay" && imported != "golang.org/x/net/idna":
		t.Errorf("relay may import the standard library and idna, not %s", imported)
	case rooms != nil && !slices.Contains(rooms, room):
		t.Errorf("%s may not import %s: its home is %s", room, imported, strings.Join(rooms, ", "))
	}
}

// checkTestImport lets tests stand on their neighbours and on the libraries for tests, but keeps
// bbolt and miekg/dns at home even there.
func checkTestImport(t *testing.T, room, imported string) {
	t.Helper()
	if strings.HasPrefix(imported, "relayd/") || isStandard(imported) {
		return
	}
	rooms, known := testHomes[libraryOf(imported, testHomes)]
	if !known || rooms != nil && !slices.Contains(rooms, room) {
		checkImport(t, room, imported)
	}
}

// isStandard: the first element of a module path has a dot.
func isStandard(imported string) bool {
	first, _, _ := strings.Cut(imported, "/")
	return !strings.Contains(first, ".")
}

// libraryOf finds the entry of table that is imported or lies above it.
func libraryOf(imported string, table map[string][]string) string {
	for p := imported; p != "."; p = path.Dir(p) {
		if _, ok := table[p]; ok {
			return p
		}
	}
	return imported
}
