package mx

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"relayd/relay"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// What an answer of a remote's script may be besides a reply.
const (
	drop  = "\x00drop"  // close the connection
	stall = "\x00stall" // say nothing more
	raw   = "\x00raw:"  // exactly what follows, no CRLF added
)

// remote is a scripted mail host. on overrides the answer to a verb; the keys CONNECT and END
// stand for the greeting and the end of the data.
type remote struct {
	ext []string // EHLO keywords
	on  map[string]func(line string) string
	tls *tls.Config

	mu    sync.Mutex
	conns int
	lines []string // every command line, of all connections
	mails []mail   // letters answered 2xx
	wire  [][]byte // the raw data of every letter, dots and end included
}

type mail struct {
	from  string
	rcpts []string
	data  string // raw, as on the wire
}

func always(reply string) func(string) string { return func(string) string { return reply } }

// saying is a remote that answers one verb its own way.
func saying(verb, reply string, ext ...string) *remote {
	return &remote{ext: ext, on: map[string]func(string) string{verb: always(reply)}}
}

func (r *remote) answer(verb, line, otherwise string) string {
	r.mu.Lock()
	f := r.on[verb]
	r.mu.Unlock()
	if f != nil {
		if s := f(line); s != "" {
			return s
		}
	}
	return otherwise
}

// say reports false when the connection is over.
func say(c net.Conn, reply string) bool {
	switch {
	case reply == drop:
		return false
	case reply == stall:
		io.Copy(io.Discard, c)
		return false
	case strings.HasPrefix(reply, raw):
		reply = strings.TrimPrefix(reply, raw)
	default:
		reply += "\r\n"
	}
	_, err := io.WriteString(c, reply)
	return err == nil
}

func (r *remote) serve(c net.Conn) {
	defer func() { c.Close() }()
	r.mu.Lock()
	r.conns++
	r.mu.Unlock()
	if !say(c, r.answer("CONNECT", "", "220 mx1.partner.example ESMTP")) {
		return
	}
	// A tiny buffer, and replies sent at once: a client that does not read while it writes hangs.
	br := bufio.NewReaderSize(c, 256)
	var cur mail
	for {
		line, err := br.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSuffix(line, "\r\n")
		verb, _, _ := strings.Cut(strings.ToUpper(line), " ")
		r.mu.Lock()
		r.lines = append(r.lines, line)
		r.mu.Unlock()
		reply := r.answer(verb, line, r.standard(verb))
		if !say(c, reply) || verb == "QUIT" {
			return
		}
		switch {
		case verb == "STARTTLS" && strings.HasPrefix(reply, "220"):
			t := tls.Server(c, r.tls)
			if t.Handshake() != nil {
				return
			}
			c, br = t, bufio.NewReader(t)
		case verb == "MAIL" && reply[0] == '2':
			cur = mail{from: strings.TrimPrefix(line, "MAIL FROM:")}
		case verb == "RCPT" && reply[0] == '2':
			cur.rcpts = append(cur.rcpts, strings.TrimPrefix(line, "RCPT TO:"))
		case verb == "DATA" && strings.HasPrefix(reply, "354"):
			if !r.data(c, br, &cur) {
				return
			}
		}
	}
}

func (r *remote) standard(verb string) string {
	switch verb {
	case "EHLO":
		lines := append([]string{"mx1.partner.example"}, r.ext...)
		for i := range lines[:len(lines)-1] {
			lines[i] = "250-" + lines[i]
		}
		lines[len(lines)-1] = "250 " + lines[len(lines)-1]
		return strings.Join(lines, "\r\n")
	case "HELO", "MAIL", "RCPT", "RSET":
		return "250 2.1.0 OK"
	case "DATA":
		return "354 go ahead"
	case "STARTTLS":
		if r.tls != nil {
			return "220 2.0.0 go ahead"
		}
	case "QUIT":
		return "221 2.0.0 bye"
	}
	return "500 5.5.1 what?"
}

func (r *remote) data(c net.Conn, br *bufio.Reader, cur *mail) bool {
	var buf bytes.Buffer
	for !bytes.HasSuffix(buf.Bytes(), []byte("\r\n.\r\n")) && buf.String() != ".\r\n" {
		b, err := br.ReadByte()
		if err != nil {
			return false
		}
		buf.WriteByte(b)
	}
	r.mu.Lock()
	r.wire = append(r.wire, buf.Bytes())
	r.mu.Unlock()
	reply := r.answer("END", "", "250 2.0.0 queued as X1")
	if reply[0] == '2' && len(cur.rcpts) > 0 {
		cur.data = buf.String()
		r.mu.Lock()
		r.mails = append(r.mails, *cur)
		r.mu.Unlock()
	}
	*cur = mail{}
	return say(c, reply)
}

func (r *remote) said(prefix string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.lines {
		if strings.HasPrefix(l, prefix) {
			n++
		}
	}
	return n
}

// network is the world of a test: a DNS and the hosts behind it, on net.Pipe, so that it lives
// in a synctest bubble.
type network struct {
	mx    map[relay.Domain][]relay.MX
	addrs map[relay.Domain][]netip.Addr
	fail  map[relay.Domain]error // what the DNS says instead
	hosts map[string]*remote     // by address; nil: unreachable; absent: refused
	delay time.Duration          // one way
	wrap  *tls.Config            // TLS before the greeting

	mu     sync.Mutex
	dialed []string
	locals []netip.Addr
	wg     sync.WaitGroup
}

