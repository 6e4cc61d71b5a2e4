package quota

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"relayd/relay"
)

var (
	ann  = relay.Address{Local: "ann", Domain: "office.example"}
	bob  = relay.Address{Local: "bob", Domain: "office.example"}
	noon = time.Now().Truncate(24 * time.Hour).Add(12 * time.Hour)
)

func open(t *testing.T, path string) *Ledger {
	t.Helper()
	l, err := Open(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLimitsByHourAndDay(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		at   []time.Duration // since noon, one recipient each
		want string
	}{
		"hour":           {[]time.Duration{0, time.Minute, 2 * time.Minute, 50 * time.Minute}, "within an hour, and 3 is the limit"},
		"hour is over":   {[]time.Duration{0, time.Minute, 2 * time.Minute, 71 * time.Minute}, ""},
		"day":            {[]time.Duration{0, 2 * time.Hour, 4 * time.Hour, 6 * time.Hour, 8 * time.Hour, 23 * time.Hour}, "within a day, and 5 is the limit"},
		"day is over":    {[]time.Duration{0, 2 * time.Hour, 4 * time.Hour, 6 * time.Hour, 8 * time.Hour, 25 * time.Hour}, ""},
		"clock set back": {[]time.Duration{72 * time.Hour, 72 * time.Hour, 72 * time.Hour, 0}, ""},
	} {
		l := open(t, filepath.Join(t.TempDir(), "quota"))
		var last string
		for i, at := range c.at {
			if last != "" {
				t.Errorf("%s: %d: %s", name, i, last)
			}
			charge := l.Count(ann, 1, "", Limit{3, 5}, noon.Add(at))
			if last = charge.Why(); last == "" {
				charge.Accept(noon)
			}
		}
		if (last == "") != (c.want == "") || !strings.HasSuffix(last, c.want) {
			t.Errorf("%s: %q, want %q", name, last, c.want)
		}
	}
}

// TestFuse: once blown it stays so, whatever the clock says, for one user, and over a restart,
// until a release; and the postmaster is told once.
func TestFuse(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "quota")
	l := open(t, path)
	limit := Limit{10, 100}
	if c := l.Count(ann, 10, "first", limit, noon); c.Why() != "" {
		t.Fatal(c.Why())
	}
	// A letter that was not accepted neither counts nor blows.
	l.Count(ann, 5, "broken off", limit, noon).Refund()
	if len(l.Held()) > 0 {
		t.Error("held by a letter that was not accepted")
	}
	blow := l.Count(ann, 1, "second", limit, noon)
	if got, err := blow.Accept(noon); blow.Why() == "" || got != Tell || err != nil {
		t.Fatalf("%q, %v, %v", blow.Why(), got, err)
	}
	if got, _ := l.Count(ann, 1, "third", limit, noon).Accept(noon); got != Nothing {
		t.Errorf("told twice at once: %v", got)
	}
	l.Told(ann, false)
	if got, _ := l.Count(ann, 1, "fourth", limit, noon).Accept(noon); got != Tell {
		t.Errorf("not told after a failure: %v", got)
	}
	if err := l.Told(ann, true); err != nil {
		t.Fatal(err)
	}
	// What is on the disk now is what a crash leaves.
	l = open(t, path)
	late := noon.Add(48 * time.Hour)
	c := l.Count(ann, 1, "fifth", limit, late)
	if got, _ := c.Accept(late); got != Nothing || c.Why() != blow.Why() {
		t.Errorf("after two days and a restart: %v, %q", got, c.Why())
	}
	if c := l.Count(bob, 1, "", limit, noon); c.Why() != "" {
		t.Errorf("bob: %s", c.Why())
	}
	if held := l.Held(); len(held) != 1 || held[0].User != ann || fmt.Sprint(held[0].Subjects) != "[fifth fourth third]" {
		t.Errorf("held: %+v", held)
	}
	under := l.Count(ann, 1, "under way", limit, late)
	if held, err := l.Release(ann); !held || err != nil {
		t.Errorf("release: %v, %v", held, err)
	}
	if got, _ := under.Accept(late); got != Freed {
		t.Errorf("a letter counted before the release: %v", got)
	}
	l = open(t, path)
	if c := l.Count(ann, 10, "", limit, late); c.Why() != "" || len(l.Held()) > 0 {
		t.Errorf("after the release: %q, %v", c.Why(), l.Held())
	}
}

// TestSessionsAtOnce: however many sessions a thief opens, no more than the limit leaves.
func TestSessionsAtOnce(t *testing.T) {
	t.Parallel()
	l := open(t, filepath.Join(t.TempDir(), "quota"))
	var mu sync.Mutex
	var left, told int
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			c := l.Count(ann, 3, "x", Limit{20, 100}, noon)
			got, err := c.Accept(noon)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			if c.Why() == "" {
				left += 3
			}
			if got == Tell {
				told++
			}
		})
	}
	wg.Wait()
	if left != 18 || told != 1 {
		t.Errorf("%d recipients got the letter, the postmaster was told %d times", left, told)
	}
}

func TestDamagedFile(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"{", "[null]", `[{"user":""}]`, `[{"user":"a b"}]`} {
		path := filepath.Join(t.TempDir(), "quota")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		l := open(t, path)
		l.Count(ann, 1, "", Limit{1, 1}, time.Now())
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if got, _ := os.ReadFile(path + ".damaged"); string(got) != text {
			t.Errorf("%s: kept %q", text, got)
		}
		if again := open(t, path); len(again.accounts) != 1 {
			t.Errorf("%s: %v", text, again.accounts)
		}
	}
}

func TestSubject(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{
		" plain\r\n folded\t":                       "plain folded",
		"=?utf-8?Q?gr=C3=BC=C3=9Fe?= =?utf-8?Q?!?=": "grüße!",
		"=?x-odd?Q?a?=":                             "=?x-odd?Q?a?=",
		"a\x1b[31mred\u202e\xff":                    "a [31mred ?",
		strings.Repeat("ü", 200):                    strings.Repeat("ü", 100) + "...",
		"":                                          "",
	} {
		if got := Subject(value); got != want {
			t.Errorf("%q: %q, want %q", value, got, want)
		}
	}
}

func TestNotice(t *testing.T) {
	t.Parallel()
	n := Notice{ID: "0123456789abcdef", Now: noon, Hostname: "mail.office.example", To: relay.Address{Local: "postmaster", Domain: "office.example"},
		Account: Account{User: ann, Why: "ann@office.example wrote too much", Subjects: []string{"win", "", "a prize"}}, Client: "192.0.2.7"}
	got := string(n.Compose())
	for _, want := range []string{"To: postmaster@office.example\r\n", "\r\nSubject: Held: the mail of ann@office.example\r\n", "\r\n\r\n    win\r\n    (no subject)\r\n    a prize\r\n\r\n",
		"came from 192.0.2.7.\r\n", "    relayctl user purge ann@office.example\r\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Contains(strings.ReplaceAll(got, "\r\n", ""), "\n") || strings.Contains(got, "quoted-printable") {
		t.Errorf("bare LF, or encoded for nothing:\n%q", got)
	}
	n.Account.Subjects = []string{"grüße"}
	if got := string(n.Compose()); !strings.Contains(got, "\r\n    gr=C3=BC=C3=9Fe\r\n") {
		t.Errorf("not encoded:\n%s", got)
	}
}
