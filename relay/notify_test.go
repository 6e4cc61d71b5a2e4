package relay_test

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode"

	"relayd/relay"
)

func TestNotify(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"NEVER": "NEVER", "never": "NEVER", "delay,SUCCESS": "SUCCESS,DELAY", "SUCCESS,FAILURE,DELAY": "SUCCESS,FAILURE,DELAY",
		"": "!", "NEVER,SUCCESS": "!", "SUCCESS,SUCCESS": "!", "SUCCESS,": "!", "MAYBE": "!",
	} {
		n, ok := relay.ParseNotify(text)
		if got := n.String(); ok != (want != "!") || ok && got != want {
			t.Errorf("%q: %q, %v", text, got, ok)
		}
	}
	if n := relay.Notify(0); !n.Wants(relay.NotifyFailure) || !n.Wants(relay.NotifyDelay) || n.Wants(relay.NotifySuccess) {
		t.Error("the default is failures and delays")
	}
	if n := relay.NotifyNever; n.Wants(relay.NotifyFailure) || n.Wants(relay.NotifyDelay) || n.Wants(relay.NotifySuccess) {
		t.Error("never is never")
	}
}

// An envelope says nothing of what it was not asked, and a record from before reports were asked
// for is read.
func TestEnvelopeWithoutNotify(t *testing.T) {
	t.Parallel()
	var env relay.Envelope
	if err := json.Unmarshal([]byte(`{"from":"a@b.example","rcpts":[{"addr":"c@d.example"}]}`), &env); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(env)
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"notify", "orcpt", "ret", "envid"} {
		if strings.Contains(string(text), `"`+word+`"`) {
			t.Errorf("%s stands in %s", word, text)
		}
	}
	env.Ret, env.EnvID = relay.RetHeaders, "q 1"
	env.Rcpts[0].Notify, env.Rcpts[0].ORcpt = relay.NotifySuccess|relay.NotifyDelay, "rfc822;a b@c"
	if text, err = json.Marshal(env); err != nil {
		t.Fatal(err)
	}
	var back relay.Envelope
	if err := json.Unmarshal(text, &back); err != nil || back.Ret != env.Ret || back.EnvID != env.EnvID || back.Rcpts[0] != env.Rcpts[0] {
		t.Errorf("%s: %+v, %v", text, back, err)
	}
}

func TestORcpt(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"rfc822;ann@office.example":    "rfc822;ann@office.example",
		"RFC822;a+2Bb+3Dc+20d@x":       "rfc822;a+b=c d@x",
		`utf-8;\x{E4}nn@x`:             "utf-8;änn@x",
		"utf-8;änn@x":                  "utf-8;änn@x",
		`utf-8;a\x{2B}b@x`:             "utf-8;a+b@x",
		"x-400;c=1":                    "",
		"rfc822;a+0Ab":                 "",
		"rfc822;a+":                    "",
		"rfc822;a+G0":                  "",
		"rfc822;ä":                     "",
		"rfc822;":                      "",
		"ann@office.example":           "",
		";a":                           "",
		`utf-8;\x{D800}`:               "",
		`utf-8;\x{A}`:                  "",
		`utf-8;\x{202E}`:               "",
		`utf-8;\y`:                     "",
		`utf-8;\x{41`:                  "",
		"rfc822;" + nTimes("x", 600):   "",
		"rf c;" + nTimes("x", 10):      "",
		"utf-8;" + "\xff":              "",
		"rfc822;ann>@office.example":   "rfc822;ann>@office.example",
		"rfc822;ann+3E@office.example": "rfc822;ann>@office.example",
	} {
		got, ok := relay.ParseORcpt(text, true)
		if ok != (want != "") || ok && got != want {
			t.Errorf("%q: %q, %v", text, got, ok)
		}
	}
	if _, ok := relay.ParseORcpt("utf-8;änn@x", false); ok {
		t.Error("raw UTF-8 without SMTPUTF8")
	}
}

func nTimes(s string, n int) string { return strings.Repeat(s, n) }

// FuzzORcpt: what was read is printable, and what is written for the next host is one word of
// ASCII that reads as the same again.
func FuzzORcpt(f *testing.F) {
	for _, s := range []string{"rfc822;a+2Bb@c", `utf-8;\x{E4}@x`, "utf-8;ä@x", "x;+20", "rfc822;+0D+0A"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if id, ok := relay.ParseEnvID(s); ok {
			check(t, id, relay.Xtext(id))
			if again, ok := relay.ParseXtext(relay.Xtext(id)); !ok || again != id {
				t.Fatalf("%q became %q", id, again)
			}
		}
		got, ok := relay.ParseORcpt(s, true)
		if !ok {
			return
		}
		out := relay.FormatORcpt(got)
		check(t, got, out)
		if len(out) > relay.MaxORcpt {
			return // a raw letter takes up to ten octets of ASCII
		}
		if again, ok := relay.ParseORcpt(out, false); !ok || again != got {
			t.Fatalf("%q was written as %q and read as %q", got, out, again)
		}
	})
}

func check(t *testing.T, text, out string) {
	t.Helper()
	for _, r := range text {
		if unicode.In(r, unicode.Cc, unicode.Cf) {
			t.Fatalf("%q is not printable", text)
		}
	}
	for _, c := range []byte(out) {
		if c <= ' ' || c > '~' || c == '=' {
			t.Fatalf("%q is no word", out)
		}
	}
}
