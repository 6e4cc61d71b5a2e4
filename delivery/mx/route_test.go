package mx

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"relayd/relay"
)

// TestChoose: which route a letter takes, by the numbers of the routes; -1 is the MX.
func TestChoose(t *testing.T) {
	t.Parallel()
	n := &network{
		mx:   map[relay.Domain][]relay.MX{"customer.example": mxs(20, "backup.customer.example", 10, "customer.mail.protection.example"), "null.example": mxs(0, "")},
		fail: map[relay.Domain]error{"sick.example": errServfail},
	}
	routes := []Route{
		{To: "first.example", Via: "a"},
		{To: "*", From: []string{"letters.example", "*.sub.example", "boss@office.example"}, Via: "b"},
		{To: "*.login.example", Logins: []string{"ann@office.example"}, Via: "c"},
		{To: "*", MX: []string{"*.mail.protection.example", "bare.example"}, Via: "d"},
		{To: "slow.example", After: 3, Via: "e"},
		{To: "both.example", After: 2, On: []string{"5.7.1"}, Via: "f"},
		{To: "*", On: []string{Blocklist}, Via: "g"},
		{To: "second.example", Via: "h"},
	}
	tests := []struct {
		from, user, to string
		attempt        int
		via, rescue    relay.Domain
	}{
		{"ann@office.example", "", "first.example", 1, "a", ""},
		{"news@letters.example", "", "other.example", 1, "b", ""},
		{"news@x.sub.example", "", "other.example", 1, "b", ""},
		{"news@sub.example", "", "other.example", 1, "", "g"},
		{"Boss@office.example", "", "other.example", 1, "b", ""},
		{"", "", "other.example", 1, "", "g"},
		{"x@office.example", "ann@office.example", "a.login.example", 1, "c", ""},
		{"ann@office.example", "bob@office.example", "a.login.example", 1, "", "g"},
		{"ann@office.example", "", "a.login.example", 1, "", "g"},
		{"x@y.example", "", "customer.example", 1, "d", ""},
		{"x@y.example", "", "bare.example", 1, "d", ""},
		{"x@y.example", "", "null.example", 1, "", "g"},
		{"x@y.example", "", "[192.0.2.1]", 1, "", "g"},
		{"x@y.example", "", "slow.example", 1, "", "g"},
		{"x@y.example", "", "slow.example", 3, "", "g"},
		{"x@y.example", "", "slow.example", 4, "e", ""},
		{"x@y.example", "", "both.example", 2, "", "f"},
		{"x@y.example", "", "both.example", 3, "f", ""},
		{"x@y.example", "", "second.example", 1, "h", "g"},
	}
	c := n.client(func(c *Config) { c.Routes = routes })
	for _, tt := range tests {
		env := relay.Envelope{Attempt: tt.attempt, Origin: relay.Origin{User: tt.user}}
		if tt.from != "" {
			env.From = mailbox(tt.from)
		}
		got, err := c.choose(t.Context(), &env, relay.Domain(tt.to))
		name := func(r *Route) relay.Domain {
			if r == nil {
				return ""
			}
			return r.Via
		}
		if err != nil || name(got.via) != tt.via || name(got.rescue) != tt.rescue {
			t.Errorf("%+v: via %q, rescue %q, %v", tt, name(got.via), name(got.rescue), err)
		}
	}
	// What route is right cannot be told: later.
	if _, res := n.attempt(t, "sick.example", func(c *Config) { c.Routes = routes }); res.Outcome != relay.Deferred || res.Reply.Status != status("4.4.3") {
		t.Errorf("%+v", res)
	}
}

// smart is a world with a smarthost beside partner.example, whose certificate a client may trust.
func smart(t *testing.T, r *remote) *network {
	t.Helper()
	r.tls = certified(t, "smart.example", false)
	n := partner(&remote{})
	n.addrs["smart.example"] = addrs("192.0.2.99")
	n.hosts["192.0.2.99"] = r
	return n
}

var smartRoute = Route{To: "*", Via: "smart.example", User: "office", Password: "hunter2"}

// TestLogin: we log in under TLS with the right certificate, and never tell the password otherwise.
func TestLogin(t *testing.T) {
	plain := "AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00office\x00hunter2"))
	tests := []struct {
		name    string
		ext     []string
		trusted bool
		answer  string // to AUTH PLAIN
		want    relay.Outcome
		status  string
		told    bool // the password was
	}{
		{"plain", []string{"STARTTLS", "AUTH LOGIN PLAIN"}, true, "235 2.7.0 hello", relay.Delivered, "2.0.0", true},
		{"login", []string{"STARTTLS", "AUTH LOGIN"}, true, "", relay.Delivered, "2.0.0", true},
		{"wrong password", []string{"STARTTLS", "AUTH PLAIN"}, true, "535 5.7.8 wrong", relay.Deferred, "5.7.8", true},
		{"no TLS", []string{"AUTH PLAIN"}, true, "", relay.Deferred, "4.7.5", false},
		{"no AUTH", []string{"STARTTLS"}, true, "", relay.Deferred, "4.7.0", false},
		{"wrong certificate", []string{"STARTTLS", "AUTH PLAIN"}, false, "", relay.Deferred, "4.7.5", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &remote{ext: tt.ext, on: map[string]func(string) string{
					"AUTH": func(line string) string {
						if line == "AUTH LOGIN" {
							return "334 VXNlcm5hbWU6"
						}
						return tt.answer
					},
				}}
				// The remote reads every line as a verb, in capitals.
				r.on[strings.ToUpper(encode("office"))] = always("334 UGFzc3dvcmQ6")
				r.on[strings.ToUpper(encode("hunter2"))] = always("235 2.7.0 hello")
				n := smart(t, r)
				n.delay = time.Millisecond // a pipe without buffers deadlocks crypto/tls
				got := n.send(t, envelope("bob@partner.example"), hello, func(c *Config) {
					c.Routes = []Route{smartRoute}
					if tt.trusted {
						c.TLS = &tls.Config{RootCAs: testCA().Pool()}
					}
				})[0]
				if got.Outcome != tt.want || got.Reply.Status != status(tt.status) {
					t.Errorf("%+v", got)
				}
				told := r.said(plain) > 0 || r.said(encode("hunter2")) > 0
				if told != tt.told || (len(r.mails) == 1) != (tt.want == relay.Delivered) {
					t.Errorf("said %q", r.lines)
				}
				if strings.Contains(fmt.Sprintf("%+v", got), "hunter2") || strings.Contains(fmt.Sprintf("%+v %#v", smartRoute, smartRoute), "hunter2") {
					t.Error("the password can be seen")
				}
			})
		})
	}
}

