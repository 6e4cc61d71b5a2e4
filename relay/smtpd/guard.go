package smtpd

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"relayd/relay"
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
	secure   *tls.ConnectionState
	mail     mailCommand   // of the MAIL command in flight
	rcpt     relay.Address // of the RCPT command in flight
	letter   *letter       // between MAIL and the end of the letter
	failures int           // of AUTH
	errors   int
	badRcpts int

	opened   time.Time
	feed     string // what go-smtp reads next
	inFlight verb   // the command go-smtp is answering
	chunk    chunk  // of the BDAT command in flight
	heard    []byte // what go-smtp has said to it
	answer   *relay.Reply
	greeted  bool
	dead     string // why the connection is over; empty while it lives
	closed   bool
}

// letter is a mail transaction (RFC 5321 §3.3).
type letter struct {
	tx      relay.Transaction
	utf8    bool
	until   time.Time
	rcpts   int // accepted
	refused int
}

const (
	verbGreeting verb = "greeting" // in flight while go-smtp greets
	verbAuthData verb = "authdata" // in flight while go-smtp works at an answer to its challenge
	verbSilent   verb = "silent"   // a command of ours; its reply is for nobody
)

func newGuard(srv *Server, set *settings, c net.Conn, client netip.AddrPort) *guard {
	g := &guard{srv: srv, set: set, log: srv.log, opened: time.Now(), inFlight: verbGreeting}
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
	if g.dead != "" {
		g.log.Info("disconnected", "client", g.peer.client, "reason", g.dead, "dur", time.Since(g.opened).Round(time.Millisecond))
	}
}

// next settles the last command and finds the next one that is for go-smtp.
func (g *guard) next() error {
	if !g.greeted {
		if err := g.greet(); err != nil {
			return err
		}
	} else {
		g.settle()
	}
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
	g.greeted, g.inFlight, g.heard = true, "", g.heard[:0]
	if g.srv.implicitTLS {
		if err := g.startTLS(); err != nil {
			return err
		}
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
	case !bytes.HasSuffix(line, []byte("\r\n")):
		return nil, errBareLF
	}
	line = line[:len(line)-2]
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
		g.part(replyTimeout, "timeout")
	default:
		g.dead = "dropped"
		g.kill()
	}
}

// settle passes on the answer to the command in flight and keeps account of it.
func (g *guard) settle() {
	v := g.inFlight
	if v == "" {
		return
	}
	r := g.answered()
	g.inFlight, g.heard, g.answer = "", g.heard[:0], nil
	if cap(g.heard) > 1<<10 {
		g.heard = nil
	}
	if v == verbSilent || g.dead != "" {
		return
	}
	if r.Code == 334 {
		g.inFlight = verbAuthData
	}
	g.account(v, r)
	g.send(v, r)
	if v == verbQUIT && r.OK() {
		g.hangup("quit")
	}
}

// answered is our own answer where the session gave one, and otherwise go-smtp's.
func (g *guard) answered() relay.Reply {
	if g.answer != nil {
		return *g.answer
	}
	return parseEngineReply(g.heard)
}

// parseEngineReply reads the last line of what go-smtp said.
func parseEngineReply(heard []byte) relay.Reply {
	text := strings.TrimRight(string(heard), "\r\n")
	text = text[strings.LastIndexByte(text, '\n')+1:]
	if len(text) < 4 {
		return replyBroken
	}
	code, err := strconv.Atoi(text[:3])
	if err != nil {
		return replyBroken
	}
	r := relay.Reply{Code: code, Text: text[4:]}
	first, rest, _ := strings.Cut(r.Text, " ")
	if s, ok := relay.ParseStatus(first); ok {
		r.Status, r.Text = s, rest
	}
	return r
}

// account follows the session's state by what was answered.
func (g *guard) account(v verb, r relay.Reply) {
	ok := r.OK()
	switch {
	case (v == verbEHLO || v == verbHELO) && ok:
		g.hello = v
	case g.letter == nil && v == verbRCPT:
		// A panic took the letter with it.
	case v == verbRCPT && ok:
		g.letter.rcpts++
	case v == verbRCPT:
		g.letter.refused++
		if r.Permanent() {
			g.badRcpts++
		}
	case (v == verbDATA || v == verbBDAT) && ok:
		g.errors, g.badRcpts = 0, 0
	}
}

