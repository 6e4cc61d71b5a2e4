package policy_test

import (
	"bytes"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"relayd/relay"
	"relayd/relay/policy"
	"relayd/relay/relaytest"
	"relayd/relay/resolver"
)

var update = flag.Bool("update", false, "rewrite the verdicts")

// TestVectors plays whole letters: message, zone and verdict stand together in one file.
func TestVectors(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/vectors/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no vectors", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			part := func(name string) *txtar.File {
				i := slices.IndexFunc(a.Files, func(f txtar.File) bool { return f.Name == name })
				return &a.Files[i]
			}
			got := verdict(t, string(part("envelope").Data), string(part("message").Data), string(part("zone").Data))
			if *update {
				part("verdict").Data = []byte(got)
				if err := os.WriteFile(file, txtar.Format(a), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(string(part("verdict").Data), got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// verdict is the field, what DMARC asks for, and why.
func verdict(t *testing.T, envelope, message, zone string) string {
	t.Helper()
	dns, err := resolver.New([]netip.AddrPort{relaytest.DNS(t, zone)})
	if err != nil {
		t.Fatal(err)
	}
	defer dns.Close()
	l, body := letter(t, envelope, message)
	c := policy.Begin(t.Context(), dns, l)
	c.Write(body)
	f := c.Finish()
	field := strings.ReplaceAll(policy.Field("mail.office.test", f.All), "\r\n", "\n")
	return field + "wish " + f.DMARC.Wish.String() + "\nwhy " + f.Why + "\n"
}

func letter(t *testing.T, envelope, message string) (policy.Letter, []byte) {
	t.Helper()
	var l policy.Letter
	for line := range strings.Lines(envelope) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch key {
		case "client":
			l.Client = netip.MustParseAddr(value)
		case "helo":
			l.Helo = value
		case "from":
			from, err := relay.ParseAddress(value, true)
			if err != nil && value != "<>" {
				t.Fatal(err)
			}
			l.From = from
		}
	}
	head, body, _ := strings.Cut(strings.ReplaceAll(message, "\n", "\r\n"), "\r\n\r\n")
	l.Header = []byte(head + "\r\n")
	for line := range strings.Lines(head) {
		if value, ok := strings.CutPrefix(line, "From:"); ok {
			l.Fields++
			_, domain, _ := strings.Cut(value, "@")
			l.Authors = append(l.Authors, relay.Domain(strings.TrimRight(domain, ">\r\n")))
		}
	}
	return l, bytes.Clone([]byte(body))
}
