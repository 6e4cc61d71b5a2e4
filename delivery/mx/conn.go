package mx

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"relayd/relay"
)

// errInjected is plaintext behind the 220 to STARTTLS: somebody in the middle wants it taken
// for an answer given under TLS (RFC 3207 §4.2, CVE-2011-0411).
var errInjected = errors.New("there is plaintext behind the answer to STARTTLS")

// lossError is a host that failed us, and where in the dialogue it did: by its own words, which
// are then in reply, or by err.
type lossError struct {
	phase phase
	reply relay.Reply
	err   error
}

func lost(p phase, err error) error            { return &lossError{phase: p, err: err} }
func refused(p phase, reply relay.Reply) error { return &lossError{phase: p, reply: reply} }

func (e *lossError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("%s: %s", e.phase, e.reply)
	}
	return fmt.Sprintf("%s: %v", e.phase, e.err)
}

func (e *lossError) Unwrap() error { return e.err }

// command is one line of ours and the phase its answer belongs to.
type command struct {
	phase phase
	line  string // without CRLF
}

// conn is a connection with its deadlines and the reading of replies. One goroutine owns it.
type conn struct {
	net.Conn          // the TLS connection, once there is one
	raw      net.Conn // what lies underneath
	br       *bufio.Reader
	timeouts *Timeouts

	transcript *transcript // of the attempt under way
}

func newConn(c net.Conn, t *Timeouts) *conn {
	return &conn{Conn: c, raw: c, br: bufio.NewReaderSize(c, maxReplyLine), timeouts: t}
}

// abort closes the connection without a word. Other than Close it waits for nobody, so that it
// can interrupt a read or write of another goroutine.
func (c *conn) abort() { c.raw.Close() }

// dial connects to addr from the local address that the configuration names for it.
func (c *Client) dial(ctx context.Context, addr netip.AddrPort) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeouts.Connect)
	defer cancel()
	var local netip.Addr
	if c.cfg.LocalAddr != nil {
		local = c.cfg.LocalAddr(addr.Addr())
	}
	raw, err := c.cfg.Dial(ctx, local, addr)
	if err != nil {
		return nil, lost(phaseConnect, err)
	}
	return newConn(raw, &c.timeouts), nil
}

// dialTCP is the Dial of a Config that has none.
func dialTCP(ctx context.Context, local netip.Addr, remote netip.AddrPort) (net.Conn, error) {
	var d net.Dialer
	if local.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(local, 0))
	}
	return d.DialContext(ctx, "tcp", remote.String())
}

// read waits for the reply to a command of phase p.
func (c *conn) read(p phase) (answer, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.timeouts.reply(p))); err != nil {
		return answer{}, lost(p, err)
	}
	a, err := readAnswer(c.br)
	if err != nil {
		return answer{}, lost(p, err)
	}
	c.transcript.heard(a)
	return a, nil
}

// exchange sends one command and waits for its reply.
func (c *conn) exchange(p phase, line string) (answer, error) {
	var got answer
	err := c.pipeline([]command{{p, line}}, func(_ int, a answer) { got = a })
	return got, err
}

// pipeline sends a group of commands in one write and hands each reply to heard as it comes
// (RFC 2920). A 421 is an error: the remote hangs up, and what it has not answered it never will.
// The write runs beside the reading: a remote with small buffers may stop taking
// commands until we have taken its replies, and would wait for us for ever.
func (c *conn) pipeline(group []command, heard func(i int, a answer)) error {
	var buf []byte
	for _, cmd := range group {
		c.transcript.said(cmd)
		buf = append(append(buf, cmd.line...), '\r', '\n')
	}
	if err := c.SetWriteDeadline(time.Now().Add(c.timeouts.MAIL)); err != nil {
		return lost(group[0].phase, err)
	}
	wrote := make(chan error, 1)
	go func() {
		_, err := c.Write(buf)
		wrote <- err
	}()
	for i, cmd := range group {
		a, err := c.read(cmd.phase)
		if err == nil && a.code == 421 {
			err = refused(cmd.phase, a.reply())
		}
		if err != nil {
			c.abort() // or the write might wait for ever
			<-wrote
			return err
		}
		heard(i, a)
	}
	if err := <-wrote; err != nil {
		return lost(group[len(group)-1].phase, err)
	}
	return nil
}

// clean says that the remote has said nothing beyond its replies.
func (c *conn) clean() bool { return c.br.Buffered() == 0 }

// startTLS puts TLS on the connection. It must be called right after the 220.
func (c *conn) startTLS(ctx context.Context, cfg *tls.Config) (string, error) {
	if !c.clean() {
		return "", lost(phaseSTARTTLS, errInjected)
	}
	t := tls.Client(c.Conn, cfg)
	ctx, cancel := context.WithTimeout(ctx, c.timeouts.Handshake)
	defer cancel()
	if err := c.SetDeadline(time.Time{}); err != nil {
		return "", lost(phaseTLS, err)
	}
	if err := t.HandshakeContext(ctx); err != nil {
		return "", lost(phaseTLS, err)
	}
	c.Conn, c.br = t, bufio.NewReaderSize(t, maxReplyLine)
	state := t.ConnectionState()
	version := strings.ReplaceAll(tls.VersionName(state.Version), " ", "")
	return version + " " + tls.CipherSuiteName(state.CipherSuite), nil
}

// bodyWriter writes to a connection with a deadline for each piece and one for all of it.
type bodyWriter struct {
	c   *conn
	end time.Time
}

func (w *bodyWriter) Write(p []byte) (int, error) {
	deadline := time.Now().Add(w.c.timeouts.Block)
	if w.end.Before(deadline) {
		deadline = w.end
	}
	if err := w.c.SetWriteDeadline(deadline); err != nil {
		return 0, err
	}
	return w.c.Write(p)
}
