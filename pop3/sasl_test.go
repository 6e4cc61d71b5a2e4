package pop3_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/md5"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/xdg-go/scram"

	"relayd/pop3"
	"relayd/relay"
	"relayd/relay/users"
)

const (
	realPassword = "correct horse battery"
	apopSecret   = "tanstaaf tanstaaf"
)

// clerks is a users file with ann, who has a SCRAM verifier and a secret for APOP.
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
	if err := s.SetAPOP(context.Background(), ann, apopSecret); err != nil {
		t.Fatal(err)
	}
	return s
}

// lines is a client that says a line and hears one.
type lines struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

func newLines(t testing.TB, conn net.Conn) *lines { return &lines{t, conn, bufio.NewReader(conn)} }

func (l *lines) hear() string {
	l.t.Helper()
	line, err := l.r.ReadString('\n')
	if err != nil {
		l.t.Fatal(err)
	}
	return strings.TrimSuffix(line, "\r\n")
}

func (l *lines) say(line string) string {
	l.t.Helper()
	if _, err := io.WriteString(l.conn, line+"\r\n"); err != nil {
		l.t.Fatal(err)
	}
	return l.hear()
}

// SCRAM-SHA-256-PLUS over STLS: the client believes the server, and is in.
func TestScramOnTheWire(t *testing.T) {
	t.Parallel()
	for _, initial := range []bool{true, false} {
		box := letters("Subject: x\r\n\r\nx\r\n")
		cfg := config(box)
		cfg.Auth = clerks(t)
		l := newLines(t, connect(t, serve(t, cfg, false), "192.0.2.1"))
		l.hear()
		if got := l.say("AUTH SCRAM-SHA-256"); !strings.HasPrefix(got, "-ERR [AUTH] TLS") {
			t.Errorf("in the clear: %q", got)
		}
		l.say("STLS")
		conn := tls.Client(l.conn, &tls.Config{InsecureSkipVerify: true})
		l = newLines(t, conn)
		capa := l.say("CAPA")
		for capa != "." && !strings.HasPrefix(capa, "SASL ") {
			capa = l.hear()
		}
		if capa != "SASL PLAIN LOGIN SCRAM-SHA-256 SCRAM-SHA-256-PLUS" {
			t.Errorf("CAPA says %q", capa)
		}
		for l.hear() != "." {
		}
		state := conn.ConnectionState()
		got := proveOver(t, l, "AUTH SCRAM-SHA-256-PLUS", &state, initial)
		if !strings.HasPrefix(got, "+OK ") || !strings.HasPrefix(l.say("STAT"), "+OK 1 ") {
			t.Errorf("not in: %q", got)
		}
	}
}

// proveOver runs the exchange and returns the answer to its last line.
func proveOver(t *testing.T, l *lines, command string, state *tls.ConnectionState, initial bool) string {
	t.Helper()
	client, err := scram.SHA256.NewClient("ann@office.example", realPassword, "")
	if err != nil {
		t.Fatal(err)
	}
	binding, err := scram.NewTLSExporterBinding(state)
	if err != nil {
		t.Fatal(err)
	}
	conv := client.NewConversationWithChannelBinding(binding)
	first, err := conv.Step("")
	if err != nil {
		t.Fatal(err)
	}
	var reply string
	if initial {
		reply = l.say(command + " " + base64.StdEncoding.EncodeToString([]byte(first)))
	} else if reply = l.say(command); reply == "+ " {
		reply = l.say(base64.StdEncoding.EncodeToString([]byte(first)))
	}
	for !conv.Done() {
		challenge, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(reply, "+ "))
		if err != nil {
			t.Fatalf("%q: %v", reply, err)
		}
		answer, err := conv.Step(string(challenge))
		if err != nil {
			t.Fatal(err)
		}
		reply = l.say(base64.StdEncoding.EncodeToString([]byte(answer)))
	}
	if !conv.Valid() {
		t.Error("the client does not believe the server")
	}
	return reply
}

