package mx

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"relayd/relay"
)

// TestSeed_S5_3: a foreign recipient: find the MX in the DNS, connect, send it on.
func TestSeed_S5_3(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &remote{ext: []string{"PIPELINING", "SIZE 1000000", "8BITMIME"}}
		env := envelope("bob@partner.example", "eve@partner.example")
		env.Body8Bit = true
		got := partner(r).send(t, env, hello)
		for _, res := range got {
			want := relay.Reply{Code: 250, Status: relay.Status{2, 0, 0}, Text: "queued as X1"}
			if res.Outcome != relay.Delivered || res.Reply != want || res.Host != "mx1.partner.example[192.0.2.7]:25" || res.TLS != "" {
				t.Errorf("%+v", res)
			}
		}
		wantLines := []string{"EHLO mail.office.example",
			"MAIL FROM:<ann@office.example> SIZE=25 BODY=8BITMIME",
			"RCPT TO:<bob@partner.example>", "RCPT TO:<eve@partner.example>", "DATA", "QUIT"}
		if !reflect.DeepEqual(r.lines, wantLines) {
			t.Errorf("said %q", r.lines)
		}
		if len(r.mails) != 1 || r.mails[0].data != hello+".\r\n" {
			t.Errorf("arrived: %q", r.mails)
		}
	})
}

// TestStages breaks the host at every stage: the letter must be kept and the second host asked.
func TestStages(t *testing.T) {
	for _, verb := range []string{"CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "END"} {
		for name, reply := range map[string]string{
			"421": "421 4.3.2 shutting down", "drop": drop, "stall": stall, "garbage": "hello there",
			"binary": raw + "\x16\x03\x01\x00\x00\n", "half": raw + "250", "mixed codes": "250-a\r\n550 b",
			"long line": "250 " + strings.Repeat("x", 5000),
			"endless":   strings.Repeat("250-more\r\n", 5000) + "250 done", "3xx": "399 what",
		} {
			for _, ext := range []string{"PIPELINING", "HELP"} {
				t.Run(verb+"/"+name+"/"+ext, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { testStage(t, verb, reply, ext) })
				})
			}
		}
	}
}

func testStage(t *testing.T, verb, reply, ext string) {
	bad, good := saying(verb, reply, ext), &remote{ext: []string{ext}}
	start := time.Now()
	got := two(bad, good).send(t, envelope("bob@partner.example"), hello)[0]
	if time.Since(start) > 11*time.Minute {
		t.Errorf("took %v", time.Since(start))
	}
	// After the final dot only a reply tells that the letter has not arrived.
	uncertain := verb == "END" && !strings.HasPrefix(reply, "421")
	if want := !uncertain; (got.Outcome == relay.Delivered) != want || (len(good.mails) == 1) != want {
		t.Errorf("with another host: %+v", got)
	}
	bad2 := saying(verb, reply, ext)
	got = partner(bad2).send(t, envelope("bob@partner.example"), hello)[0]
	if got.Outcome != relay.Deferred || !got.Reply.Temporary() && got.Host == "" {
		t.Errorf("alone: %+v", got)
	}
	if strings.HasPrefix(reply, "421") && (got.Reply.Code != 421 || got.Host != "mx1.partner.example[192.0.2.7]:25" || got.Reply.Text != "shutting down") {
		t.Errorf("the host's words are lost: %+v", got)
	}
}

