package smtpd_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"relayd/relay"
	"relayd/relay/smtpd"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// office is an Acceptor that remembers. Mail for ann, bob and postmaster is taken; senders and
// recipients whose local part says so make it fail.
type office struct {
	mu      sync.Mutex
	letters []letter
	aborted int
	gate    chan struct{} // when set, Receive waits here before it says yes
	reading chan struct{} // when set, told that Receive has begun
}

type letter struct {
	origin relay.Origin
	from   relay.Address
	params relay.MailParams
	rcpts  []relay.Address
	body   string

	rcptParams []relay.RcptParams
}

func (o *office) Begin(_ context.Context, origin relay.Origin, from relay.Address, p relay.MailParams) (relay.Transaction, error) {
	if err := trouble(from.Local); err != nil {
		return nil, err
	}
	return &transaction{office: o, letter: letter{origin: origin, from: from, params: p}}, nil
}

func (o *office) Verify(_ context.Context, _ relay.Origin, a relay.Address) error {
	if a.Local == "ann" {
		return nil
	}
	if err := trouble(a.Local); err != nil {
		return err
	}
	return relay.Refuse("office", 550, "5.1.1", "there is no mailbox "+a.String()+" here")
}

func trouble(local string) error {
	switch local {
	case "full":
		return relay.Refuse("office", 452, "4.3.1", "our disk is full")
	case "wrapped":
		return fmt.Errorf("somewhere: %w", relay.Refuse("office", 552, "5.2.2", "the mailbox is full"))
	case "broken":
		return errors.New("open /var/secret: no such file")
	case "busy":
		return relay.Refuse("office", 421, "4.3.2", "not now")
	case "liar":
		return &relay.Failure{Op: "office", Reply: relay.Reply{Code: 250, Text: "fine"}}
	case "panic":
		panic("the office is on fire")
	}
	return nil
}

func (o *office) all() []letter {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]letter(nil), o.letters...)
}

type transaction struct {
	letter
	office *office
	done   bool
}

func (t *transaction) Rcpt(_ context.Context, to relay.Address, p relay.RcptParams) error {
	if err := trouble(to.Local); err != nil {
		return err
	}
	if to.Local == "nobody" {
		return relay.Refuse("office", 550, "5.1.1", "there is no mailbox "+to.String()+" here")
	}
	t.rcpts, t.rcptParams = append(t.rcpts, to), append(t.rcptParams, p)
	return nil
}

func (t *transaction) Receive(_ context.Context, body io.Reader) (relay.ID, error) {
	if t.office.reading != nil {
		t.office.reading <- struct{}{}
	}
	if t.from.Local == "early" {
		return "", relay.Refuse("office", 554, "5.4.6", "the message is in a loop")
	}
	if t.from.Local == "early-panic" {
		panic("the office is on fire")
	}
	b, err := io.ReadAll(body)
	if err != nil {
		return "", err
	}
	if t.from.Local == "late" {
		return "", errors.New("write /var/secret: input/output error")
	}
	if t.office.gate != nil {
		<-t.office.gate
	}
	t.office.mu.Lock()
	defer t.office.mu.Unlock()
	t.body, t.done = string(b), true
	t.office.letters = append(t.office.letters, t.letter)
	return "0123456789abcdef", nil
}

func (t *transaction) Abort() {
	t.office.mu.Lock()
	defer t.office.mu.Unlock()
	if !t.done {
		t.office.aborted++
	}
	if t.from.Local == "abort-panic" {
		panic("the office is on fire")
	}
}

// clerk lets ann in with the password "secret", and sees nothing behind a NUL.
type clerk struct{}

func (clerk) Authenticate(_ context.Context, name, password string, _ netip.Addr) (relay.Address, error) {
	name, _, _ = strings.Cut(name, "\x00")
	password, _, _ = strings.Cut(password, "\x00")
	switch {
	case name == "broken":
		return relay.Address{}, errors.New("open users: no such file")
	case name == "tired":
		return relay.Address{}, relay.Refuse("clerk", 454, "4.7.0", "too many failed logins from your address")
	case strings.TrimSuffix(name, "@office.example") == "ann" && password == "secret":
		return relay.Address{Local: "ann", Domain: "office.example"}, nil
	}
	return relay.Address{}, fmt.Errorf("clerk: %w", relay.ErrDenied)
}

