package smtpd_test

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/xdg-go/scram"

	"relayd/relay"
	"relayd/relay/smtpd"
	"relayd/relay/users"
)

const realPassword = "correct horse battery"

// clerks is a users file with ann, who has a SCRAM verifier.
func clerks(t testing.TB) *users.Store {
	t.Helper()
	s, err := users.Open(filepath.Join(t.TempDir(), "users"), users.WithIterations(4096))
	if err != nil {
		t.Fatal(err)
	}
	ann := relay.Address{Local: "ann", Domain: "office.example"}
	if err := s.AddAs(context.Background(), ann, realPassword, users.SchemeScram); err != nil {
		t.Fatal(err)
	}
	return s
}

// SCRAM-SHA-256-PLUS over STARTTLS: the client believes the server, and may send as itself.
func TestScramOnTheWire(t *testing.T) {
	t.Parallel()
	for _, initial := range []bool{true, false} {
		cfg := config(&office{})
		cfg.Auth = clerks(t)
		_, addr := listen(t, cfg)
		c := dial(t, addr)
		c.want("220 *")
		c.do("EHLO c.example", "250*250 STARTTLS")
		c.do("AUTH SCRAM-SHA-256", "538 *")
		c.startTLS()
		c.do("EHLO c.example", "250*250 AUTH PLAIN LOGIN SCRAM-SHA-256 SCRAM-SHA-256-PLUS")
		c.do("AUTH SCRAM-SHA-1", "504 5.5.4 AUTH takes one of PLAIN LOGIN SCRAM-SHA-256 SCRAM-SHA-256-PLUS here")
		prove(c, initial)
		c.do("MAIL FROM:<ann@office.example>", "250 *")
	}
}

// prove logs in as ann over a connection under TLS.
func prove(c *client, initial bool) {
	c.t.Helper()
	state := c.conn.(*tls.Conn).ConnectionState()
	binding, err := scram.NewTLSExporterBinding(&state)
	if err != nil {
		c.t.Fatal(err)
	}
	who, err := scram.SHA256.NewClient("ann@office.example", realPassword, "")
	if err != nil {
		c.t.Fatal(err)
	}
	conv := who.NewConversationWithChannelBinding(binding)
	command := "AUTH SCRAM-SHA-256-PLUS "
	if !initial {
		c.do(strings.TrimSpace(command), "334 ")
		command = ""
	}
	for challenge := ""; !conv.Done(); {
		answer, err := conv.Step(challenge)
		if err != nil {
			c.t.Fatal(err)
		}
		c.send(command + base64.StdEncoding.EncodeToString([]byte(answer)) + "\r\n")
		command = ""
		reply := c.reply()
		text, isChallenge := strings.CutPrefix(strings.TrimSpace(reply), "334 ")
		if !isChallenge {
			if conv.Done() && strings.HasPrefix(reply, "235 2.7.0 ") {
				break
			}
			c.t.Fatalf("%q", reply)
		}
		decoded, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			c.t.Fatal(err)
		}
		challenge = string(decoded)
	}
	if !conv.Valid() {
		c.t.Error("the client does not believe the server")
	}
}

// Whatever a client says instead of a login: no panic, no hang, and nobody is in.
func FuzzLogin(f *testing.F) {
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	letter := "MAIL FROM:<ann@office.example>\r\nRCPT TO:<ann@office.example>\r\nBDAT 0 LAST\r\n"
	f.Add([]byte("AUTH PLAIN "+b64("\x00ann\x00x")+"\r\n"+letter), uint8(9))
	f.Add([]byte("AUTH PLAIN\r\n=\r\nAUTH PLAIN =\r\nAUTH LOGIN\r\n"+b64("ann")+"\r\n*\r\n"+letter), uint8(9))
	f.Add([]byte("AUTH SCRAM-SHA-256 "+b64("n,,n=ann,r=x")+"\r\n"+b64("c=biws,r=x,p=AAAA")+"\r\n\r\n"+letter), uint8(9))
	f.Add([]byte("AUTH SCRAM-SHA-256\r\n\r\nAUTH SCRAM-SHA-256-PLUS\r\nAUTH scram-sha-256\r\n"+b64("y,a=x,n=ann,r=x")+"\r\n*\r\n"), uint8(9))
	f.Add([]byte("AUTH LOGIN "+strings.Repeat("QUFB", 600)+"\r\n"+strings.Repeat("QUFB", 4000)+"\r\n"), uint8(9))
	o := &office{}
	cfg := config(o)
	auth := clerks(f)
	cfg.Auth = auth
	cfg.Profile = smtpd.Profile{PlaintextAuth: true}
	cfg.Limits.AuthFailures = 2 // a third in a row would wait
	ln := servePipes(f, cfg)
	f.Fuzz(func(t *testing.T, in []byte, piece uint8) {
		o.mu.Lock()
		o.letters = nil
		o.mu.Unlock()
		conn := &script{in: append([]byte("EHLO c\r\n"), in...), piece: int(piece%64) + 1, over: make(chan struct{})}
		ln.conns <- conn
		select {
		case <-conn.over:
		case <-time.After(10 * time.Second):
			t.Fatal("the session does not end")
		}
		for _, l := range o.all() {
			if l.origin.User != "" {
				t.Errorf("%q is in as %s", in, l.origin.User)
			}
		}
		auth.Forgive(relay.Address{}, netip.Addr{})
	})
}
