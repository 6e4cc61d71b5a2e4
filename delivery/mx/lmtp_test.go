package mx

import (
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"relayd/relay"
	"relayd/relay/relaytest"
)

// inner is a client with a route by LMTP to a scripted server.
func inner(t *testing.T, script string) (*Client, *relaytest.MXServer) {
	t.Helper()
	s := relaytest.MX(t, "lmtp\n"+script)
	c := New(Config{Hostname: "mail.office.example", Resolver: partner(nil), Routes: []Route{
		{To: "partner.example", LMTP: true, Via: literal(s.Addr().Addr()), Port: int(s.Addr().Port())}}})
	t.Cleanup(func() { c.Close() })
	return c, s
}

func outcomes(results []relay.Result) (out []string) {
	for _, r := range results {
		out = append(out, strings.TrimSpace(string(r.Outcome)+" "+r.Reply.Status.String()))
	}
	return out
}

// What a server says at each stage, and what that comes to for each of three recipients.
func TestLMTP(t *testing.T) {
	t.Parallel()
	const ok, later, never = "delivered 2.0.0", "deferred 4.2.2", "failed 5.1.1"
	for name, c := range map[string]struct {
		script string
		want   []string
		count  int // letters there
	}{
		"all":            {"", []string{ok, ok, ok}, 1},
		"each its own":   {"eom bob@* 452 4.2.2 full\neom carol@* 550 5.1.1 gone", []string{ok, later, never}, 1},
		"refused before": {"rcpt ann@* 550 5.1.1 who\nrcpt bob@* 450 4.2.2 full", []string{never, later, ok}, 1},
		"nobody":         {"rcpt * 550 5.1.1 who", []string{never, never, never}, 0},
		"mail":           {"mail * 451 4.2.2 later", []string{later, later, later}, 0},
		"data":           {"data * 451 4.2.2 later", []string{later, later, later}, 0},
		"greeting":       {"banner 554 5.3.2 closed", []string{"deferred 5.3.2", "deferred 5.3.2", "deferred 5.3.2"}, 0},
		"shutting down":  {"rcpt bob@* 421 4.3.2 bye", []string{"deferred 4.3.2", "deferred 4.3.2", "deferred 4.3.2"}, 0},
		// The first has its answer and keeps it; the others may have the letter, and get it again.
		"hangs up between": {"eom bob@* drop", []string{ok, "deferred 4.4.2", "deferred 4.4.2"}, 1},
		"hangs up":         {"body drop", []string{"deferred 4.4.2", "deferred 4.4.2", "deferred 4.4.2"}, 0},
		"talks for ever":   {"rcpt ann@* flood", []string{"deferred 4.4.2", "deferred 4.4.2", "deferred 4.4.2"}, 0},
		"too large":        {"size 10", []string{"failed 5.3.4", "failed 5.3.4", "failed 5.3.4"}, 0},
		"another protocol": {"ehlo 500 5.5.1 what", []string{"deferred 5.5.1", "deferred 5.5.1", "deferred 5.5.1"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client, s := inner(t, c.script)
			got := client.Deliver(t.Context(), envelope("ann@partner.example", "bob@partner.example", "carol@partner.example"), "partner.example", strings.NewReader("Subject: x\r\n\r\n.x\r\n"))
			if diff := outcomes(got); !slices.Equal(diff, c.want) {
				t.Errorf("%q, want %q (%+v)", diff, c.want, got)
			}
			if s.Count() != c.count || len(s.Violations()) > 0 {
				t.Errorf("%d letters, want %d; %q", s.Count(), c.count, s.Violations())
			}
			for _, r := range got {
				if r.Arrived != (r.Outcome == relay.Delivered) || r.Outcome == relay.Delivered && r.Host == "" {
					t.Errorf("%+v", r)
				}
			}
		})
	}
}

