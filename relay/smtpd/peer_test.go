package smtpd_test

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"relayd/relay"
)

// names is a Resolver of PTR and address records only.
type names struct {
	relay.Resolver
	ptr   []relay.Domain
	addrs map[relay.Domain][]netip.Addr
	slow  time.Duration
}

func (n names) PTR(ctx context.Context, _ netip.Addr) ([]relay.Domain, error) {
	select {
	case <-time.After(n.slow):
		return n.ptr, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (n names) Addrs(_ context.Context, d relay.Domain) ([]netip.Addr, error) {
	if a, ok := n.addrs[d]; ok {
		return a, nil
	}
	return nil, relay.ErrNoRecord
}

func TestClientName(t *testing.T) {
	mine, other := netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("192.0.2.10")
	for name, c := range map[string]struct {
		dns  names
		want string
		took time.Duration
	}{
		"confirmed": {names{ptr: []relay.Domain{"c.example"}, addrs: map[relay.Domain][]netip.Addr{"c.example": {other, mine}}}, "c.example", 0},
		"forged":    {names{ptr: []relay.Domain{"mail.office.example"}, addrs: map[relay.Domain][]netip.Addr{"mail.office.example": {other}}}, "", 0},
		"second":    {names{ptr: []relay.Domain{"a.example", "b.example"}, addrs: map[relay.Domain][]netip.Addr{"b.example": {mine}}}, "b.example", 0},
		"none":      {names{}, "", 0},
		"slow":      {names{ptr: []relay.Domain{"c.example"}, addrs: map[relay.Domain][]netip.Addr{"c.example": {mine}}, slow: 300 * time.Millisecond}, "c.example", 300 * time.Millisecond},
		"silent":    {names{slow: time.Hour}, "", 500 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := &office{}
				cfg := config(o)
				cfg.Resolver = c.dns
				ln := servePipes(t, cfg)
				start := time.Now()
				cl := pipeClient(t, ln, time.Hour)
				cl.want("220*")
				if d := time.Since(start); d != 0 {
					t.Errorf("the greeting took %v", d)
				}
				cl.do("EHLO c.example", "250*")
				cl.do("MAIL FROM:<x@y.example>", "250*")
				cl.do("RCPT TO:<ann@office.example>", "250*")
				cl.do("BDAT 0 LAST", "250*")
				cl.do("MAIL FROM:<x@y.example>", "250*")
				if d := time.Since(start); d != c.took {
					t.Errorf("two letters took %v, want %v", d, c.took)
				}
				if got := o.all()[0].origin.Name; got != c.want {
					t.Errorf("got %q, want %q", got, c.want)
				}
				cl.do("QUIT", "221*")
			})
		})
	}
}

// A DNS that does not answer costs a few sessions half a second, not every one.
func TestSilentDNSCostsLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := config(&office{})
		cfg.Resolver = names{slow: time.Hour}
		ln := servePipes(t, cfg)
		start := time.Now()
		for range 10 {
			cl := pipeClient(t, ln, time.Hour)
			cl.want("220*")
			cl.do("EHLO c.example", "250*")
			cl.do("MAIL FROM:<x@y.example>", "250*")
			cl.do("QUIT", "221*")
		}
		if took := time.Since(start); took != 1500*time.Millisecond {
			t.Errorf("ten sessions took %v, want three waits", took)
		}
	})
}

func TestOrigin(t *testing.T) {
	t.Parallel()
	o := &office{}
	c := config(o)
	c.Service = "submission"
	c.Trusted = func(a netip.Addr) bool { return a == netip.MustParseAddr("127.0.0.1") }
	_, addr := listen(t, c)
	cl := dial(t, addr)
	cl.want("220*")
	cl.startTLS()
	cl.do("EHLO [127.0.0.1](x);\x1bjürgen second", "250*")
	cl.do("AUTH PLAIN AGFubgBzZWNyZXQ=", "235*")
	cl.do("MAIL FROM:<jürgen@y.example> SMTPUTF8 BODY=8BITMIME SIZE=7", "250*")
	cl.do("RCPT TO:<ann@office.example>", "250*")
	cl.do("BDAT 0 LAST", "250*")
	got := o.all()[0]
	if want := (relay.MailParams{Size: 7, Body8Bit: true, UTF8: true}); got.params != want {
		t.Errorf("params: %+v", got.params)
	}
	at, err := netip.ParseAddrPort(cl.local())
	if err != nil {
		t.Fatal(err)
	}
	want := relay.Origin{
		Client: at, Server: netip.MustParseAddrPort(addr), Helo: "[127.0.0.1]?x???j?rgen", Proto: "UTF8SMTPSA",
		TLS: "TLS1.3 TLS_AES_128_GCM_SHA256", User: "ann@office.example", Service: "submission", Trusted: true,
	}
	if got.origin != want {
		t.Errorf("origin:\n%+v\nwant\n%+v", got.origin, want)
	}
}

