package config_test

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"relayd/config"
	"relayd/relay"
)

var byValue = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func parse(t *testing.T, toml string) *config.Config {
	t.Helper()
	c, err := config.Parse("/etc/relayd/relayd.toml", []byte(toml))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// The example shows what really holds when a setting is left out.
func TestExampleShowsTheDefaults(t *testing.T) {
	t.Parallel()
	got := parse(t, config.Example)
	want := config.Default()
	for _, pair := range [][2]any{
		{got.DataDir, want.DataDir}, {len(got.TrustNetworks), 0}, {len(got.DNSServers), 0},
		{got.TLSCert + got.TLSKey, ""}, {len(got.TLSPairs), 0}, {got.ACME, want.ACME}, {len(got.Routes), 0},
		{got.Limits, want.Limits}, {got.Queue, want.Queue}, {got.Outbound, want.Outbound},
		{fmt.Sprint(got.Gate), fmt.Sprint(want.Gate)}, {got.SMTP, want.SMTP}, {got.Submission, want.Submission}, {len(got.Users), 0}, {got.POP3, want.POP3}, {got.Log, want.Log},
	} {
		if diff := cmp.Diff(pair[1], pair[0], byValue); diff != "" {
			t.Errorf("-default +example\n%s", diff)
		}
	}
	if len(got.Warnings) > 0 {
		t.Errorf("warnings: %v", got.Warnings)
	}
}

// Every setting there is stands in the example, if only behind a #.
func TestExampleIsComplete(t *testing.T) {
	t.Parallel()
	whole := regexp.MustCompile(`(?m)^#([a-z\[])`).ReplaceAllString(config.Example, "$1")
	c := parse(t, whole)
	if len(c.Routes) != 1 || c.TLSCert == "" || !c.Outbound.SourceIPv6.IsValid() {
		t.Errorf("what stands behind # was not read: %+v", c)
	}
	table := ""
	shown := map[string]bool{}
	for line := range strings.Lines(whole) {
		if m := regexp.MustCompile(`^\[+([^\]]+)\]`).FindStringSubmatch(line); m != nil {
			table = regexp.MustCompile(`"[^"]+"`).ReplaceAllString(m[1], "*") + "."
			shown[strings.TrimSuffix(table, ".")] = true
			shown[strings.Split(table, ".")[0]] = true
		} else if m := regexp.MustCompile(`^([a-z0-9_]+) *=`).FindStringSubmatch(line); m != nil {
			shown[table+m[1]] = true
		}
	}
	for _, key := range config.Keys() {
		if !shown[key] {
			t.Errorf("the example lacks %s", key)
		}
	}
	if n := len(config.Keys()); n < 50 {
		t.Errorf("only %d keys known", n)
	}
}

func TestParseEverything(t *testing.T) {
	t.Parallel()
	got := parse(t, `
hostname = "MAIL.Office.example."
data_dir = "data"
[listen]
smtp = [":25", "[::1]:2525"]
metrics = "localhost:9025"
http = ":80"
https = "[::1]:443"
[domains."Büro.example"]
postmaster = "Carol@Partner.Example"
[domains."Büro.example".aliases]
"SALES" = ["Ann", "bob@office.example", "Ann"]
"büro" = "sales"
[domains."office.example"]
language = "de"
postmaster = "bob"
[users."ANN@Office.example"]
send_as = ["Info@office.example", "*@Büro.example"]
[users."bob@office.example"]
send_as_any = true
[[listen_device]]
address = [":2526", "127.0.0.1:26"]
networks = "192.168.1.0/24"
sender = "Scanner@Office.example"
recipients = ["BÜRO.example", "Dora@Partner.example"]
message_size = "100MB"
rate_limit = 7
[[listen_device]]
address = ":2527"
networks = "10.0.0.0/8"
tls = "implicit"
auth = "required"
plaintext_auth = true
recipients = "*"
[submission]
hide_client = true
plaintext_auth = true
[trust]
networks = ["192.168.1.7", "fd00::/8", "::ffff:10.0.0.0/104"]
[tls]
cert = "tls/cert.pem"
key = "/keys/key.pem"
acme = true
acme_directory = "https://ca.example:14000/dir"
acme_email = "Ann@Office.example"
acme_names = ["POP.office.example", "Büro.example"]
[[tls.pair]]
cert = "tls/other.pem"
key = "/keys/other.pem"
[[tls.pair]]
cert = "third.pem"
key = "third.pem"
[dns]
trust_ad = true
servers = ["127.0.0.1", "[::1]:5353"]
[limits]
message_size = "1.5 MiB"
min_rate = 100
min_free_disk = "2.5%"
[queue]
retry = "90s"
notify_people_after = "off"
warn_after = "1h30m"
give_up_after = "2d"
[log]
format = "json"
level = "debug"
[[route]]
to = ["partner.example", "*.partner.example"]
via = "[2001:db8::1]:587"
[[route]]
to = "secret.example"
tls = "verify"
[[route]]
to = "*"
via = "Smart.Example:25"
tls = "none"
[[route]]
from = ["Büro.example", "Ann@Office.Example"]
login = "*.office.example"
mx = "*.Protection.Example"
via = "192.0.2.1:465"
user = "office"
password_file = "secret"
after = 3
on = ["5.7.1", "blocklist"]
`)
	want := config.Default()
	want.Path = "/etc/relayd/relayd.toml"
	want.Hostname = "mail.office.example"
	want.DataDir = "/etc/relayd/data"
	want.DropDir = "/etc/relayd/data/drop"
	want.Listen.SMTP = []string{":25", "[::1]:2525"}
	want.Listen.Metrics = []string{"localhost:9025"}
	want.Listen.Devices = []config.ListenDevice{{Service: "device", Addresses: []string{":2526", "127.0.0.1:26"}},
		{Service: "device2", Addresses: []string{":2527"}, ImplicitTLS: true}}
	want.Devices = []config.Device{
		{Service: "device", Networks: []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24")}, TLS: "starttls", Auth: "off",
			Sender:     relay.Address{Local: "Scanner", Domain: "office.example"},
			Recipients: []relay.Address{{Local: "*", Domain: "xn--bro-hoa.example"}, {Local: "dora", Domain: "partner.example"}}, MessageSize: 100_000_000, RateLimit: 7},
		{Service: "device2", Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, TLS: "implicit", Auth: "required",
			PlaintextAuth: true, Anybody: true, RateLimit: 500},
	}
	want.DefaultDomain = "xn--bro-hoa.example"
	want.Domains = map[relay.Domain]config.DomainConfig{
		"xn--bro-hoa.example": {Postmaster: "Carol@partner.example", Aliases: map[string][]string{
			"sales": {"Ann@xn--bro-hoa.example", "bob@office.example"},
			"büro":  {"sales@xn--bro-hoa.example"},
		}},
		"office.example": {Postmaster: "bob@office.example", Aliases: map[string][]string{}, Language: "de"},
	}
	want.Users = map[relay.Address]config.UserConfig{
		{Local: "ann", Domain: "office.example"}: {SendAs: []relay.Address{{Local: "info", Domain: "office.example"}, {Local: "*", Domain: "xn--bro-hoa.example"}}},
		{Local: "bob", Domain: "office.example"}: {SendAsAny: true},
	}
	want.Submission = config.Submission{HideClient: true, PlaintextAuth: true}
	want.TrustNetworks = []netip.Prefix{netip.MustParsePrefix("192.168.1.7/32"),
		netip.MustParsePrefix("fd00::/8"), netip.MustParsePrefix("10.0.0.0/8")}
	want.TLSCert, want.TLSKey = "/etc/relayd/tls/cert.pem", "/keys/key.pem"
	want.TLSPairs = []config.TLSPair{{Cert: "/etc/relayd/tls/other.pem", Key: "/keys/other.pem"}, {Cert: "/etc/relayd/third.pem", Key: "/etc/relayd/third.pem"}}
	want.ACME = config.ACME{On: true, Directory: "https://ca.example:14000/dir", Email: "Ann@office.example",
		Names: []relay.Domain{"pop.office.example", "xn--bro-hoa.example"}}
	want.Listen.HTTP, want.Listen.HTTPS = []string{":80"}, []string{"[::1]:443"}
	want.DNSServers = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53"), netip.MustParseAddrPort("[::1]:5353")}
	want.TrustAD = true
	want.Limits.MessageSize = 3 << 19
	want.Limits.MinRate = 100
	want.Limits.MinFreeDisk = config.DiskFloor{Percent: 2.5}
	want.Queue = config.Queue{Retry: []time.Duration{90 * time.Second}, WarnAfter: 90 * time.Minute, GiveUpAfter: 48 * time.Hour}
	want.Log = config.Log{Format: "json", Level: slog.LevelDebug}
	want.Routes = []config.Route{
		{To: []string{"partner.example", "*.partner.example"}, Via: "[2001:db8::1]:587", Host: "2001:db8::1", Port: 587},
		{To: []string{"secret.example"}, TLS: "verify"},
		{To: []string{"*"}, Via: "Smart.Example:25", Host: "smart.example", Port: 25, TLS: "none"},
		{To: []string{"*"}, From: []string{"xn--bro-hoa.example", "Ann@office.example"}, Logins: []string{"*.office.example"},
			MX: []string{"*.protection.example"}, Via: "192.0.2.1:465", Host: "192.0.2.1", Port: 465, User: "office",
			PasswordFile: "/etc/relayd/secret", After: 3, On: []string{"5.7.1", "blocklist"}},
	}
	if diff := cmp.Diff(want, got, byValue, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
		cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// Seed S2.9: without [trust] nobody may relay.
func TestSeed_S2_9_NobodyIsTrustedByDefault(t *testing.T) {
	t.Parallel()
	for _, toml := range []string{"", "[trust]\n", "[trust]\nnetworks = []\n"} {
		if c := parse(t, "hostname = \"mail.office.example\"\n"+toml); len(c.TrustNetworks) != 0 {
			t.Errorf("%q trusts %v", toml, c.TrustNetworks)
		}
	}
}

// Port 0 is a different port each time, so it is in nobody's way.
func TestListenOnAnyPort(t *testing.T) {
	t.Parallel()
	c := parse(t, "hostname = \"mail.office.example\"\n[listen]\nsmtp = [\"127.0.0.1:0\", \":0\"]\npop3 = \"127.0.0.1:0\"\n")
	if len(c.Listen.SMTP) != 2 || len(c.Listen.POP3) != 1 {
		t.Errorf("%+v", c.Listen)
	}
}

func TestRouteMatches(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		to, domain string
		want       bool
	}{
		{"partner.example", "partner.example", true},
		{"partner.example", "mail.partner.example", false},
		{"*.partner.example", "mail.partner.example", true},
		{"*.partner.example", "a.b.partner.example", true},
		{"*.partner.example", "partner.example", false},
		{"*.partner.example", "evilpartner.example", false},
		{"*", "anything.example", true},
	} {
		if got := (config.Route{To: []string{c.to}}).Matches(relay.Domain(c.domain)); got != c.want {
			t.Errorf("%s for %s: %v", c.to, c.domain, got)
		}
	}
}

func TestDiskFloor(t *testing.T) {
	t.Parallel()
	if got := (config.DiskFloor{Percent: 2}).Of(1000); got != 20 {
		t.Errorf("2%% of 1000 is %d", got)
	}
	if got := (config.DiskFloor{Bytes: 300}).Of(1000); got != 300 {
		t.Errorf("300 is %d", got)
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "relayd.toml")
	_, err := config.Load(path)
	if !errors.Is(err, config.ErrNoFile) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "hint:") {
		t.Errorf("the error names no file or gives no hint: %v", err)
	}
	write(t, path, "hostname = \"mail.office.example\"\ndata_dir = \"data\"\n")
	c, err := config.Load(path)
	if err != nil || c.DataDir != filepath.Join(dir, "data") {
		t.Errorf("%+v, %v", c, err)
	}
	write(t, path, strings.Repeat("# long\n", config.MaxFileSize/7+1))
	if invalid, ok := errors.AsType[*config.Invalid](second(config.Load(path))); !ok || len(invalid.Complaints) != 1 {
		t.Errorf("a file too large: %v", invalid)
	}
}

func second(_ *config.Config, err error) error { return err }

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A flood of complaints is cut short.
func TestManyComplaints(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&b, "key%d = 1\n", i)
	}
	_, err := config.Parse("relayd.toml", []byte(b.String()))
	if invalid, ok := errors.AsType[*config.Invalid](err); !ok || len(invalid.Complaints) != 101 {
		t.Errorf("%T", err)
	}
}