// TestRefusals is about words that condemn the letter or the recipient, or only the host.
func TestRefusals(t *testing.T) {
	tests := []struct {
		verb, reply string
		want        relay.Outcome
		second      bool // whether the second host is asked
	}{
		{"CONNECT", "554 5.7.1 go away", relay.Deferred, true},
		{"CONNECT", "450 later", relay.Deferred, true},
		{"EHLO", "451 4.3.0 later", relay.Deferred, true},
		{"MAIL", "550 5.7.1 no mail from you", relay.Failed, false},
		{"MAIL", "451 4.7.1 greylisted", relay.Deferred, true},
		{"MAIL", "530 5.7.0 must issue STARTTLS first", relay.Deferred, true},
		{"MAIL", "503 5.5.1 hello first", relay.Deferred, true},
		{"RCPT", "550 5.1.1 no such user", relay.Failed, false},
		{"RCPT", "550 no such user", relay.Failed, false},
		{"RCPT", "451 4.7.1 greylisted", relay.Deferred, true},
		{"RCPT", "452 4.5.3 too many", relay.Deferred, true},
		{"RCPT", "552 5.2.2 mailbox full", relay.Failed, false},
		{"DATA", "554 5.7.1 no", relay.Failed, false},
		{"DATA", "451 4.3.0 no", relay.Deferred, true},
		{"END", "554 5.7.1 spam", relay.Failed, false},
		{"END", "452 4.3.1 disk full", relay.Deferred, true},
	}
	for _, tt := range tests {
		for _, ext := range []string{"PIPELINING", "HELP"} {
			t.Run(tt.verb+" "+tt.reply+"/"+ext, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					second := &remote{ext: []string{ext}}
					two(saying(tt.verb, tt.reply, ext), second).send(t, envelope("bob@partner.example"), hello)
					if (second.conns > 0) != tt.second {
						t.Errorf("the second host had %d connections", second.conns)
					}
					first := saying(tt.verb, tt.reply, ext)
					got := partner(first).send(t, envelope("bob@partner.example"), hello)[0]
					if got.Outcome != tt.want || got.Reply.Code != code(tt.reply) || got.Host == "" {
						t.Errorf("%+v", got)
					}
				})
			})
		}
	}
}

func code(s string) (n int) { fmt.Sscan(s, &n); return n }

func TestPartialAcceptance(t *testing.T) {
	for _, ext := range []string{"PIPELINING", "HELP"} {
		synctest.Test(t, func(t *testing.T) {
			rcpt := func(line string) string {
				switch {
				case strings.Contains(line, "grey@"):
					return "451-4.7.1 try\r\n451 4.7.1 later"
				case strings.Contains(line, "none@"):
					return "550 5.1.1 nobody"
				}
				return ""
			}
			first := &remote{ext: []string{ext}, on: map[string]func(string) string{"RCPT": rcpt}}
			second := &remote{on: map[string]func(string) string{"RCPT": rcpt}}
			got := two(first, second).send(t, envelope("bob@partner.example", "none@partner.example", "grey@partner.example", "eve@partner.example"), hello)
			want := []relay.Outcome{relay.Delivered, relay.Failed, relay.Deferred, relay.Delivered}
			for i := range got {
				if got[i].Outcome != want[i] {
					t.Errorf("%+v", got[i])
				}
			}
			if got[2].Reply.Text != "try\nlater" || got[2].Reply.Status != (relay.Status{4, 7, 1}) {
				t.Errorf("%+v", got[2].Reply)
			}
			// What one host has taken is not said to the next.
			if second.said("RCPT TO:<bob@") != 0 || second.said("RCPT TO:<none@") != 0 || second.said("RCPT TO:<grey@") != 1 {
				t.Errorf("the second host heard %q", second.lines)
			}
			if len(first.mails) != 1 || len(first.mails[0].rcpts) != 2 || len(second.mails) != 0 {
				t.Errorf("arrived: %v and %v", first.mails, second.mails)
			}
		})
	}
}

