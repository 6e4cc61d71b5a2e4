package mx

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"relayd/relay"
)

// TestTranscript: what was said and when, nothing of the letter, and only where it failed.
func TestTranscript(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := saying("END", "451 4.3.0 disk trouble\r\n", "PIPELINING")
		first.on["END"] = func(string) string { time.Sleep(2 * time.Second); return "451 4.3.0 disk trouble" }
		n := two(first, saying("CONNECT", drop))
		got := n.send(t, envelope("bob@partner.example", "eve@partner.example"), hello)
		want := `   +0.000 * mx1.partner.example[192.0.2.7]:25
   +0.000 < 220 mx1.partner.example ESMTP
   +0.000 > EHLO mail.office.example
   +0.000 < 250-mx1.partner.example
   +0.000 < 250 PIPELINING
   +0.000 > MAIL FROM:<ann@office.example>
   +0.000 > RCPT TO:<bob@partner.example>
   +0.000 > RCPT TO:<eve@partner.example>
   +0.000 > DATA
   +0.000 < 250 2.1.0 OK
   +0.000 < 250 2.1.0 OK
   +0.000 < 250 2.1.0 OK
   +0.000 < 354 go ahead
   +0.000 * the message, 25 octets
   +2.000 < 451 4.3.0 disk trouble
   +2.000 * mx2.partner.example[192.0.2.8]:25
   +2.000 * the greeting: EOF
`
		if got[0].Transcript != want || got[1].Transcript != "" {
			t.Errorf("got\n%s\nwant\n%s\nand %q", got[0].Transcript, want, got[1].Transcript)
		}
		good := partner(&remote{}).send(t, envelope("bob@partner.example"), hello)
		if good[0].Transcript != "" {
			t.Errorf("delivered, and yet %q", good[0].Transcript)
		}
	})
}

// TestTranscriptSecrets: neither mechanism leaves a trace of the password.
func TestTranscriptSecrets(t *testing.T) {
	for _, mechanism := range []string{"PLAIN", "LOGIN"} {
		synctest.Test(t, func(t *testing.T) {
			r := &remote{ext: []string{"STARTTLS", "AUTH " + mechanism}, on: map[string]func(string) string{
				"AUTH": func(line string) string {
					if line == "AUTH LOGIN" {
						return "334 VXNlcm5hbWU6"
					}
					return "535 5.7.8 no"
				},
				strings.ToUpper(encode("office")):  always("334 UGFzc3dvcmQ6"),
				strings.ToUpper(encode("hunter2")): always("535 5.7.8 no"),
			}}
			n := smart(t, r)
			n.delay = time.Millisecond
			got := n.send(t, envelope("bob@partner.example"), hello, trusting(""), func(c *Config) { c.Routes = []Route{smartRoute} })[0].Transcript
			if !strings.Contains(got, "> AUTH ***") || !strings.Contains(got, "< 535 5.7.8 no") || !strings.Contains(got, "* TLS1.3 ") {
				t.Errorf("got\n%s", got)
			}
			for _, secret := range []string{"hunter2", encode("hunter2"), encode("office"), encode("\x00office\x00hunter2")} {
				if strings.Contains(got, secret) {
					t.Errorf("%q is in\n%s", secret, got)
				}
			}
		})
	}
}

// TestTranscriptBound: however much is said, the beginning and the end of 8 KiB are kept.
func TestTranscriptBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := saying("RCPT", "550 5.1.1 "+strings.Repeat("no ", 600), "PIPELINING")
		var rcpts []string
		for i := range 500 {
			rcpts = append(rcpts, fmt.Sprintf("bob%03d@partner.example", i))
		}
		n := two(r, &remote{})
		got := n.send(t, envelope(rcpts...), hello)
		tr := got[0].Transcript
		if len(tr) > maxTranscript || len(tr) < maxTranscript/2 || !strings.Contains(tr, "> EHLO") ||
			!strings.Contains(tr, " more\n") || !strings.HasSuffix(tr, "no\n") && !strings.Contains(tr[len(tr)-400:], "< 550-") && !strings.Contains(tr[len(tr)-400:], "< 5") {
			t.Errorf("%d octets: %s", len(tr), tr)
		}
		if got[0].Outcome != relay.Failed {
			t.Errorf("%+v", got[0])
		}
	})
}
