package pop3

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"relayd/relay"
	"relayd/relay/listen"
)

// session is one connection. Its methods run in one goroutine; only hurry and kill of its wire are
// called from others.
type session struct {
	*wire
	server  *Server
	log     *slog.Logger
	client  netip.AddrPort
	network netip.Prefix // what connections are counted by
	since   time.Time

	secure bool
	name   string // what USER said; empty: nothing yet
	tries  int    // wrong passwords

	challenge string // of APOP; empty: not offered
	errors    int    // wrong commands
	over      bool   // hang up when the reply is out

	drop    Maildrop // nil before the login
	mailbox relay.Address
	list    []Message
	deleted []bool
	kept    struct {
		count  int
		octets int64
	}
	fetched  []fetch
	reported int // how many of fetched have been logged

	tongue        language
	international bool // UTF-8 may stand in sentences
}

// fetch is a message of so many octets sent whole by RETR. The connection has carried end octets
// when the last of them is through.
type fetch struct {
	n         int
	end, size int64
}

func newSession(s *Server, conn net.Conn) *session {
	client := addrPort(conn.RemoteAddr())
	bits := 32
	if client.Addr().Is6() {
		bits = 64
	}
	network, _ := client.Addr().WithZone("").Prefix(bits)
	ses := &session{
		wire:   &wire{conn: conn, timeout: s.cfg.Limits.WriteTime, lag: s.cfg.Limits.ShutdownLag},
		server: s, log: s.log.With("client", client.String()), client: client, network: network, since: time.Now(),
	}
	ses.sent = ses.report
	return ses
}

func addrPort(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// serve runs the session from the greeting to the end of the connection.
func (s *session) serve(ctx context.Context, implicitTLS bool) {
	defer s.end()
	defer context.AfterFunc(ctx, s.kill)()
	s.log.Info("connected")
	if implicitTLS {
		if err := s.startTLS(ctx); err != nil {
			s.log.Info("no TLS", "err", err)
			return
		}
	}
	s.ok(s.greeting(), s.server.cfg.Hostname)
	for !s.over {
		line, crlf, err := s.readLine(maxLine, s.deadline())
		switch {
		case errors.Is(err, errLongLine):
			s.wrong(none, textLongLine)
		case err != nil:
			s.log.Debug("the link ended without QUIT", "err", err)
			return
		default:
			s.command(ctx, line, crlf)
		}
	}
	if s.flush() == nil {
		s.closeDrop() // nobody has to wait for a client that does not hang up
		listen.Linger(s.conn, s.in[:])
	}
}

// deadline is when the next command must have come.
func (s *session) deadline() time.Time {
	if s.drop == nil {
		return s.since.Add(s.server.cfg.Limits.LoginTime)
	}
	return time.Now().Add(s.server.cfg.Limits.IdleTimeout)
}

// end closes what is still open. A maildrop that is closed without Remove keeps every message.
func (s *session) end() {
	s.closeDrop()
	s.conn.Close()
	s.log.Info("disconnected", "dur", time.Since(s.since).Round(time.Millisecond), "in", s.octets.in, "out", s.octets.out)
}

func (s *session) closeDrop() {
	if s.drop == nil {
		return
	}
	drop := s.drop
	s.drop = nil
	if err := drop.Close(); err != nil {
		s.log.Warn("cannot close the maildrop", "user", s.mailbox, "err", err)
	}
	s.log.Info("logged out", "user", s.mailbox, "fetched", s.reported)
}

// startTLS shakes hands on the connection; after an error it is of no more use.
func (s *session) startTLS(ctx context.Context) error {
	conn := tls.Server(s.conn, s.server.cfg.TLS)
	ctx, cancel := context.WithDeadline(ctx, s.deadline())
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		return err
	}
	s.replace(conn)
	s.secure = true
	return nil
}

// wrong answers a command that a well-made client does not send, and ends the session of one that
// sends nothing else.
func (s *session) wrong(c code, p phrase, args ...any) {
	s.errors++
	limit := s.server.cfg.Limits.Errors
	if s.drop != nil {
		limit *= 5
	}
	if s.errors < limit {
		s.err(c, p, args...)
		return
	}
	s.over = true
	for l := range p {
		p[l] += "; " + textTooMany[l]
	}
	s.err(c, p, args...)
}

// state says when a command may be given (RFC 1939 §3).
type state int

const (
	anyState state = iota
	authorization
	transaction
)

type verb struct {
	state    state
	argument bool // it may have one
	run      func(s *session, ctx context.Context, arg string)
}

// verbs are the commands, but for STLS, which has to see how its line ended.
var verbs = map[string]verb{
	"CAPA": {anyState, false, (*session).capa},
	"LANG": {anyState, true, (*session).lang},
	"QUIT": {anyState, false, (*session).quit},
	"USER": {authorization, true, (*session).user},
	"PASS": {authorization, true, (*session).pass},
	"AUTH": {authorization, true, (*session).auth},
	"APOP": {authorization, true, (*session).apop},
	"UTF8": {authorization, false, (*session).utf8},
	"STAT": {transaction, false, (*session).stat},
	"LIST": {transaction, true, (*session).listing},
	"UIDL": {transaction, true, (*session).uidl},
	"RETR": {transaction, true, (*session).retr},
	"TOP":  {transaction, true, (*session).topLines},
	"DELE": {transaction, true, (*session).dele},
	"NOOP": {transaction, false, (*session).noop},
	"RSET": {transaction, false, (*session).rset},
}