// TestLateDrop loses the host between two transactions: the first is delivered, and only the
// rest goes to the next host.
func TestLateDrop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mails := 0
		first := &remote{ext: []string{"PIPELINING", "LIMITS RCPTMAX=2"}, on: map[string]func(string) string{
			"MAIL": func(string) string {
				if mails++; mails == 2 {
					return drop
				}
				return ""
			}}}
		second := &remote{ext: []string{"PIPELINING"}}
		for i, res := range two(first, second).send(t, envelope("a@partner.example", "b@partner.example", "c@partner.example"), hello) {
			if res.Outcome != relay.Delivered || strings.HasPrefix(res.Host, "mx1.") != (i < 2) {
				t.Errorf("%+v", res)
			}
		}
		if len(second.mails) != 1 || !slices.Equal(second.mails[0].rcpts, []string{"<c@partner.example>"}) {
			t.Errorf("the second host got %+v", second.mails)
		}
	})
}

func TestTooManyRecipients(t *testing.T) {
	for _, reply := range []string{"452 4.5.3 too many recipients", "452 too many recipients", "552 5.5.3 too many"} {
		synctest.Test(t, func(t *testing.T) {
			r := &remote{ext: []string{"PIPELINING"}}
			n := 0
			r.on = map[string]func(string) string{
				"MAIL": func(string) string { n = 0; return "" },
				"RCPT": func(string) string {
					if n++; n > 3 {
						return reply
					}
					return ""
				}}
			for _, res := range partner(r).send(t, envelope(many(10)...), hello) {
				if res.Outcome != relay.Delivered {
					t.Errorf("%+v", res)
				}
			}
			if len(r.mails) != 4 || r.conns != 1 {
				t.Errorf("%d transactions on %d connections", len(r.mails), r.conns)
			}
		})
	}
}

func many(n int) []string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf("user%d@partner.example", i))
	}
	return out
}

func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &remote{ext: []string{"PIPELINING", "LIMITS MAILMAX=2 RCPTMAX=3 rubbish RCPTMAX=x"}}
		for _, res := range partner(r).send(t, envelope(many(10)...), hello) {
			if res.Outcome != relay.Delivered {
				t.Errorf("%+v", res)
			}
		}
		if len(r.mails) != 4 || r.conns != 2 {
			t.Errorf("%d transactions on %d connections", len(r.mails), r.conns)
		}
	})
}

// TestAllRefused also is about a host that allows DATA although it refused everybody.
func TestAllRefused(t *testing.T) {
	for _, reply := range []string{"354 go", "554 no valid recipients"} {
		synctest.Test(t, func(t *testing.T) {
			r := &remote{ext: []string{"PIPELINING"}, on: map[string]func(string) string{
				"RCPT": always("550 5.1.1 nobody"), "DATA": always(reply), "END": always("554 nothing to do")}}
			for _, res := range partner(r).send(t, envelope("a@partner.example", "b@partner.example"), hello) {
				if res.Outcome != relay.Failed || res.Reply.Status != (relay.Status{5, 1, 1}) {
					t.Errorf("%+v", res)
				}
			}
			if reply[0] == '3' && (len(r.wire) != 1 || string(r.wire[0]) != ".\r\n") {
				t.Errorf("sent %q to nobody", r.wire)
			}
			if r.said("QUIT") != 1 {
				t.Errorf("said %q", r.lines)
			}
		})
	}
}

// TestMailRefusedRcptTaken: nothing may be sent to a host that contradicts itself.
func TestMailRefusedRcptTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := saying("MAIL", "451 4.3.0 no", "PIPELINING")
		got := partner(r).send(t, envelope("a@partner.example"), hello)[0]
		if got.Outcome != relay.Deferred || got.Reply.Code != 451 || len(r.wire) != 0 {
			t.Errorf("%+v, sent %q", got, r.wire)
		}
	})
}

func TestRoundTrips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := partner(&remote{ext: []string{"PIPELINING", "SIZE 1000000"}})
		n.delay = 20 * time.Millisecond
		c := n.client()
		start := time.Now()
		for _, res := range c.Deliver(t.Context(), envelope(many(100)...), "partner.example", strings.NewReader(hello)) {
			if res.Outcome != relay.Delivered {
				t.Fatalf("%+v", res)
			}
		}
		// Greeting (half a round trip), EHLO, the envelope, the letter.
		if took := time.Since(start); took > 4*40*time.Millisecond {
			t.Errorf("100 recipients took %v", took)
		}
		c.Close()
		n.wg.Wait()
	})
}

