package mx

import (
	"crypto/tls"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"relayd/relay"
	"relayd/relay/relaytest"
)

var testCA = sync.OnceValue(func() *relaytest.CA {
	ca, err := relaytest.NewCA()
	if err != nil {
		panic(err)
	}
	return ca
})

// certified is the TLS of a remote with a certificate of the test CA.
func certified(t *testing.T, name string, expired bool) *tls.Config {
	t.Helper()
	cert, err := testCA().Issue(name, expired)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}}
}

// trusting is a client that trusts the test CA; asked is what a route to partner.example asks for.
func trusting(asked string) func(*Config) {
	return func(c *Config) {
		c.TLS = &tls.Config{RootCAs: testCA().Pool()}
		if asked != "" {
			c.Routes = []Route{{To: "partner.example", TLS: asked}}
		}
	}
}

// encrypting is a world in which partner.example has one host with TLS, or without if it is nil.
func encrypting(cfg *tls.Config) (*network, *remote) {
	r := &remote{tls: cfg, ext: []string{"PIPELINING"}}
	if cfg != nil {
		r.ext = append(r.ext, "STARTTLS")
	}
	n := partner(r)
	n.delay = time.Millisecond // a pipe without buffers deadlocks crypto/tls
	return n, r
}

func TestRouteTLS(t *testing.T) {
	good, other, expired := certified(t, "mx1.partner.example", false), certified(t, "mx9.partner.example", false), certified(t, "mx1.partner.example", true)
	for _, tt := range []struct {
		name, route string
		host        *tls.Config
		want        string // how Result.TLS ends; "-": no TLS; otherwise a status
	}{
		{"nothing said", "", good, ", verified"},
		{"nothing said, self-signed", "", selfSigned(), ", unverified"},
		{"nothing said, no TLS", "", nil, "-"},
		{"may, wrong name", TLSMay, other, ", unverified (route)"},
		{"none", TLSNone, good, "-"},
		{"verify", TLSVerify, good, ", verified (route)"},
		{"verify, self-signed", TLSVerify, selfSigned(), "4.7.5"},
		{"verify, wrong name", TLSVerify, other, "4.7.5"},
		{"verify, expired", TLSVerify, expired, "4.7.5"},
		{"verify, no TLS", TLSVerify, nil, "4.7.5"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, r := encrypting(tt.host)
				got := n.send(t, envelope("bob@partner.example"), hello, trusting(tt.route))[0]
				wantTLS(t, got, r, tt.want)
			})
		})
	}
}

// wantTLS: want is how Result.TLS ends after a delivery, "-" for one in the clear, or the status
// of a deferral, and then r has not heard of the letter.
func wantTLS(t *testing.T, got relay.Result, r *remote, want string) {
	t.Helper()
	switch {
	case want == "-":
		if got.Outcome != relay.Delivered || got.TLS != "" || r.said("STARTTLS") > 0 {
			t.Errorf("%+v", got)
		}
	case strings.HasPrefix(want, "4."):
		if got.Outcome != relay.Deferred || got.Reply.Status.String() != want || r.said("MAIL") > 0 || r.conns > 1 {
			t.Errorf("%+v, said %q on %d connections", got, r.lines, r.conns)
		}
	default:
		if got.Outcome != relay.Delivered || !strings.HasPrefix(got.TLS, "TLS1.3 TLS_") || !strings.HasSuffix(got.TLS, want) {
			t.Errorf("%+v", got)
		}
	}
}

// TestVerifyRefused: a host that must have TLS and answers 454 keeps its own words.
func TestVerifyRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := saying("STARTTLS", "454 4.7.0 not now", "STARTTLS")
		got := partner(r).send(t, envelope("bob@partner.example"), hello, trusting(TLSVerify))[0]
		if got.Outcome != relay.Deferred || got.Reply.Text != "not now" || r.said("MAIL") > 0 {
			t.Errorf("%+v, said %q", got, r.lines)
		}
	})
}

// TestVerifyNext: where the first host proves nothing, the second gets the letter.
func TestVerifyNext(t *testing.T) {
	second := certified(t, "mx2.partner.example", false)
	synctest.Test(t, func(t *testing.T) {
		n, r := encrypting(selfSigned())
		n.mx["partner.example"] = append(n.mx["partner.example"], relay.MX{Host: "mx2.partner.example", Pref: 20})
		n.addrs["mx2.partner.example"] = addrs("192.0.2.8")
		n.hosts["192.0.2.8"] = &remote{ext: []string{"STARTTLS"}, tls: second}
		got := n.send(t, envelope("bob@partner.example"), hello, trusting(TLSVerify))[0]
		if got.Outcome != relay.Delivered || !strings.HasPrefix(got.Host, "mx2.") || r.said("MAIL") > 0 {
			t.Errorf("%+v", got)
		}
	})
}

// TestNoWeakReuse: a session that was opened without proof does not carry a letter that needs it.
func TestNoWeakReuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, r := encrypting(selfSigned())
		c := n.client(trusting(""), func(c *Config) { c.Timeouts.Idle = time.Minute })
		for _, route := range []string{"", "", TLSVerify} {
			c.SetRoutes([]Route{{To: "*", TLS: route}})
			got := c.Deliver(t.Context(), envelope("bob@partner.example"), "partner.example", strings.NewReader(hello))[0]
			if (got.Outcome == relay.Delivered) != (route == "") {
				t.Errorf("%q: %+v", route, got)
			}
		}
		c.Close()
		n.wg.Wait()
		if r.conns != 2 || len(r.mails) != 2 {
			t.Errorf("%d connections, %d letters", r.conns, len(r.mails))
		}
	})
}

// remembered is a Memory in memory.
type remembered struct {
	mu   sync.Mutex
	days map[relay.Domain]time.Time
}

func (m *remembered) Note(d relay.Domain, at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.days == nil {
		m.days = map[relay.Domain]time.Time{}
	}
	m.days[d] = at
}

func (m *remembered) Last(d relay.Domain) (time.Time, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at, ok := m.days[d]
	return at, ok
}

// TestDowngrade: a host that had TLS and has it no more gets its mail, and the result says so.
func TestDowngrade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &remembered{}
		send := func(host *tls.Config, on map[string]func(string) string) relay.Result {
			n, r := encrypting(host)
			r.on = on
			return n.send(t, envelope("bob@partner.example"), hello, trusting(""), func(c *Config) { c.Offered = m })[0]
		}
		if got := send(nil, nil); got.Outcome != relay.Delivered || got.TLS != "" {
			t.Errorf("a stranger: %+v", got)
		}
		send(selfSigned(), nil)
		broken := &tls.Config{}
		for why, f := range map[string]func() relay.Result{
			"does not offer STARTTLS": func() relay.Result { return send(nil, nil) },
			"refuses STARTTLS": func() relay.Result {
				return send(broken, map[string]func(string) string{"STARTTLS": always("454 4.7.0 not now")})
			},
			"the handshake fails": func() relay.Result { return send(broken, nil) },
		} {
			got := f()
			if got.Outcome != relay.Delivered || !strings.HasPrefix(got.TLS, "none: a downgrade, this host had TLS on 2000-01-01") || !strings.HasSuffix(got.TLS, why) {
				t.Errorf("%s: %+v", why, got)
			}
		}
		time.Sleep(memoryHolds + time.Hour)
		if got := send(nil, nil); got.TLS != "" {
			t.Errorf("long ago: %+v", got)
		}
	})
}