func (s *session) command(ctx context.Context, line []byte, crlf bool) {
	if bytes.IndexByte(line, 0) >= 0 {
		s.wrong(none, textNUL)
		return
	}
	word, arg, _ := strings.Cut(string(line), " ")
	word = strings.ToUpper(word)
	if word != "PASS" {
		s.name = "" // PASS has to follow USER at once (RFC 1939 §7)
	}
	if word == "STLS" {
		s.stls(ctx, arg, crlf)
		return
	}
	v, known := verbs[word]
	switch {
	case !known && s.drop == nil && isHTTP(line):
		s.over = true
		s.err(none, textNotPOP3)
	case !known:
		s.wrong(none, textUnknown)
	case v.state == transaction && s.drop == nil:
		s.wrong(none, textLoginFirst)
	case v.state == authorization && s.drop != nil:
		s.wrong(none, textLoggedIn)
	case arg != "" && !v.argument:
		s.wrong(none, textNoArgument, word)
	default:
		v.run(s, ctx, arg)
	}
}

// isHTTP notices a web browser that was sent here to speak POP3 for somebody else (hazards:
// other protocols on our ports).
func isHTTP(line []byte) bool {
	return bytes.Contains(line, []byte(" HTTP/")) || bytes.HasPrefix(line, []byte("Host:"))
}

// stls implements RFC 2595 §4. Whatever came behind it in clear text was perhaps not written by
// the one who will shake hands, so it ends the connection; and nothing said before it is kept.
func (s *session) stls(ctx context.Context, arg string, crlf bool) {
	switch {
	case s.server.cfg.TLS == nil:
		s.wrong(none, textNoTLS)
	case s.secure:
		s.wrong(none, textTLSActive)
	case s.drop != nil:
		s.wrong(none, textLoggedIn)
	case arg != "" || !crlf:
		s.wrong(none, textSTLSSyntax)
	case s.pending():
		s.over = true
		s.err(none, textSTLSPipelined)
	default:
		s.ok(textBeginTLS)
		s.tongue, s.international = english, false
		if s.flush() != nil {
			s.over = true
		} else if err := s.startTLS(ctx); err != nil {
			s.log.Info("no TLS", "err", err)
			s.over = true
			s.wire.err = err
		}
	}
}

// capa implements RFC 2449 §5. Only what would work now is listed. EXPIRE is about letters that
// clients leave here: nobody but they removes any, hence NEVER (§6.7). What they do remove may be
// kept a while for the operator, but no client can see that, so it is no retention.
func (s *session) capa(_ context.Context, _ string) {
	s.ok(textCapabilities)
	s.writeString("TOP\r\nUIDL\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\nPIPELINING\r\nEXPIRE NEVER\r\nUTF8 USER\r\nLANG\r\n")
	if s.mayLogin() {
		s.writeString("USER\r\nSASL " + s.mechanismNames() + "\r\n")
	}
	if d := s.server.cfg.Delay; d != nil {
		s.writeString("LOGIN-DELAY " + strconv.FormatInt(seconds(d.least), 10) + "\r\n")
	}
	if s.server.cfg.TLS != nil && !s.secure && s.drop == nil {
		s.writeString("STLS\r\n")
	}
	s.writeString("IMPLEMENTATION relayd\r\n.\r\n")
}

func (s *session) mayLogin() bool {
	return s.secure || s.server.cfg.PlaintextOK(s.client.Addr())
}

// quit ends the session; in the transaction state it first removes what was marked (RFC 1939 §6).
// The maildrop is open to others again before the reply is out.
func (s *session) quit(_ context.Context, _ string) {
	s.over = true
	if s.drop == nil {
		s.ok(textGoodbye)
		return
	}
	var marked []int
	for i, deleted := range s.deleted {
		if deleted {
			marked = append(marked, i+1)
		}
	}
	// A client that pipelines RETR, DELE and QUIT and is then cut off has not got its messages:
	// they are sent first, and nothing is removed if that fails.
	if s.flush() != nil {
		return
	}
	var err error
	if len(marked) > 0 {
		err = s.drop.Remove(marked...)
	}
	stay := notRemoved(err, marked)
	if err != nil {
		s.log.Error("cannot remove messages", "user", s.mailbox, "err", err)
	}
	s.closeDrop()
	if err != nil {
		s.trouble(err, textNotRemoved, textNotRemoved, len(stay), len(marked), numbers(stay))
		return
	}
	s.ok(textRemoved, len(marked))
}

// notRemoved says which messages stay after Remove failed; all of them if it did not say.
func notRemoved(err error, marked []int) []int {
	if err == nil {
		return nil
	}
	var which interface {
		error
		NotRemoved() []int
	}
	if errors.As(err, &which) {
		return which.NotRemoved()
	}
	return marked
}

func numbers(list []int) string {
	var b strings.Builder
	for _, n := range list {
		b.WriteByte(' ')
		b.WriteString(strconv.Itoa(n))
	}
	return b.String()
}