// TestUncertain: only those who may have the letter already wait; the others go to the next host.
func TestUncertain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := saying("END", drop, "PIPELINING", "LIMITS RCPTMAX=1")
		second := &remote{}
		got := two(first, second).send(t, envelope("a@partner.example", "b@partner.example"), hello)
		if got[0].Outcome != relay.Deferred || got[0].Host != "" || got[1].Outcome != relay.Delivered {
			t.Errorf("%+v", got)
		}
		if len(second.mails) != 1 || !slices.Equal(second.mails[0].rcpts, []string{"<b@partner.example>"}) {
			t.Errorf("the second host got %+v", second.mails)
		}
	})
}

// TestRSET: a transaction that came to nothing is closed before the next is opened.
func TestRSET(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &remote{ext: []string{"PIPELINING", "LIMITS RCPTMAX=1"}, on: map[string]func(string) string{
			"RCPT": func(line string) string {
				if strings.Contains(line, "<a@") {
					return "550 5.1.1 nobody"
				}
				return ""
			},
			"DATA": func() func(string) string {
				n := 0
				return func(string) string {
					if n++; n == 1 {
						return "503 5.5.1 no recipients"
					}
					return ""
				}
			}()}}
		got := partner(r).send(t, envelope("a@partner.example", "b@partner.example", "c@partner.example"), hello)
		if got[0].Outcome != relay.Failed || got[1].Outcome != relay.Delivered || got[2].Outcome != relay.Delivered || r.said("RSET") != 1 || r.conns != 1 {
			t.Errorf("%+v, said %q", got, r.lines)
		}
	})
}

// TestSameHost: a host that has spoken is not asked again by its other address.
func TestSameHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := saying("RCPT", "451 4.7.1 greylisted")
		n := partner(r)
		n.addrs["mx1.partner.example"] = []netip.Addr{addr("192.0.2.7"), addr("192.0.2.17")}
		n.hosts["192.0.2.17"] = r
		if got := n.send(t, envelope("bob@partner.example"), hello)[0]; got.Outcome != relay.Deferred || r.conns != 1 {
			t.Errorf("%+v on %d connections", got, r.conns)
		}
	})
}

// TestMailRefusedInStep: the 503s that follow a refused MAIL are not the host's failure.
func TestMailRefusedInStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := saying("MAIL", "550 5.7.1 not you", "PIPELINING")
		r.on["RCPT"], r.on["DATA"] = always("503 5.5.1 MAIL first"), always("503 5.5.1 MAIL first")
		got := partner(r).send(t, envelope("bob@partner.example"), hello)[0]
		if got.Outcome != relay.Failed || got.Reply.Text != "not you" || r.said("QUIT") != 1 {
			t.Errorf("%+v, said %q", got, r.lines)
		}
	})
}

// TestEHLOAfterTLS: a host that takes EHLO in the clear only is not talked down to HELO.
func TestEHLOAfterTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		r := &remote{ext: []string{"STARTTLS"}, tls: selfSigned(), on: map[string]func(string) string{"EHLO": func(string) string {
			if n++; n > 1 {
				return "502 5.5.1 what?"
			}
			return ""
		}}}
		w := partner(r)
		w.delay = time.Millisecond
		if got := w.send(t, envelope("bob@partner.example"), hello)[0]; got.Outcome != relay.Deferred || got.Reply.Code != 502 || r.said("HELO") != 0 {
			t.Errorf("%+v, said %q", got, r.lines)
		}
	})
}