// The text arrives as it was, dots and all; a server without 8BITMIME gets it as 7-bit text.
func TestLMTPText(t *testing.T) {
	t.Parallel()
	for script, want := range map[string]string{
		"":            "Subject: x\r\n\r\n.\r\n..\r\nGr\xc3\xbc\xc3\x9fe\r\n",
		"no 8bitmime": "Gr=C3=BC=C3=9Fe\r\n",
	} {
		client, s := inner(t, script)
		env := envelope("ann@partner.example")
		env.Body8Bit = true
		got := client.Deliver(t.Context(), env, "partner.example", strings.NewReader("Subject: x\r\n\r\n.\r\n..\r\nGr\xc3\xbc\xc3\x9fe\r\n"))
		letters := s.Letters()
		if len(letters) != 1 || !strings.HasSuffix(string(letters[0].Body), want) || len(s.Violations()) > 0 {
			t.Errorf("%q: %+v %+v %q", script, got, letters, s.Violations())
		}
	}
}

// A socket is a host like any other; where nobody listens, the letter waits and says where.
func TestLMTPSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	c := New(Config{Hostname: "mail.office.example", Resolver: partner(nil), Routes: []Route{{To: "partner.example", LMTP: true, Socket: path}}})
	defer c.Close()
	deliver := func() relay.Result {
		return c.Deliver(t.Context(), envelope("ann@partner.example"), "partner.example", strings.NewReader("Subject: x\r\n\r\nx\r\n"))[0]
	}
	if r := deliver(); r.Outcome != relay.Deferred || r.Reply.Status != (relay.Status{4, 4, 1}) || !strings.Contains(r.Reply.Text, "cannot connect to "+path) {
		t.Errorf("%+v", r)
	}
	script, err := relaytest.ParseMXScript("lmtp")
	if err != nil {
		t.Fatal(err)
	}
	s, err := relaytest.NewMX(path, script)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if r := deliver(); r.Outcome != relay.Delivered || r.Host != path {
		t.Errorf("%+v", r)
	}
}

// A question is no letter, over either protocol.
func TestAsk(t *testing.T) {
	t.Parallel()
	const script = "rcpt yes@* 250 2.1.5 ok\nrcpt no@* 550 5.1.1 who\nrcpt plain@* 550 no such user\nrcpt grey@* 450 4.2.0 later\n" +
		"rcpt policy@* 550 5.7.1 not you\nrcpt busy@* 421 4.3.2 bye\n"
	for _, protocol := range []string{"lmtp\n", ""} {
		s := relaytest.MX(t, protocol+script)
		c := New(Config{Hostname: "mail.office.example", Resolver: partner(nil), Routes: []Route{
			{To: "partner.example", LMTP: protocol != "", Via: literal(s.Addr().Addr()), Port: int(s.Addr().Port())}}})
		for local, want := range map[string]string{"yes": "yes", "no": "no", "plain": "no", "grey": "unknown", "policy": "unknown", "busy": "unknown"} {
			ok, err := c.Ask(t.Context(), relay.Address{Local: local, Domain: "partner.example"})
			got := "unknown"
			if err == nil {
				got = map[bool]string{true: "yes", false: "no"}[ok]
			}
			if got != want {
				t.Errorf("%q: %s: %v, %v", protocol, local, ok, err)
			}
		}
		if s.Count() != 0 || slices.ContainsFunc(s.Commands(), func(l string) bool {
			return l == "DATA" || strings.HasPrefix(l, "MAIL") && !strings.HasPrefix(l, "MAIL FROM:<>")
		}) {
			t.Errorf("%d letters, %q", s.Count(), s.Commands())
		}
		c.Close()
	}
	// Nobody there.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	c := New(Config{Hostname: "mail.office.example", Resolver: partner(nil), Routes: []Route{
		{To: "partner.example", Via: "[127.0.0.1]", Port: l.Addr().(*net.TCPAddr).Port}}})
	defer c.Close()
	if _, err := c.Ask(t.Context(), relay.Address{Local: "yes", Domain: "partner.example"}); err == nil {
		t.Error("an answer from nobody")
	}
}
