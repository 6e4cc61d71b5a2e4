package smtpd

import (
	"strings"
	"testing"
	"unicode"

	"relayd/relay"
)

// FuzzParams: whatever stands behind MAIL or RCPT, it is refused with 5xx, or what was understood can
// be written again, by the next server for instance, as one word each without a control character.
func FuzzParams(f *testing.F) {
	for _, s := range []string{
		"FROM:<a@b.example> RET=FULL ENVID=a+2Bb SIZE=1 BODY=8BITMIME SMTPUTF8 AUTH=<>", "FROM:<> ret=hdrs",
		`FROM:<"a> RET=FULL"@b.example> ENVID=+0D+0A`, "TO:<a@b.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a+20b@c",
		`TO:<"x> NOTIFY=NEVER"@b.example> ORCPT=utf-8;\x{E4}@x`, "TO:<ä@b.example> ORCPT=utf-8;ä@x NOTIFY=NEVER",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, arg string) {
		o := offer{maxSize: 1000, auth: true, dsn: true}
		if m, refusal := parseMail(arg, o); refusal == nil {
			word(t, relay.Xtext(m.params.EnvID))
			shown(t, m.params.EnvID)
			if again, no := parseMail("FROM:"+m.from.Path()+" ENVID="+relay.Xtext(m.params.EnvID)+" SMTPUTF8", o); m.params.EnvID != "" && (no != nil || again.params.EnvID != m.params.EnvID || again.from != m.from) {
				t.Fatalf("%+v became %+v, %v", m, again, no)
			}
		} else if refusal.Code/100 != 5 {
			t.Fatalf("refused with %v", refusal)
		}
		if r, refusal := parseRcpt(arg, true, o); refusal == nil {
			word(t, relay.FormatORcpt(r.params.ORcpt))
			shown(t, r.params.ORcpt)
			if n := r.params.Notify; n.Wants(relay.NotifyNever) && n != relay.NotifyNever {
				t.Fatalf("%v", n)
			}
		} else if refusal.Code/100 != 5 {
			t.Fatalf("refused with %v", refusal)
		}
	})
}

func word(t *testing.T, s string) {
	if i := strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == '=' }); i >= 0 {
		t.Fatalf("%q is no word", s)
	}
}

func shown(t *testing.T, s string) {
	if i := strings.IndexFunc(s, unicode.IsControl); i >= 0 {
		t.Fatalf("%q holds a control character", s)
	}
}
