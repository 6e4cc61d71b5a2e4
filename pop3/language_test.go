package pop3_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io/fs"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"relayd/pop3"
	"relayd/relay"
)

// Every sentence is there in every language, fits a reply with the longest address in it, takes the
// same arguments everywhere, and is ASCII in English.
func TestTexts(t *testing.T) {
	t.Parallel()
	verbs := regexp.MustCompile(`%.`)
	texts := pop3.Texts()
	if len(texts) < 50 {
		t.Fatalf("only %d sentences", len(texts))
	}
	for name, p := range texts {
		want := fmt.Sprint(verbs.FindAllString(p[0], -1))
		for l, s := range p {
			tag := pop3.Languages()[l]
			if s == "" || !utf8.ValidString(s) || strings.ContainsAny(s, "\r\n") || len(s) > 150 {
				t.Errorf("%s in %s: %q", name, tag, s)
			}
			if got := fmt.Sprint(verbs.FindAllString(s, -1)); got != want {
				t.Errorf("%s in %s takes %s, want %s", name, tag, got, want)
			}
			if tag == "en" && strings.ContainsFunc(s, func(r rune) bool { return r > '~' }) {
				t.Errorf("%s is not ASCII: %q", name, s)
			}
		}
	}
}

// LANG * is what the operator chose; nobody gets it unasked.
func TestPreferredLanguage(t *testing.T) {
	t.Parallel()
	cfg := config(letters())
	cfg.Language = "de"
	talk(t, connect(t, serve(t, cfg, false), "127.0.0.1"),
		"S: +OK mail.office.example POP3 server ready\nC: LANG *\nS: +OK de wir sprechen jetzt Deutsch\nC: QUIT\nS: +OK auf Wiedersehen\nS: <closed>")
}

// What was agreed on before STLS is forgotten with it (RFC 2595 §4).
func TestSTLSForgetsTheLanguage(t *testing.T) {
	t.Parallel()
	conn := connect(t, newServer(t, letters()), "127.0.0.1")
	talk(t, conn, "S: +OK*\nC: LANG de\nS: +OK de*\nC: STLS\nS: +OK TLS beginnen")
	talk(t, tls.Client(conn, &tls.Config{InsecureSkipVerify: true}), "C: STAT\nS: -ERR log in first")
}

// A name in UTF-8 stands in a sentence only where the client reads UTF-8.
func TestNamesInSentences(t *testing.T) {
	t.Parallel()
	for before, name := range map[string]string{"": "gr??e", "C: UTF8\nS: +OK*\n": "grüe", "C: LANG fr\nS: +OK fr*\n": "grüe"} {
		cfg := config(letters())
		cfg.Auth = umlaut{}
		talk(t, connect(t, serve(t, cfg, false), "127.0.0.1"),
			"S: +OK*\n"+before+"C: USER grüe@office.example\nS: +OK*\nC: PASS x\nS: +OK "+name+"@office.example*")
	}
}

type umlaut struct{}

func (umlaut) Authenticate(context.Context, string, string, netip.Addr) (relay.Address, error) {
	return relay.Address{Local: "grüe", Domain: "office.example"}, nil
}

// A reply stays within 512 octets and whole characters (RFC 1939 §3).
func TestLongReply(t *testing.T) {
	t.Parallel()
	box := letters(slices.Repeat([]string{"a\n"}, 300)...)
	box.stuck = map[int]bool{}
	var script strings.Builder
	for n := 1; n <= 300; n++ {
		box.stuck[n] = true
		fmt.Fprintf(&script, "C: DELE %d\nS: +OK*\n", n)
	}
	conn := connect(t, newServer(t, box), "127.0.0.1")
	talk(t, conn, login+"C: LANG ja\nS: +OK*\n"+script.String())
	conn.Write([]byte("QUIT\r\n"))
	got := ended(t, conn)
	if len(got) > 512 || !utf8.ValidString(got) || !strings.HasPrefix(got, "-ERR [SYS/TEMP] 300") || !strings.HasSuffix(got, " ...\r\n") {
		t.Errorf("%d octets: %q", len(got), got)
	}
}

// LOGIN-DELAY holds over servers that share it, for each mailbox, after the password was right
// alone, and CAPA says so.
func TestLoginDelay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := config(letters())
		cfg.Delay = pop3.NewLoginDelay(90*time.Second + time.Millisecond)
		one, two := serve(t, cfg, false), serve(t, cfg, false)
		const bye = "C: QUIT\nS: +OK*\nS: <closed>"
		talk(t, connect(t, one, "127.0.0.1"), login+bye)
		conn := connect(t, two, "127.0.0.1")
		talk(t, conn, "S: +OK*\nC: USER ann@office.example\nS: +OK*\nC: PASS wrong\nS: -ERR [AUTH]*\nC: USER ann@office.example\nS: +OK*\nC: PASS secret word\nS: -ERR [LOGIN-DELAY] log in again in 89 seconds")
		time.Sleep(89 * time.Second)
		talk(t, conn, "C: USER ann@office.example\nS: +OK*\nC: PASS secret word\nS: +OK*\n"+bye)
		talk(t, connect(t, one, "127.0.0.1"), "S: +OK*\nC: CAPA\nS: +OK*\nS: TOP\nS: UIDL\nS: RESP-CODES\nS: AUTH-RESP-CODE\nS: PIPELINING\nS: EXPIRE NEVER\nS: UTF8 USER\nS: LANG\nS: USER\nS: SASL PLAIN LOGIN\nS: LOGIN-DELAY 91\nS: STLS\nS: IMPLEMENTATION relayd\nS: .\n"+bye)
	})
}

// Somebody has to mend wrong permissions; other trouble passes (RFC 3206 §4).
func TestPermanentTrouble(t *testing.T) {
	t.Parallel()
	cfg := config(letters())
	cfg.Open = func(context.Context, relay.Address, netip.Addr) (pop3.Maildrop, error) {
		return nil, &fs.PathError{Op: "open", Path: "ann", Err: fs.ErrPermission}
	}
	talk(t, connect(t, serve(t, cfg, false), "127.0.0.1"),
		"S: +OK*\nC: USER ann@office.example\nS: +OK*\nC: PASS secret word\nS: -ERR [SYS/PERM] the mailbox cannot be opened*")
}
