package filter

import (
	"strings"
	"testing"

	"relayd/relay/relaytest"
)

func TestClamdAnswers(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]struct {
		action Action
		word   string
		status string
		fails  string
	}{
		"stream: OK":                          {Pass, "clean", "Clean", ""},
		"stream: Win.Test.EICAR_HDB-1 FOUND":  {Reject, "found:Win.Test.EICAR_HDB-1", "Infected (Win.Test.EICAR_HDB-1)", ""},
		"stream: a b\r\nX: y FOUND":           {Reject, "found:a-b-X:-y", "Infected (a b X: y)", ""},
		"stream:  FOUND":                      {Reject, "found:unnamed", "Infected (unnamed)", ""},
		"INSTREAM size limit exceeded. ERROR": {0, "", "", errLimit.Error()},
		"stream: Can't allocate memory ERROR": {0, "", "", "it says"},
		"COMMAND READ TIMED OUT":              {0, "", "", "it says"},
		"":                                    {0, "", "", "it says"},
		"OK":                                  {0, "", "", "it says"},
		"stream: NOT OK":                      {0, "", "", "it says"},
		"1: stream: OK":                       {0, "", "", "it says"},
		"stream: Eicar (" + Big + ") FOUND":   {Reject, "found:Eicar-(" + Big[:73], "Infected (Eicar (" + Big[:293] + ")", ""},
	} {
		v, err := clamd{hostname: "mail.office.test"}.read(line)
		if want.fails != "" {
			if err == nil || !strings.Contains(err.Error(), want.fails) {
				t.Errorf("%q: %v, want %q", line, err, want.fails)
			}
			continue
		}
		if err != nil || v.Action != want.action || v.Word != want.word || v.Edits[1].Value != want.status {
			t.Errorf("%q: %v, %d %q %+v", line, err, v.Action, v.Word, v.Edits)
		}
		if v.Action == Reject && (v.Reply.Code != 550 || v.Reply.Status != [3]int{5, 7, 1}) {
			t.Errorf("%q: %+v", line, v.Reply)
		}
	}
}

// Big is longer than any name may be.
var Big = strings.Repeat("x", 1000)

func TestClamd(t *testing.T) {
	t.Parallel()
	c, err := relaytest.NewClamd("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.Limit = 5 << 20
	m := newMember(t, Config{Kind: Clamd, Address: c.Addr()})
	for _, one := range []struct {
		name, body string
		action     Action
		word       string
	}{
		{"clean", "hello\r\n", Pass, "clean"},
		{"virus", strings.Repeat("x", 100_000) + relaytest.Eicar, Reject, "found:Eicar-Test-Signature"},
		{"empty", "", Pass, "clean"},
		{"larger than it takes", strings.Repeat("0123456789abcdef", 6<<16), Pass, "too-large"},
	} {
		l := letter("A: b\r\n", "\r\n"+one.body)
		v, err := m.check(t.Context(), &l)
		if err != nil || v.Action != one.action || v.Word != one.word {
			t.Errorf("%s: %+v, %v", one.name, v, err)
		}
	}
	// It is told of a letter behind a Received field, and gets all of it.
	want := "Received: by mail.office.test (relayd)\r\nA: b\r\n\r\nhello\r\n"
	if got := c.Asked()[0]; got.Text != want || got.Size != int64(len(want)) {
		t.Errorf("it was shown %q", got.Text)
	}
	if m.isDown() {
		t.Error("it counts as down")
	}
}

// FuzzClamd: whatever clamd says, what comes of it can stand in a header, a reply and the log.
func FuzzClamd(f *testing.F) {
	for _, seed := range []string{"stream: OK", "stream: Eicar FOUND", "stream: \r\nX: y\x00 FOUND", "INSTREAM size limit exceeded. ERROR"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		v, err := clamd{hostname: "mail.office.test"}.read(line)
		if err == nil {
			harmless(t, v)
		}
	})
}