var serverTLS = sync.OnceValue(func() *tls.Config {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mail.office.example"},
		DNSNames: []string{"mail.office.example"}, NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}
})

func config(o *office) smtpd.Config {
	return smtpd.Config{
		Hostname: "mail.office.example", Service: "smtp", Accept: o, Auth: clerk{}, TLS: serverTLS(),
		Log: slog.New(slog.DiscardHandler),
	}
}

// listen serves c on a loopback port until the test ends.
func listen(t testing.TB, c smtpd.Config) (*smtpd.Server, string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := smtpd.New(c)
	served := make(chan error, 1)
	go func() { served <- s.Serve(t.Context(), ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return s, ln.Addr().String()
}

// client speaks SMTP as badly as a test wants.
type client struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

func dial(t testing.TB, addr string) *client {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return newClient(t, conn)
}

func newClient(t testing.TB, conn net.Conn) *client {
	return &client{t: t, conn: conn, r: bufio.NewReader(conn)}
}

func (c *client) send(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, s); err != nil {
		c.t.Fatalf("send %.60q: %v", s, err)
	}
}

// reply reads one whole reply, its lines divided by LF; "EOF" when the connection is over.
func (c *client) reply() string {
	c.t.Helper()
	var lines []string
	for {
		line, err := c.r.ReadString('\n')
		switch {
		case err != nil && isTimeout(err):
			c.t.Fatalf("no reply in time after %q", lines)
		case err != nil && line == "" && len(lines) == 0:
			return "EOF"
		case err != nil:
			c.t.Fatalf("half a reply %q: %v", append(lines, line), err)
		case !strings.HasSuffix(line, "\r\n") || strings.ContainsAny(line[:len(line)-2], "\r\n\x00"):
			c.t.Fatalf("a reply line with a bad end: %q", line)
		}
		line = strings.TrimSuffix(line, "\r\n")
		lines = append(lines, line)
		if len(line) < 4 || line[3] == ' ' {
			return strings.Join(lines, "\n")
		}
	}
}

func isTimeout(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout()
}

// want reads replies and compares each with a pattern in which * stands for anything.
func (c *client) want(patterns ...string) {
	c.t.Helper()
	for _, p := range patterns {
		if got := c.reply(); !match(p, got) {
			c.t.Fatalf("got %q, want %q", got, p)
		}
	}
}

// do sends a command and wants a reply.
func (c *client) do(command, pattern string) {
	c.t.Helper()
	c.send(command + "\r\n")
	if got := c.reply(); !match(pattern, got) {
		c.t.Fatalf("%.80q: got %q, want %q", command, got, pattern)
	}
}

func (c *client) startTLS() {
	c.t.Helper()
	c.do("STARTTLS", "220 2.0.0 *")
	c.useTLS()
}

func (c *client) useTLS() {
	c.t.Helper()
	conn := tls.Client(c.conn, &tls.Config{InsecureSkipVerify: true})
	if err := conn.Handshake(); err != nil {
		c.t.Fatal(err)
	}
	c.conn, c.r = conn, bufio.NewReader(conn)
}

// begin goes as far as the letter itself.
func (c *client) begin() {
	c.t.Helper()
	c.want("220 *")
	c.send("EHLO c.example\r\nMAIL FROM:<x@y.example>\r\nRCPT TO:<ann@office.example>\r\n")
	c.want("250*", "250 2.1.0 *", "250 2.1.5 *")
}

// match is a glob in which only * is special.
func match(pattern, s string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == s
	}
	if !strings.HasPrefix(s, parts[0]) {
		return false
	}
	s = s[len(parts[0]):]
	for _, p := range parts[1 : len(parts)-1] {
		i := strings.Index(s, p)
		if i < 0 {
			return false
		}
		s = s[i+len(p):]
	}
	return strings.HasSuffix(s, parts[len(parts)-1])
}

// record is a log for tests that look into it.
type record struct {
	mu sync.Mutex
	bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.Buffer.Write(p)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.Buffer.String()
}