func TestDev(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := config.Dev(dir)
	if c.DataDir != dir || c.Domains["office.test"].Postmaster != "ann@office.test" || c.DefaultDomain != "office.test" {
		t.Errorf("%+v", c)
	}
	for _, a := range append(append(c.Listen.SMTP, c.Listen.Submission...), c.Listen.POP3...) {
		if ap, err := netip.ParseAddrPort(a); err != nil || !ap.Addr().IsLoopback() || ap.Port() < 1024 {
			t.Errorf("listens on %s", a)
		}
	}
	for _, p := range c.TrustNetworks {
		if !p.Addr().IsLoopback() {
			t.Errorf("trusts %s", p)
		}
	}
}

// What the development office has must not become what everybody has.
func TestDefaultsAreNotShared(t *testing.T) {
	t.Parallel()
	config.Dev(t.TempDir()).Queue.Retry[0] = 0
	if d := config.Default(); len(d.Domains) != 0 || d.Queue.Retry[0] == 0 || d.Outbound.AllowLoopback {
		t.Errorf("%+v", d)
	}
}

func TestFilters(t *testing.T) {
	t.Parallel()
	c := parse(t, `
hostname = "mail.office.example"
[users."ann@office.example"]
junk_score = 4.5
[filter.clamd]
address = "unix:clamd.sock"
[[filter.milter]]
address = "[::1]:8891"
when_down = "accept"
[[filter.milter]]
name = "archive"
address = "archive.example:8891"
submissions = true
timeout = "5s"
max_size = "1MB"
[[filter.milter]]
address = "unix:/run/x.sock"
[filter.rspamd]
address = "127.0.0.1:11333"
`)
	want := []config.Filter{
		{Kind: "rspamd", Name: "rspamd", Address: "127.0.0.1:11333", Timeout: 30 * time.Second, MaxSize: 50_000_000},
		{Kind: "clamd", Name: "clamd", Address: "unix:/etc/relayd/clamd.sock", Timeout: time.Minute, Defer: true, MaxSize: 25_000_000, Submissions: true},
		{Kind: "milter", Name: "milter", Address: "[::1]:8891", Timeout: 30 * time.Second, MaxSize: 50_000_000},
		{Kind: "milter", Name: "archive", Address: "archive.example:8891", Timeout: 5 * time.Second, Defer: true, MaxSize: 1_000_000, Submissions: true},
		{Kind: "milter", Name: "milter2", Address: "unix:/run/x.sock", Timeout: 30 * time.Second, Defer: true, MaxSize: 50_000_000},
	}
	if diff := cmp.Diff(want, c.Filters); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if score := c.Users[relay.Address{Local: "ann", Domain: "office.example"}].JunkScore; score == nil || *score != 4.5 {
		t.Errorf("the threshold is %v", score)
	}
}
