package smtpd

import (
	"bytes"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"strings"
	"time"

	"relayd/relay"
	"relayd/relay/sasl"
)

// guard is the net.Conn that go-smtp sees instead of the client. All its methods but stop and
// kill run on the goroutine that go-smtp gives the connection.
type guard struct {
	wire
	srv  *Server
	set  *settings // in force when the session began
	log  *slog.Logger
	peer peer

	hello    verb // EHLO or HELO, empty before
	user     string
	login    *sasl.Exchange // of the AUTH command in flight
	secure   *tls.ConnectionState
	mail     mailCommand // of the MAIL command in flight
	rcpt     rcptCommand // of the RCPT command in flight
	letter   *letter     // between MAIL and the end of the letter
	failures int         // of AUTH
	errors   int
	badRcpts int
	chatter  int           // commands that brought no letter on
	bareLF   bool          // ended the last command of a lenient service
	words    string        // for the next refusal, see because
	watched  bool          // by the Screen
	wait     time.Duration // of the greeting, see visit

	opened   time.Time
	feed     string // what go-smtp reads next
	inFlight verb   // the command go-smtp is answering
	chunk    chunk  // of the BDAT command in flight
	heard    []byte // what go-smtp has said to it
	answer   *relay.Reply
	dead     string // why the connection is over; empty while it lives
	closed   bool
}

// letter is a mail transaction (RFC 5321 §3.3).
type letter struct {
	tx      relay.Transaction
	from    relay.Address // as the client has it
	to      relay.Address // the first that was accepted
	utf8    bool
	binary  bool // it comes by BDAT, and its octets are nobody's business
	until   time.Time
	rcpts   int // accepted
	refused int
	ahead   int // RCPT commands the transaction knows of before their turn
}

// verbAuthData is in flight while go-smtp works at an answer to its challenge.
const verbAuthData verb = "authdata"

func newGuard(srv *Server, set *settings, c net.Conn, client netip.AddrPort) *guard {
	g := &guard{srv: srv, set: set, log: srv.log, opened: time.Now()}
	g.wire.init(c, set.limits.CommandTimeout)
	g.peer = peer{client: client, server: addrPort(c.LocalAddr())}
	return g
}

// Read gives go-smtp the next command, once it has answered the last one.
func (g *guard) Read(p []byte) (n int, err error) {
	defer g.rescue(&err)
	if g.feed == "" {
		if err := g.next(); err != nil {
			return 0, err
		}
	}
	// Whatever go-smtp has said so far, such as its own greeting, is no answer to this.
	g.heard = g.heard[:0]
	n = copy(p, g.feed)
	g.feed = g.feed[n:]
	return n, nil
}

// Write hears a piece of go-smtp's reply. Nothing is sent before the reply is whole.
func (g *guard) Write(p []byte) (int, error) {
	if len(g.heard) < maxCommandLine {
		g.heard = append(g.heard, p...)
	}
	return len(p), nil
}

// Close sends what is still owed and ends the connection. go-smtp may call it several times.
func (g *guard) Close() (err error) {
	if g.closed {
		return nil
	}
	g.closed = true
	defer g.leave()
	defer g.rescue(&err)
	if g.dead == "" {
		g.settle()
		g.hangup("closed")
	}
	return nil
}

// LocalAddr implements net.Conn.
func (g *guard) LocalAddr() net.Addr { return g.raw.LocalAddr() }

// RemoteAddr implements net.Conn.
func (g *guard) RemoteAddr() net.Addr { return g.raw.RemoteAddr() }

// SetDeadline implements net.Conn. The guard keeps deadlines of its own, so this and the next
// two do nothing.
func (g *guard) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (g *guard) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (g *guard) SetWriteDeadline(time.Time) error { return nil }

// rescue keeps a panic of ours from ending the process: go-smtp calls Read and Close outside its
// own recover.
func (g *guard) rescue(err *error) {
	if r := recover(); r != nil {
		g.log.Error("panic in a session", "client", g.peer.client, "err", r, "stack", string(debug.Stack()))
		g.dead, *err = "panic", net.ErrClosed
		g.kill()
	}
}

