package smtpd

import (
	"errors"
	"io"
	"runtime/debug"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"relayd/relay"
)

// session is what go-smtp calls when it has accepted a command. What the command said it takes
// from the guard, and the guard gives the reply.
type session struct{ g *guard }

// newSession is the go-smtp backend. It runs at the first EHLO or HELO.
func newSession(c *smtp.Conn) (smtp.Session, error) {
	return &session{c.Conn().(*guard)}, nil
}

// Mail implements smtp.Session.
func (s *session) Mail(string, *smtp.MailOptions) error {
	g := s.g
	if !g.set.profile.Devices.mayWrite(g.peer.client.Addr(), g.set.profile.LettersPerHour) {
		g.because("sent more than %d letters within an hour", g.set.profile.LettersPerHour)
		return g.refuse(relay.Fail("smtpd: mail", relay.ScopeMessage, replyTooOften, nil))
	}
	tx, err := g.srv.accept.Begin(g.srv.ctx, g.origin(g.mail.params.UTF8), g.mail.from, g.mail.params)
	if err != nil {
		return g.refuse(err)
	}
	g.letter = &letter{tx: tx, from: g.mail.from, utf8: g.mail.params.UTF8, binary: g.mail.params.Binary, until: time.Now().Add(g.set.limits.TransactionTimeout)}
	g.answer = &replySender
	return nil
}

// Rcpt implements smtp.Session.
func (s *session) Rcpt(string, *smtp.RcptOptions) error {
	if err := s.g.letter.tx.Rcpt(s.g.srv.ctx, s.g.rcpt.to, s.g.rcpt.params); err != nil {
		s.g.because("%s", rcptTrouble(s.g.rcpt.to, err))
		return s.g.refuse(err)
	}
	if s.g.letter.rcpts == 0 {
		s.g.letter.to = s.g.rcpt.to
	}
	s.g.answer = &replyRecipient
	return nil
}

// Data implements smtp.Session for DATA and for BDAT. It reads from the wire; go-smtp's reader
// gets the lone dot at the end, and with it go-smtp goes back to commands.
func (s *session) Data(io.Reader) error {
	g := s.g
	if g.inFlight == verbDATA {
		g.reply(replyStart)
	}
	id, err := g.receive()
	g.feed = ".\r\n"
	if err != nil {
		return g.refuse(err)
	}
	g.set.profile.Devices.wrote(g.peer.client.Addr(), g.peer.helo, id, g.letter)
	g.answer = ptr(say(250, "2.0.0", "queued as "+string(id)))
	return nil
}

// receive hands the letter to the Acceptor and brings both sides to the end of it.
func (g *guard) receive() (relay.ID, error) {
	b := newBody(g, g.inFlight)
	id, err := g.letter.tx.Receive(g.srv.ctx, b)
	if b.err == nil && b.done {
		return id, err
	}
	if b.ended != "" {
		return "", g.giveUp(b.ended)
	}
	if b.err == nil {
		b.err = err
	}
	if b.err == nil {
		b.err = errors.New("smtpd: the acceptor did not read the whole letter")
	}
	b.drain()
	return "", b.err
}

// giveUp answers the command that ended a letter between two chunks.
func (g *guard) giveUp(v verb) error {
	r := replyOK
	if v == verbQUIT {
		r = say(221, "2.0.0", string(g.srv.hostname)+" says goodbye")
	}
	return &ending{v, r}
}

// ending is no failure: the client ended its letter and wants this reply.
type ending struct {
	verb  verb
	reply relay.Reply
}

func (e *ending) Error() string { return "smtpd: " + string(e.verb) + " between two chunks" }

// refuse makes err the answer to the command in flight.
func (g *guard) refuse(err error) error {
	if e, ok := errors.AsType[*ending](err); ok {
		g.inFlight, g.answer = e.verb, &e.reply
		return engineError(replyUnknown)
	}
	r := g.refusal(err)
	g.answer = &r
	return engineError(r)
}

// refusal is the reply to an error. What is behind one that has no reply of its own goes to the
// log, never to the client.
func (g *guard) refusal(err error) relay.Reply {
	r, known := replyTo(err)
	if !known && g.dead == "" {
		g.log.Error("internal error", "client", g.peer.client, "code", r.Code, "err", err)
	}
	return r
}

// Reset implements smtp.Session: the transaction is over, one way or the other.
func (s *session) Reset() {
	if l := s.g.letter; l != nil {
		s.g.letter = nil
		l.tx.Abort()
	}
}

// Logout implements smtp.Session. go-smtp calls it where nothing catches a panic.
func (s *session) Logout() error {
	defer func() {
		if r := recover(); r != nil {
			s.g.log.Error("panic in a session", "client", s.g.peer.client, "err", r, "stack", string(debug.Stack()))
		}
	}()
	s.Reset()
	return nil
}

// AuthMechanisms implements smtp.AuthSession. The guard writes the EHLO reply itself.
func (s *session) AuthMechanisms() []string { return nil }

// Auth implements smtp.AuthSession.
func (s *session) Auth(string) (sasl.Server, error) {
	return &exchange{g: s.g, login: s.g.login}, nil
}