// TestSmallBuffers pipelines more than a remote that answers each command at once can hold, and
// more recipients than go into one transaction.
func TestSmallBuffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &remote{ext: []string{"PIPELINING"}}
		for _, res := range partner(r).send(t, envelope(many(maxRcpts+200)...), hello) {
			if res.Outcome != relay.Delivered {
				t.Fatalf("%+v", res)
			}
		}
		if len(r.mails) != 2 || r.conns != 1 || len(r.mails[0].rcpts) != maxRcpts {
			t.Errorf("%d transactions on %d connections", len(r.mails), r.conns)
		}
	})
}

func TestHELO(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := saying("EHLO", "502 5.5.1 not implemented")
		if got := partner(r).send(t, envelope("bob@partner.example"), hello)[0]; got.Outcome != relay.Delivered {
			t.Errorf("%+v", got)
		}
		if r.said("HELO mail.office.example") != 1 || r.said("MAIL FROM:<ann@office.example>") != 1 {
			t.Errorf("said %q", r.lines)
		}
	})
}

// TestInjection: a quoted local part stays one address (libraries.md, go-smtp 7).
func TestInjection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &remote{ext: []string{"PIPELINING", "DSN"}}
		env := envelope(`"a> NOTIFY=NEVER ORCPT=rfc822;x"@partner.example`, `"b\"c\\d"@partner.example`)
		env.From = mailbox(`"x> SIZE=1"@office.example`)
		partner(r).send(t, env, hello)
		want := []string{`<"a> NOTIFY=NEVER ORCPT=rfc822;x"@partner.example>`, `<"b\"c\\d"@partner.example>`}
		if len(r.mails) != 1 || r.mails[0].from != `<"x> SIZE=1"@office.example>` || !slices.Equal(r.mails[0].rcpts, want) {
			t.Errorf("%q", r.mails)
		}
	})
}

func TestNullSender(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &remote{}
		env := envelope("bob@partner.example")
		env.From = relay.Address{}
		partner(r).send(t, env, hello)
		if r.said("MAIL FROM:<>") != 1 {
			t.Errorf("said %q", r.lines)
		}
	})
}

// TestLacks is about hosts that cannot take such letters.
func TestLacks(t *testing.T) {
	tests := []struct {
		name   string
		ext    string
		change func(*relay.Envelope)
		status relay.Status
	}{
		{"size", "SIZE 10", func(*relay.Envelope) {}, relay.Status{5, 3, 4}},
		{"8bit", "SIZE", func(e *relay.Envelope) { e.Body8Bit = true }, relay.Status{5, 6, 3}},
		{"utf8 and 8-bit", "", func(e *relay.Envelope) { e.UTF8, e.Body8Bit = true, true }, relay.Status{5, 6, 7}},
		{"utf8", "8BITMIME", func(e *relay.Envelope) { e.UTF8 = true }, relay.Status{5, 6, 7}},
		{"sender", "8BITMIME", func(e *relay.Envelope) { e.From = mailbox("änn@office.example") }, relay.Status{5, 6, 7}},
		{"rcpt", "8BITMIME", func(e *relay.Envelope) { e.Rcpts[0].Addr = mailbox("bøb@partner.example") }, relay.Status{5, 6, 7}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				env := envelope("bob@partner.example")
				tt.change(&env)
				hello := hello
				if env.Body8Bit { // what is signed cannot be converted
					hello = "Content-Type: multipart/signed; boundary=s\r\n\r\n--s\r\n\r\ngrün\r\n--s--\r\n"
				}
				poor := &remote{ext: []string{tt.ext}}
				got := partner(poor).send(t, env, hello)[0]
				if got.Outcome != relay.Failed || got.Reply.Status != tt.status || poor.said("MAIL") != 0 {
					t.Errorf("alone: %+v", got)
				}
				rich := &remote{ext: []string{"SIZE", "8BITMIME", "SMTPUTF8"}}
				if got = two(poor, rich).send(t, env, hello)[0]; got.Outcome != relay.Delivered {
					t.Errorf("with a better host: %+v", got)
				}
				// The host that could take it is down: that is no reason to give up.
				if got = two(saying("CONNECT", drop), poor).send(t, env, hello)[0]; got.Outcome != relay.Deferred {
					t.Errorf("with a better host that is down: %+v", got)
				}
				// A dead address of the very same host changes nothing.
				n := partner(poor)
				n.addrs["mx1.partner.example"] = []netip.Addr{addr("2001:db8::7"), addr("192.0.2.7")}
				n.hosts["2001:db8::7"] = nil
				if got = n.send(t, env, hello)[0]; got.Outcome != relay.Failed {
					t.Errorf("without IPv6: %+v", got)
				}
			})
		})
	}
}

