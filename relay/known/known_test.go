package known

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"relayd/relay"
)

func TestDistance(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"abc", "abc", 0}, {"gmial", "gmail", 1}, {"gmai", "gmail", 1}, {"gmaill", "gmail", 1},
		{"gmeil", "gmail", 1}, {"gmeli", "gmail", 2}, {"partner", "office", 3}, {"abcdef", "badcfe", 3}, {"a", "abcd", 3},
		{"abcdefgh", "xbcdefgy", 2},
	} {
		if got := distance(c.a, c.b, 2); got != c.want {
			t.Errorf("%s, %s: %d, want %d", c.a, c.b, got, c.want)
		}
		if got := distance(c.b, c.a, 2); got != c.want {
			t.Errorf("%s, %s: %d, want %d", c.b, c.a, got, c.want)
		}
	}
}

func TestNear(t *testing.T) {
	t.Parallel()
	m := Open(filepath.Join(t.TempDir(), "domains"), slog.New(slog.DiscardHandler))
	for _, d := range []relay.Domain{"partner.example", "portner.example", "gmail.com", "ab.de", "[192.0.2.1]"} {
		m.Note(d, time.Now())
	}
	for typed, want := range map[relay.Domain]relay.Domain{
		"partnre.example":  "partner.example",
		"pertner.example":  "partner.example", // as near as portner, and before it
		"partner.exampel":  "partner.example",
		"prtnre.example":   "partner.example",
		"partner.org":      "partner.example",
		"gmial.com":        "gmail.com",
		"gmail.con":        "gmail.com",
		"gamli.com":        "", // two slips in a short name may be anybody
		"cd.de":            "",
		"partner.example":  "portner.example", // never itself
		"offcie.example":   "office.example",
		"stranger.example": "",
		"localhost":        "",
	} {
		got, ok := m.Near(typed, "office.example")
		if got != want || ok != (want != "") {
			t.Errorf("%s: %q, %v; want %q", typed, got, ok, want)
		}
	}
}

// TestMemoryOutlivesItself: what was noted is there after a restart, whatever else stands in the
// file, and the file is bounded.
func TestMemoryOutlivesItself(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "domains")
	day := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	m := Open(path, slog.New(slog.DiscardHandler))
	m.Note("partner.example", day)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if last, ok := m.Last("partner.example"); !ok || !last.Equal(time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("last noted on %v, %v", last, ok)
	}
	if last, ok := m.Last("stranger.example"); ok {
		t.Errorf("a stranger was noted on %v", last)
	}
	if got, _ := os.ReadFile(path); string(got) != "2026-11-21 partner.example\n" {
		t.Fatalf("the file: %q", got)
	}
	damaged := "2026-11-20 other.example\n\x00\xff\nyesterday x.example\n2026-11-21 bad..name\n2026-11-21 partner.example\n"
	if err := os.WriteFile(path, []byte(damaged), 0o600); err != nil {
		t.Fatal(err)
	}
	m = Open(path, slog.New(slog.DiscardHandler))
	if len(m.last) != 2 {
		t.Errorf("read %v", m.last)
	}
	for i := range maxDomains {
		m.Note(relay.Domain(fmt.Sprintf("d%d.example", i)), day.AddDate(0, 0, 1))
	}
	m.Note("partner.example", day.AddDate(0, 0, 2))
	if len(m.last) != maxDomains || m.last["other.example"] != "" {
		t.Errorf("%d domains, the oldest %q", len(m.last), m.last["other.example"])
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(path); !strings.HasPrefix(string(got), "2026-11-23 partner.example\n") {
		t.Errorf("the file begins %.60q", got)
	}
}

func TestRecent(t *testing.T) {
	t.Parallel()
	m := Open(filepath.Join(t.TempDir(), "domains"), slog.New(slog.DiscardHandler))
	day := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	for i, d := range []relay.Domain{"old.example", "c.example", "b.example", "a.example"} {
		m.Note(d, day.AddDate(0, 0, i))
	}
	for n, want := range map[int]string{5: "[a.example b.example c.example]", 2: "[a.example b.example]", 0: "[]"} {
		if got := fmt.Sprint(m.Recent(n, day.AddDate(0, 0, 1))); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