// TestRescue: who is refused because of our address gets the letter by the smarthost; the others of
// the same letter keep what they were told.
func TestRescue(t *testing.T) {
	for _, tt := range []struct {
		smart   string // its answer at the end
		outcome relay.Outcome
		text    string
	}{
		{"250 2.0.0 queued", relay.Delivered, "queued"},
		{"451 4.3.0 busy", relay.Deferred, "busy"},
		{"554 5.6.0 spam", relay.Failed, "spam"},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := saying("END", tt.smart)
			n := smart(t, r)
			n.hosts["192.0.2.7"].on = map[string]func(string) string{"RCPT": func(line string) string {
				switch {
				case strings.Contains(line, "listed"):
					return "550 5.7.1 Client host blocked using zen.spamhaus.org"
				case strings.Contains(line, "nobody"):
					return "550 5.1.1 no such user"
				}
				return ""
			}}
			var told []Rescue
			got := n.send(t, envelope("listed@partner.example", "nobody@partner.example", "bob@partner.example"), hello, func(c *Config) {
				c.Routes = []Route{{To: "*", Via: "smart.example", On: []string{Blocklist}}}
				c.Rescued = func(what Rescue) { told = append(told, what) }
			})
			if got[0].Outcome != tt.outcome || got[0].Reply.Text != tt.text || !strings.HasPrefix(got[0].Host, "smart.example[") {
				t.Errorf("listed: %+v", got[0])
			}
			if got[1].Outcome != relay.Failed || got[1].Reply.Status != status("5.1.1") || got[2].Outcome != relay.Delivered {
				t.Errorf("others: %+v", got[1:])
			}
			if len(told) != 1 || told[0].Via != "smart.example" || told[0].Reply.Status != status("5.7.1") {
				t.Errorf("told %+v", told)
			}
			if r.said("RCPT") != 1 {
				t.Errorf("the smarthost heard %q", r.lines)
			}
		})
	}
}

// TestRescueGreeting: a host that refuses the connection itself; and a smarthost that is down keeps
// the letter waiting.
func TestRescueGreeting(t *testing.T) {
	for _, up := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			n := smart(t, &remote{})
			n.hosts["192.0.2.7"].on = map[string]func(string) string{"CONNECT": always("554 5.7.1 your address is on our blocklist")}
			if !up {
				delete(n.hosts, "192.0.2.99")
			}
			got := n.send(t, envelope("bob@partner.example"), hello, func(c *Config) {
				c.Routes = []Route{{To: "*", Via: "smart.example", On: []string{"5.7.1"}}}
			})[0]
			if want := map[bool]relay.Outcome{true: relay.Delivered, false: relay.Deferred}[up]; got.Outcome != want {
				t.Errorf("up %v: %+v", up, got)
			}
		})
	}
}

// TestLoginMay: tls = "may" takes any certificate, and still no password crosses the line in the clear.
func TestLoginMay(t *testing.T) {
	for _, ext := range [][]string{{"STARTTLS", "AUTH PLAIN"}, {"AUTH PLAIN"}} {
		synctest.Test(t, func(t *testing.T) {
			r := &remote{ext: ext, on: map[string]func(string) string{"AUTH": always("235 2.7.0 hello")}}
			n := smart(t, r)
			n.delay = time.Millisecond
			route := smartRoute
			route.TLS = TLSMay
			got := n.send(t, envelope("bob@partner.example"), hello, func(c *Config) { c.Routes = []Route{route} })[0]
			if want := ext[0] == "STARTTLS"; (got.Outcome == relay.Delivered) != want || (r.said("AUTH") > 0) != want {
				t.Errorf("%q: %+v, said %q", ext, got, r.lines)
			}
		})
	}
}

// TestImplicitTLS: at port 465 TLS comes before the greeting.
func TestImplicitTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &remote{ext: []string{"AUTH PLAIN"}, on: map[string]func(string) string{"AUTH": always("235 2.7.0 hello")}}
		n := smart(t, r)
		n.delay, n.wrap = time.Millisecond, r.tls
		route := smartRoute
		route.Port = 465
		got := n.send(t, envelope("bob@partner.example"), hello, trusting(""), func(c *Config) { c.Routes = []Route{route} })[0]
		if got.Outcome != relay.Delivered || !strings.HasSuffix(got.TLS, ", verified (route)") || r.said("STARTTLS") > 0 {
			t.Errorf("%+v, said %q", got, r.lines)
		}
	})
}