func TestUTF8(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &remote{ext: []string{"8BITMIME", "SMTPUTF8"}}
		partner(r).send(t, envelope("bob@partner.example", "bøb@partner.example"), hello)
		if len(r.mails) != 1 || r.mails[0].from != "<ann@office.example> SMTPUTF8" || r.mails[0].rcpts[1] != "<bøb@partner.example>" {
			t.Errorf("%q", r.mails)
		}
	})
}

func TestDataOnTheWire(t *testing.T) {
	for body, want := range map[string]string{
		"":                                ".\r\n",
		".":                               "..\r\n.\r\n",
		"a":                               "a\r\n.\r\n",
		"a\r\n.\r\nb\r\n":                 "a\r\n..\r\nb\r\n.\r\n",
		"..a\r\n.b":                       "...a\r\n..b\r\n.\r\n",
		"gr\xc3\xbc\xdfe\r\n":             "gr\xc3\xbc\xdfe\r\n.\r\n",
		"a\n.\nb\r.\rc\r\r\n":             "a\r\n..\r\nb\r\n..\r\nc\r\n\r\n.\r\n",
		strings.Repeat("x", 70000) + "\r": strings.Repeat("x", 70000) + "\r\n.\r\n",
	} {
		synctest.Test(t, func(t *testing.T) {
			r := &remote{ext: []string{"PIPELINING", "8BITMIME"}}
			partner(r).send(t, envelope("bob@partner.example"), body)
			if len(r.mails) != 1 || r.mails[0].data != want {
				t.Errorf("%.40q arrived as %.80q", body, r.mails)
			}
		})
	}
}

func TestSTARTTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &remote{ext: []string{"PIPELINING", "STARTTLS"}, tls: selfSigned()}
		n := partner(r)
		n.delay = time.Millisecond // a pipe without buffers deadlocks crypto/tls
		got := n.send(t, envelope("bob@partner.example"), hello)[0]
		if got.Outcome != relay.Delivered || !strings.HasPrefix(got.TLS, "TLS1.3 TLS_") {
			t.Errorf("%+v", got)
		}
		if r.said("EHLO") != 2 || len(r.mails) != 1 {
			t.Errorf("said %q", r.lines)
		}
	})
}

func TestSTARTTLSTrouble(t *testing.T) {
	tests := map[string]struct {
		reply string
		conns int
		want  relay.Outcome
	}{
		"refused":       {"454 4.7.0 not now", 1, relay.Delivered},
		"broken":        {"220 go\r\nxx", 1, relay.Deferred},
		"injected":      {raw + "220 go\r\n250 2.1.0 injected\r\n", 1, relay.Deferred},
		"no handshake":  {"220 go", 2, relay.Delivered},
		"drop":          {drop, 1, relay.Deferred},
		"421":           {"421 bye", 1, relay.Deferred},
		"endless reply": {strings.Repeat("220-a\r\n", 200) + "220 b", 1, relay.Deferred},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				// A server without a certificate fails every handshake.
				r := saying("STARTTLS", tt.reply, "STARTTLS")
				n := partner(r)
				n.delay = time.Millisecond
				r.tls = selfSigned().Clone()
				r.tls.Certificates = nil
				got := n.send(t, envelope("bob@partner.example"), hello)[0]
				if got.Outcome != tt.want || got.TLS != "" || r.conns != tt.conns {
					t.Errorf("%+v on %d connections", got, r.conns)
				}
			})
		})
	}
}

func TestContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := partner(saying("END", stall))
		c := n.client()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		got := c.Deliver(ctx, envelope("bob@partner.example"), "partner.example", strings.NewReader(hello))[0]
		if got.Outcome != relay.Deferred || time.Since(start) != time.Minute {
			t.Errorf("%+v after %v", got, time.Since(start))
		}
		c.Close()
		n.wg.Wait()
	})
}

// TestTrickle: a host that takes an octet now and then is cut off by the minimum rate.
func TestTrickle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := partner(&remote{})
		c := n.client(func(cfg *Config) { cfg.Timeouts.MinRate = 600 })
		slow := &slowReader{Reader: *strings.NewReader(strings.Repeat("x\r\n", 60_000))}
		start := time.Now()
		got := c.Deliver(t.Context(), envelope("bob@partner.example"), "partner.example", slow)[0]
		if took := time.Since(start); got.Outcome != relay.Deferred || took > 11*time.Minute {
			t.Errorf("%+v after %v", got, took)
		}
		c.Close()
		n.wg.Wait()
	})
}

// slowReader makes each piece of the body late, which the deadline of the whole must notice.
type slowReader struct{ strings.Reader }

func (s *slowReader) Read(p []byte) (int, error) {
	time.Sleep(2 * time.Minute) // the bubble's clock
	return s.Reader.Read(p[:min(len(p), 20_000)])
}

func (s *slowReader) WriteTo(io.Writer) (int64, error) { panic("not used") }

// TestUnreadableBody: a disk that fails never costs the letter, and the dot is never sent.
func TestUnreadableBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &remote{}
		n := two(r, &remote{})
		c := n.client()
		got := c.Deliver(t.Context(), envelope("bob@partner.example"), "partner.example", brokenBody{strings.NewReader(hello)})[0]
		c.Close()
		n.wg.Wait()
		if got.Outcome != relay.Deferred || got.Host != "" || len(r.wire) != 0 || got.Reply.Status != (relay.Status{4, 3, 0}) {
			t.Errorf("%+v", got)
		}
	})
}

type brokenBody struct{ io.Seeker }

func (brokenBody) Read(p []byte) (int, error) { return copy(p, "Subject: x\r\n"), io.ErrNoProgress }

// TestDSN: what the sender wants to hear of is passed on to a host that offers DSN, coded anew, and
// the result says so; to any other host it is not (RFC 3461 §5.2).
func TestDSN(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env := envelope("bob@partner.example", "carol@partner.example")
		env.Ret, env.EnvID = relay.RetHeaders, "q> SIZE=1\r\nRSET"
		env.Rcpts[0].Notify, env.Rcpts[0].ORcpt = relay.NotifySuccess|relay.NotifyFailure, "rfc822;a b+c=d@office.example"
		able, plain := &remote{ext: []string{"PIPELINING", "DSN"}}, &remote{ext: []string{"PIPELINING"}}
		got := partner(able).send(t, env, hello)
		want := []string{"<bob@partner.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;a+20b+2Bc+3Dd@office.example", "<carol@partner.example>"}
		if len(able.mails) != 1 || able.mails[0].from != "<ann@office.example> RET=HDRS ENVID=q>+20SIZE+3D1+0D+0ARSET" ||
			!slices.Equal(able.mails[0].rcpts, want) || !got[0].DSN {
			t.Errorf("%q, %+v", able.mails, got)
		}
		got = partner(plain).send(t, env, hello)
		if len(plain.mails) != 1 || plain.mails[0].from != "<ann@office.example>" || plain.mails[0].rcpts[0] != "<bob@partner.example>" || got[0].DSN {
			t.Errorf("%q, %+v", plain.mails, got)
		}
	})
}