func (n *network) MX(_ context.Context, d relay.Domain) ([]relay.MX, error) {
	if err := n.fail[d]; err != nil {
		return nil, err
	}
	if mxs, ok := n.mx[d]; ok {
		return mxs, nil
	}
	return nil, relay.ErrNoRecord
}

func (n *network) Addrs(_ context.Context, d relay.Domain) ([]netip.Addr, error) {
	if err := n.fail[d]; err != nil {
		return nil, err
	}
	if a, ok := n.addrs[d]; ok {
		return a, nil
	}
	return nil, relay.ErrNoRecord
}

func (n *network) TXT(context.Context, string) ([]string, error) { return nil, relay.ErrNoRecord }
func (n *network) PTR(context.Context, netip.Addr) ([]relay.Domain, error) {
	return nil, relay.ErrNoRecord
}

func (n *network) dial(_ context.Context, local netip.Addr, addr netip.AddrPort) (net.Conn, error) {
	n.mu.Lock()
	n.dialed = append(n.dialed, addr.String())
	n.locals = append(n.locals, local)
	n.mu.Unlock()
	r, ok := n.hosts[addr.Addr().String()]
	if !ok {
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	}
	if r == nil {
		return nil, &net.OpError{Op: "dial", Err: syscall.ENETUNREACH}
	}
	ours, theirs := net.Pipe()
	if n.delay > 0 {
		theirs = n.far(theirs)
	}
	if n.wrap != nil {
		theirs = tls.Server(theirs, n.wrap)
	}
	n.wg.Go(func() { r.serve(theirs) })
	return socket{ours}, nil
}

// socket is a net.Pipe that takes a deadline after the other side has hung up, as TCP does: the
// pipe's own error would stand where the EOF belongs whenever the remote is faster than we are.
type socket struct{ net.Conn }

func (s socket) SetDeadline(t time.Time) error      { return unlessClosed(s.Conn.SetDeadline(t)) }
func (s socket) SetReadDeadline(t time.Time) error  { return unlessClosed(s.Conn.SetReadDeadline(t)) }
func (s socket) SetWriteDeadline(t time.Time) error { return unlessClosed(s.Conn.SetWriteDeadline(t)) }

func unlessClosed(err error) error {
	if errors.Is(err, io.ErrClosedPipe) {
		return nil
	}
	return err
}

// far puts n.delay between near and the connection returned, each way.
func (n *network) far(near net.Conn) net.Conn {
	a, b := net.Pipe()
	pump := func(to, from net.Conn) {
		type piece struct {
			due time.Time
			p   []byte
		}
		line := make(chan piece, 1000)
		n.wg.Go(func() {
			defer close(line)
			for {
				p := make([]byte, 4096)
				k, err := from.Read(p)
				if err != nil {
					return
				}
				line <- piece{time.Now().Add(n.delay), p[:k]}
			}
		})
		n.wg.Go(func() {
			defer to.Close()
			for x := range line {
				time.Sleep(time.Until(x.due)) // the bubble's clock
				to.Write(x.p)
			}
		})
	}
	pump(a, near)
	pump(near, a)
	return b
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// partner is a world in which partner.example has one host.
func partner(r *remote) *network {
	return &network{
		mx:    map[relay.Domain][]relay.MX{"partner.example": {{Host: "mx1.partner.example", Pref: 10}}},
		addrs: map[relay.Domain][]netip.Addr{"mx1.partner.example": {addr("192.0.2.7")}},
		hosts: map[string]*remote{"192.0.2.7": r},
	}
}

// two is a world in which partner.example has a second choice.
func two(first, second *remote) *network {
	n := partner(first)
	n.mx["partner.example"] = append(n.mx["partner.example"], relay.MX{Host: "mx2.partner.example", Pref: 20})
	n.addrs["mx2.partner.example"] = []netip.Addr{addr("192.0.2.8")}
	n.hosts["192.0.2.8"] = second
	return n
}

func (n *network) client(change ...func(*Config)) *Client {
	cfg := Config{
		Hostname: "mail.office.example", Resolver: n, Dial: n.dial,
		Shuffle:  func(int, func(i, j int)) {},
		Timeouts: Timeouts{Idle: -1},
	}
	for _, f := range change {
		f(&cfg)
	}
	return New(cfg)
}

func envelope(rcpts ...string) relay.Envelope {
	env := relay.Envelope{ID: "0123456789abcdef", From: mailbox("ann@office.example")}
	for _, r := range rcpts {
		env.Rcpts = append(env.Rcpts, relay.Recipient{Addr: mailbox(r)})
	}
	return env
}

func mailbox(s string) relay.Address {
	a, err := relay.ParseAddress(s, true)
	if err != nil {
		panic(err)
	}
	return a
}

const hello = "Subject: hello\r\n\r\nhello\r\n"

// send makes one attempt with a client of its own, and waits until all is quiet again.
func (n *network) send(t *testing.T, env relay.Envelope, body string, change ...func(*Config)) []relay.Result {
	t.Helper()
	c := n.client(change...)
	got := c.Deliver(t.Context(), env, "partner.example", strings.NewReader(body))
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	n.wg.Wait()
	if len(got) != len(env.Rcpts) {
		t.Fatalf("%d results for %d recipients", len(got), len(env.Rcpts))
	}
	for i, r := range got {
		if r.Rcpt != env.Rcpts[i].Addr || r.At.IsZero() || r.Reply.Code == 0 || r.Outcome == "" {
			t.Errorf("result %d is incomplete: %+v", i, r)
		}
	}
	return got
}

var selfSigned = sync.OnceValue(func() *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Unix(1<<33, 0), DNSNames: []string{"not.this.host"}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
})