// send writes the answer to a command of go-smtp's, and ends the session where it must end.
func (g *guard) send(v verb, r relay.Reply) {
	switch {
	case v == verbEHLO && r.OK():
		r = g.greeting()
	case v == verbHELO && r.OK():
		r = relay.Reply{Code: 250, Text: string(g.srv.hostname)}
	case v == verbNOOP && r.OK(), v == verbRSET && r.OK():
		r = replyOK
	case v == verbQUIT && r.OK():
		r = say(221, "2.0.0", string(g.srv.hostname)+" says goodbye")
	}
	g.reply(r)
	switch {
	case g.dead != "":
	case g.badRcpts > g.set.limits.BadRecipients:
		g.part(replyErrors, "too many refused recipients")
	case g.failures >= g.set.limits.AuthFailures:
		g.part(replyLogins, "too many failed logins")
	}
}

// greeting is the answer to EHLO: what we offer, to this client, now.
func (g *guard) greeting() relay.Reply {
	l := g.set.limits
	lines := []string{
		string(g.srv.hostname), "PIPELINING", "SIZE " + strconv.FormatInt(l.MessageSize, 10), "8BITMIME", "CHUNKING",
		"ENHANCEDSTATUSCODES", "SMTPUTF8", "LIMITS RCPTMAX=" + strconv.Itoa(l.Recipients),
	}
	if g.secure == nil && g.set.tls != nil {
		lines = append(lines, "STARTTLS")
	}
	if g.mayLogIn() {
		lines = append(lines, "AUTH PLAIN LOGIN")
	}
	return relay.Reply{Code: 250, Text: strings.Join(lines, "\n")}
}

// mayLogIn says whether AUTH is offered: never where others could listen.
func (g *guard) mayLogIn() bool { return g.srv.auth != nil && g.secure != nil && g.user == "" }

// reply queues a reply for the client; a 421 ends the session (RFC 5321 §3.8).
func (g *guard) reply(r relay.Reply) {
	if g.dead != "" {
		return
	}
	if g.log.Enabled(context.Background(), slog.LevelDebug) {
		g.log.Debug("reply", "client", g.peer.client, "code", r.Code, "text", r.String())
	}
	g.out = appendReply(g.out, r, g.letter != nil && g.letter.utf8)
	if r.Code == 421 {
		g.hangup("421 " + r.Text)
		return
	}
	if len(g.out) > maxHeldReplies {
		if err := g.flush(); err != nil {
			g.lose(err)
		}
	}
}

// complain answers a wrong command; too many end the session.
func (g *guard) complain(r relay.Reply) {
	g.errors++
	g.reply(r)
	if g.dead == "" && g.errors > g.set.limits.Errors {
		g.part(replyErrors, "too many errors")
	}
}

// part takes leave with a 421 and closes the connection.
func (g *guard) part(r relay.Reply, reason string) {
	if g.dead != "" {
		return
	}
	g.out = appendReply(g.out, r, false)
	g.log.Info("refused", "client", g.peer.client, "helo", g.peer.helo, "user", g.user, "code", r.Code, "reason", reason)
	g.hangup(reason)
}

// hangup writes what is owed and closes. What the client has sent beyond that is taken in for a
// moment first: closing a socket with unread octets resets it, and the client would lose our
// last words.
func (g *guard) hangup(reason string) {
	if g.dead != "" {
		return
	}
	g.dead = reason
	g.feed = ""
	if g.flush() != nil {
		g.kill()
		return
	}
	if closeWrite(g.conn) {
		g.conn.SetReadDeadline(time.Now().Add(lingerTime))
		for swallowed := 0; swallowed < lingerBytes; {
			n, err := g.conn.Read(g.in)
			if swallowed += n; err != nil {
				break
			}
		}
	}
	g.kill()
}

// How long, and how much, of a client that has been told to go.
const (
	lingerTime  = time.Second
	lingerBytes = 256 << 10
)
