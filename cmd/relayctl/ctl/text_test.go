package ctl

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 999_949: "999.9 kB",
		999_960: "1.0 MB", 1_234_567: "1.2 MB", 50_000_000_000: "50.0 GB", 5e15: "5000.0 TB"} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{-time.Hour: "0 s", 59 * time.Second: "59 s", 90 * time.Second: "1 min",
		119 * time.Minute: "1 h", 47 * time.Hour: "47 h", 49 * time.Hour: "2 days"} {
		if got := span(d); got != want {
			t.Errorf("span(%v) = %q, want %q", d, got, want)
		}
	}
}

func TestParseAge(t *testing.T) {
	for s, want := range map[string]time.Duration{"90s": 90 * time.Second, "2h": 2 * time.Hour, "3d": 72 * time.Hour,
		"1w2d3h": 9*24*time.Hour + 3*time.Hour, "0s": 0} {
		if got, err := parseAge(s); got != want || err != nil {
			t.Errorf("parseAge(%q) = %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "2", "d", "-2h", "-1d", "2h1d", "1y", "1.5d", "99999999d"} {
		if got, err := parseAge(s); err == nil {
			t.Errorf("parseAge(%q) = %v, want an error", s, got)
		}
	}
}

// Nothing a stranger wrote moves the cursor of a terminal, whichever way it is printed.
func FuzzPrintable(f *testing.F) {
	for _, s := range []string{"plain", "\x1b[2J", "a\u202eb", "\xff\xfe", "\u009b31m", "tab\tcr\rlf\n", "größe", "\U000e0041", `\x1b`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := printable(s)
		if !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("printable(%q) = %q", s, got)
		}
		var letter bytes.Buffer
		if err := copyPrintable(&letter, strings.NewReader(s)); err != nil {
			t.Fatal(err)
		}
		if strings.ContainsFunc(letter.String(), func(r rune) bool { return !unicode.IsPrint(r) && r != '\n' && r != '\t' }) {
			t.Errorf("copyPrintable(%q) = %q", s, letter.String())
		}
		var line bytes.Buffer
		if err := writeJSON(&line, map[string]string{"s": s}); err != nil {
			t.Fatal(err)
		}
		if strings.ContainsFunc(strings.TrimSuffix(line.String(), "\n"), func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("JSON of %q: %q", s, line.String())
		}
		var back map[string]string
		if err := json.Unmarshal(line.Bytes(), &back); err != nil || back["s"] != strings.ToValidUTF8(s, "\ufffd") && utf8.ValidString(s) {
			t.Errorf("JSON of %q reads back %q, %v", s, back["s"], err)
		}
	})
}

// The columns stand still while rows stream: what was printed is never measured again.
func TestTableStreams(t *testing.T) {
	var out bytes.Buffer
	a := &app{Env: Env{Stdout: &out, Getenv: func(string) string { return "" }}}
	tab := a.table("A", "B")
	for i := range 3 * lookAhead {
		tab.add([]string{fmt.Sprint(i), "x"})
		if held := len(tab.rows); held >= lookAhead {
			t.Fatalf("%d rows held back", held)
		}
	}
	if err := tab.flush(); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 3*lookAhead+1 || lines[0] != "A   B" || lines[1] != "0   x" || lines[300] != "299  x" {
		t.Errorf("%d lines: %q, %q, %q", len(lines), lines[0], lines[1], lines[len(lines)-1])
	}
}