func (g *guard) leave() {
	g.kill()
	g.release()
	g.peer.forget()
	g.srv.left(g)
	if g.user != "" {
		g.log.Info("logged out", "client", g.peer.client, "user", g.user)
	}
	if g.dead != "" {
		g.log.Info("disconnected", "client", g.peer.client, "reason", g.dead, "dur", time.Since(g.opened).Round(time.Millisecond))
	}
}

// prelude greets the client and answers it until go-smtp is needed. Connections that say nothing,
// or nothing good, never get that far, and most of what one costs is go-smtp's buffers.
func (g *guard) prelude() (err error) {
	defer g.rescue(&err)
	if err := g.greet(); err != nil {
		return err
	}
	return g.next()
}

// next settles the last command and finds the next one that is for go-smtp.
func (g *guard) next() error {
	g.settle()
	for g.dead == "" && g.feed == "" {
		line, err := g.command()
		if err == nil {
			g.dispatch(line)
		} else {
			g.badLine(err)
		}
	}
	if g.dead != "" {
		return net.ErrClosed
	}
	return nil
}

// greet begins the session: with TLS where TLS comes first, then with our own greeting.
func (g *guard) greet() error {
	if g.srv.implicitTLS {
		if err := g.startTLS(); err != nil {
			return err
		}
	}
	if g.wait > 0 {
		g.awaitSilence()
	}
	g.reply(relay.Reply{Code: 220, Text: string(g.srv.hostname) + " ESMTP"})
	return nil
}

// command reads the next command line without its line end.
func (g *guard) command() ([]byte, error) {
	if g.isStopping() && g.letter == nil {
		return nil, errStopping
	}
	line, err := g.line(g.lineLimit, g.commandDeadline(), g.letter == nil)
	switch {
	case err != nil:
		return nil, err
	case g.set.profile.Lenient:
		line = g.lenientCommand(line)
	case !bytes.HasSuffix(line, []byte("\r\n")):
		return nil, errBareLF
	default:
		line = line[:len(line)-2]
	}
	if bytes.ContainsAny(line, "\x00\r") {
		return nil, errControl
	}
	return line, nil
}

var (
	errBareLF  = errors.New("the line ends in a bare LF")
	errControl = errors.New("the line contains a NUL or a bare CR")
)

func (g *guard) lineLimit(start []byte) int {
	const auth = "AUTH "
	if g.inFlight == verbAuthData || len(start) > len(auth) && strings.EqualFold(string(start[:len(auth)]), auth) {
		return authLine
	}
	if len(start) > 0 && start[0] == tlsHandshake {
		// Its next LF may never come.
		return notALine
	}
	return g.set.limits.CommandLine
}

// tlsHandshake is the first octet of a TLS hello (RFC 8446 §5.1).
const tlsHandshake = 0x16

func (g *guard) commandDeadline() time.Time {
	until := earlier(time.Now().Add(g.set.limits.CommandTimeout), g.opened.Add(g.set.limits.SessionTimeout))
	if g.letter != nil {
		until = earlier(until, g.letter.until)
	}
	return until
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// badLine answers what is not a command line, or takes leave of a client that is gone.
func (g *guard) badLine(err error) {
	switch {
	case errors.Is(err, errLineLong):
		g.badCommand(replyLineLong)
	case errors.Is(err, errBareLF):
		g.badCommand(replyBareLF)
	case errors.Is(err, errControl):
		g.badCommand(replyControl)
	case errors.Is(err, errEndless):
		g.part(replyErrors, "a line without end")
	case errors.Is(err, errTLS):
		g.part(replyNotTLS, "TLS without STARTTLS")
	default:
		g.lose(err)
	}
}

func (g *guard) badCommand(r relay.Reply) {
	if g.inFlight == verbAuthData {
		g.cancelAuth(r)
		return
	}
	g.complain(r)
}

// lose ends a session whose client went away, was too slow, or has to go.
func (g *guard) lose(err error) {
	ne, isNet := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, errStopping):
		g.part(replyStopping, "stopping")
	case isNet && ne.Timeout():
		g.because("went silent")
		g.part(replyTimeout, "timeout")
	default:
		if g.letter != nil {
			g.because("hung up in the middle of a letter")
			g.witness(replyTimeout)
		}
		g.dead = "dropped"
		g.kill()
	}
}