// The challenge of APOP is new in each greeting, the digest of one opens no other, and who may not
// log in does not see it.
func TestAPOPOnTheWire(t *testing.T) {
	t.Parallel()
	box := letters("Subject: x\r\n\r\nx\r\n")
	cfg := config(box)
	cfg.Auth = clerks(t)
	cfg.Limits.FailedDelay = 1
	s := serve(t, cfg, false)
	digest := func(greeting string) string {
		sum := md5.Sum([]byte(greeting[strings.LastIndexByte(greeting, ' ')+1:] + apopSecret))
		return hex.EncodeToString(sum[:])
	}
	first := newLines(t, connect(t, s, "127.0.0.1"))
	old := digest(first.hear())
	l := newLines(t, connect(t, s, "127.0.0.1"))
	greeting := l.hear()
	if got := l.say("APOP ann@office.example " + old); !strings.HasPrefix(got, "-ERR [AUTH] ") {
		t.Errorf("the digest of another session: %q", got)
	}
	if got := l.say("APOP ann@office.example " + digest(greeting)); !strings.HasPrefix(got, "+OK ") {
		t.Errorf("the digest of %q: %q", greeting, got)
	}
	stranger := newLines(t, connect(t, s, "192.0.2.1"))
	if got := stranger.hear(); strings.Contains(got, "<") {
		t.Errorf("a stranger in the clear is greeted with %q", got)
	}
	secure := serve(t, cfg, true)
	l = newLines(t, tls.Client(connect(t, secure, "192.0.2.1"), &tls.Config{InsecureSkipVerify: true}))
	if got := l.hear(); !strings.Contains(got, "<") {
		t.Errorf("under TLS the greeting is %q", got)
	}
}

// Whatever a client says instead of a login: no panic, no hang, and nobody is in.
func FuzzLogin(f *testing.F) {
	auth := clerks(f)
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	f.Add([]byte("AUTH PLAIN " + b64("\x00ann\x00x") + "\r\nSTAT\r\n"))
	f.Add([]byte("AUTH PLAIN\r\n=\r\nAUTH PLAIN =\r\nAUTH LOGIN\r\n" + b64("ann") + "\r\n*\r\nSTAT\r\n"))
	f.Add([]byte("AUTH SCRAM-SHA-256 " + b64("n,,n=ann,r=x") + "\r\n" + b64("c=biws,r=x,p=AAAA") + "\r\n\r\nSTAT\r\n"))
	f.Add([]byte("AUTH SCRAM-SHA-256\r\n\r\nAUTH SCRAM-SHA-256-PLUS\r\nAUTH scram-sha-256\r\n" + b64("y,a=x,n=ann,r=x") + "\r\n*\r\n"))
	f.Add([]byte("APOP ann c4c9334bac560ecc979e58001b3e22fb\r\nAPOP  \r\nAPOP ann\x00 c4c9334bac560ecc979e58001b3e22fb\r\n"))
	f.Add([]byte("AUTH LOGIN " + strings.Repeat("QUFB", 60) + "\r\n" + strings.Repeat("QUFB", 2000) + "\r\nUSER ann\r\nPASS x\r\n"))
	f.Fuzz(func(t *testing.T, input []byte) {
		if bytes.Contains(input, []byte("QUIT")) {
			t.Skip()
		}
		synctest.Test(t, func(t *testing.T) {
			box := letters("Subject: x\n\nbody")
			cfg := config(box)
			cfg.TLS, cfg.Auth = nil, auth
			ours, heard, end := piped(t, pop3.New(cfg))
			ours.Write(input)
			synctest.Wait()
			if box.open {
				t.Errorf("%q is in", input)
			}
			ours.Close()
			if got := <-heard; len(got) > 100*(len(input)+1)+1000 {
				t.Errorf("%d octets of answers", len(got))
			}
			end()
			auth.Forgive(relay.Address{}, netip.Addr{})
		})
	})
}