func (c *client) local() string { return c.conn.LocalAddr().String() }

// The log tells a session's story at the debug level, and no secret at any.
func TestLog(t *testing.T) {
	t.Parallel()
	rec := &record{}
	c := config(&office{})
	c.Log = slog.New(slog.NewTextHandler(rec, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s, addr := listen(t, c)
	cl := dial(t, addr)
	cl.want("220*")
	cl.do("EHLO before", "250*")
	cl.do("AUTH LOGIN", "538*") // a client that takes no notice
	cl.do("YW5u", "500*")
	cl.do("c2VjcmV0", "500*")
	cl.startTLS()
	cl.do("EHLO c.example", "250*")
	cl.do("AUTH PLAIN AGFubgB3cm9uZw==", "535*") // ann, "wrong"
	cl.do("AUTH LOGIN", "334*")
	cl.do("YW5u", "334*")
	cl.do("c2VjcmV0", "235*")
	cl.do("MAIL FROM:<broken@y.example>", "451*")
	cl.do("QUIT", "221*")
	cl.want("EOF")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	text := rec.String()
	for _, want := range []string{"msg=connected", "msg=command", "verb=MAIL", "msg=refused", "code=535", "no such file", "msg=disconnected", "reason=quit", "room=smtpd"} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is not in the log", want)
		}
	}
	for _, secret := range []string{"AGFubgB3cm9uZw", "c2VjcmV0", "C2VJCMV0", `"secret"`} {
		if strings.Contains(text, secret) {
			t.Errorf("%s is in the log:\n%s", secret, text)
		}
	}
}

// A stranger who cannot do TLS is no error of ours: whoever watches the log for errors is not
// woken by one.
func TestBadHandshakeIsNoError(t *testing.T) {
	t.Parallel()
	for _, implicit := range []bool{true, false} {
		rec := &record{}
		c := config(&office{})
		c.ImplicitTLS = implicit
		c.Log = slog.New(slog.NewTextHandler(rec, nil))
		s, addr := listen(t, c)
		cl := dial(t, addr)
		if !implicit {
			cl.want("220*")
			cl.do("STARTTLS", "220*")
		}
		cl.send("EHLO in.the.clear\r\n")
		cl.want("EOF")
		if err := s.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		if text := rec.String(); strings.Contains(text, "ERROR") || !strings.Contains(text, `reason="TLS handshake"`) {
			t.Errorf("implicit %v:\n%s", implicit, text)
		}
	}
}

// What a remote or an operator puts into a reply cannot begin a line of its own, and every line
// carries the code (RFC 2034 §4, OpenSMTPD's CVE-2020-8794).
func TestReplyText(t *testing.T) {
	t.Parallel()
	o := &talker{text: "first\r\n250 second\nthird \x00\x1b[2J" + strings.Repeat("x", 600) + "ü"}
	c := config(nil)
	c.Accept = o
	_, addr := listen(t, c)
	cl := dial(t, addr)
	cl.want("220*")
	cl.do("EHLO c.example", "250*")
	cl.do("MAIL FROM:<x@y.example>", "550-5.7.1 first?\n550-5.7.1 250 second\n550 5.7.1 third ??[2J*")
}

type talker struct {
	office
	text string
}

func (t *talker) Begin(context.Context, relay.Origin, relay.Address, relay.MailParams) (relay.Transaction, error) {
	return nil, relay.Refuse("talker", 550, "5.7.1", t.text)
}

var _ relay.Acceptor = (*talker)(nil)
