package mx

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/emersion/go-smtp"

	"relayd/relay"
)

// goLMTP brings the letter to a server of ours that speaks LMTP (RFC 2033): it answers for each
// recipient once it has the letter, and with that answer the letter has arrived.
func (c *Client) goLMTP(ctx context.Context, l *letter, r *Route) {
	targets, v, reply := c.lmtpTargets(ctx, r)
	if len(targets) == 0 {
		transcriptOf(ctx).note("%s", reply.Text)
		l.recordOwn(l.pending(), v, reply)
	}
	for _, t := range targets[:min(len(targets), maxTried)] {
		todo := l.pending()
		if len(todo) == 0 || ctx.Err() != nil {
			break
		}
		if err := c.tryLMTP(ctx, l, t, todo); err != nil {
			transcriptOf(ctx).note("%s", err)
			l.recordLoss(ctx, t, nil, todo, err)
			c.log.Debug("this host failed", "id", l.env.ID, "mx", t.String(), "err", err)
		}
	}
	if ctx.Err() != nil {
		l.recordOwn(l.pending(), hostTrouble, cutShortReply(ctx))
	}
}

func (c *Client) lmtpTargets(ctx context.Context, r *Route) ([]target, verdict, relay.Reply) {
	if r.Socket != "" {
		return []target{{name: r.Socket, socket: true, via: r}}, verdict{}, relay.Reply{}
	}
	return c.viaRoute(ctx, r)
}

// tryLMTP makes one connection. An error means that the host has failed; whoever has an answer by
// then keeps it.
func (c *Client) tryLMTP(ctx context.Context, l *letter, t target, todo []int) error {
	s, err := c.connectLMTP(ctx, t)
	if err != nil {
		return err
	}
	defer s.end()
	if s.as.converts(l) {
		if _, err := l.asSevenBit(); err != nil {
			return err
		}
	}
	if r := s.as.lacks(l); r.Code != 0 {
		l.recordOwn(todo, hostLacks, r)
		return nil
	}
	if !s.as.offers("SMTPUTF8") {
		todo = s.as.dropUTF8(l, todo)
	}
	for len(todo) > 0 {
		n := min(len(todo), maxRcpts)
		if err := s.transaction(l, todo[:n]); err != nil {
			return err
		}
		todo = todo[n:]
	}
	return nil
}

// lmtpSession is one LMTP connection, on go-smtp's client.
type lmtpSession struct {
	*smtp.Client
	wire *lmtpWire
	as   *session // what the host offers, for the questions that SMTP and LMTP share; it has no connection
	stop func() bool
}

// connectLMTP makes a session that ctx ends.
func (c *Client) connectLMTP(ctx context.Context, t target) (*lmtpSession, error) {
	transcriptOf(ctx).note("%s", t)
	raw, err := c.dialLMTP(ctx, t)
	if err != nil {
		return nil, lost(phaseConnect, err)
	}
	s := &lmtpSession{wire: &lmtpWire{Conn: raw, transcript: transcriptOf(ctx), block: c.timeouts.Block, left: maxLMTPReplies},
		as: &session{target: t, ext: map[string]string{}}}
	s.Client = smtp.NewClientLMTP(s.wire)
	s.CommandTimeout, s.SubmissionTimeout = c.timeouts.RCPT, c.timeouts.End
	s.stop = context.AfterFunc(ctx, func() { raw.Close() })
	if err := s.Hello(string(c.cfg.Hostname)); err != nil {
		s.end()
		return nil, lmtpError(phaseGreeting, err)
	}
	for _, keyword := range []string{"SIZE", "8BITMIME", "SMTPUTF8"} {
		if ok, params := s.Extension(keyword); ok {
			s.as.ext[keyword] = params
		}
	}
	return s, nil
}

func (c *Client) dialLMTP(ctx context.Context, t target) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeouts.Connect)
	defer cancel()
	if t.socket {
		var d net.Dialer
		return d.DialContext(ctx, "unix", t.name)
	}
	return c.cfg.Dial(ctx, netip.Addr{}, t.addr)
}

// end says goodbye, and does not wait long for the answer.
func (s *lmtpSession) end() {
	if s.stop() && !s.wire.broken {
		s.CommandTimeout = time.Second
		s.Quit()
	}
	s.wire.Close()
}

// transaction offers the letter to the recipients of batch and records what each came to.
func (s *lmtpSession) transaction(l *letter, batch []int) error {
	options := &smtp.MailOptions{Size: s.as.sizeOf(l), UTF8: s.as.offers("SMTPUTF8") && (l.needsUTF8() || !l.allASCII(batch))}
	if err := s.Mail(l.env.From.String(), options); err != nil {
		return s.condemn(l, batch, phaseMAIL, err)
	}
	var accepted []int
	for _, i := range batch {
		err := s.Rcpt(l.env.Rcpts[i].Addr.String(), nil)
		if err == nil {
			accepted = append(accepted, i)
		} else if err := s.condemn(l, []int{i}, phaseRCPT, err); err != nil {
			return err
		}
	}
	if len(accepted) == 0 {
		return s.reset()
	}
	data, err := s.Data()
	if err != nil {
		if err := s.condemn(l, accepted, phaseDATA, err); err != nil {
			return err
		}
		return s.reset()
	}
	return s.data(l, accepted, data)
}

// reset ends a transaction without a letter, so that another MAIL may follow.
func (s *lmtpSession) reset() error {
	if err := s.Reset(); err != nil {
		s.wire.broken = true // everybody has an answer, so that nothing is lost
	}
	return nil
}

// data sends the letter and records the reply to each recipient. Those whose reply is lost may have it.
func (s *lmtpSession) data(l *letter, accepted []int, data *smtp.DataCommand) error {
	if err := s.sendBody(l, data); err != nil {
		s.wire.broken = true
		return err
	}
	s.wire.transcript.note("the message, %d octets", s.as.sizeOf(l))
	good, err := data.CloseWithLMTPResponse()
	s.wire.inBody = false
	bad, _ := errors.AsType[smtp.LMTPDataError](err)
	var silent []int
	for _, i := range accepted {
		rcpt := l.env.Rcpts[i].Addr.String()
		if said := good[rcpt]; said != nil {
			s.record(l, i, answer{250, []string{said.StatusText}}.reply())
		} else if said := bad[rcpt]; said != nil {
			s.record(l, i, lmtpReply(said))
		} else {
			silent = append(silent, i)
		}
	}
	if len(silent) > 0 {
		s.wire.broken = true
		l.recordLoss(context.Background(), s.as.target, s.as, silent, lost(phaseEnd, err))
	}
	return nil
}

func (s *lmtpSession) record(l *letter, i int, r relay.Reply) {
	v := judge(phaseEnd, r)
	l.keep([]int{i}, v, relay.Result{Reply: r, Host: s.as.target.String(), Arrived: v.Outcome == relay.Delivered})
}

func (s *lmtpSession) sendBody(l *letter, w io.Writer) error {
	if _, err := l.body.Seek(0, io.SeekStart); err != nil {
		return &bodyError{err}
	}
	s.wire.inBody = true
	source := &bodyReader{r: l.body}
	var err error
	if s.as.converts(l) {
		err = l.seven.write(w, bodySeeker{source, l.body})
	} else {
		_, err = io.Copy(w, source)
	}
	switch {
	case source.err != nil:
		return &bodyError{source.err}
	case err != nil:
		return lost(phaseBody, err)
	}
	return nil
}

// condemn records a refusal; nil says that the session may go on.
func (s *lmtpSession) condemn(l *letter, rcpts []int, p phase, err error) error {
	said, ok := errors.AsType[*smtp.SMTPError](err)
	if !ok {
		s.wire.broken = true
		return lost(p, err)
	}
	r := lmtpReply(said)
	v := judge(p, r)
	if v.Scope == relay.ScopeHost {
		return refused(p, r)
	}
	l.record(s.as, rcpts, v, r)
	return nil
}

func lmtpError(p phase, err error) error {
	if said, ok := errors.AsType[*smtp.SMTPError](err); ok {
		return refused(p, lmtpReply(said))
	}
	return lost(p, err)
}

// lmtpReply is what go-smtp heard, in our form.
func lmtpReply(said *smtp.SMTPError) relay.Reply {
	r := answer{said.Code, strings.Split(said.Message, "\n")}.reply()
	if s := relay.Status(said.EnhancedCode); s[0] == said.Code/100 {
		r.Status = s
	}
	return r
}

// maxLMTPReplies bounds, in octets, what a host may say in one session: go-smtp keeps a reply whole
// however long it is.
const maxLMTPReplies = 1 << 20

// lmtpWire is the connection underneath go-smtp's client, which sets no deadline while it writes a
// letter, and does not tell what was said.
type lmtpWire struct {
	net.Conn
	transcript *transcript
	block      time.Duration
	left       int
	inBody     bool   // what is written is the letter
	broken     bool   // nothing more may be said
	line       []byte // of the reply that is coming in
	reply      answer
}

var errTalkative = errors.New("the host has said more than a megabyte")

func (w *lmtpWire) Read(p []byte) (int, error) {
	if w.left <= 0 {
		return 0, errTalkative
	}
	n, err := w.Conn.Read(p[:min(len(p), w.left)])
	w.left -= n
	w.heard(p[:n])
	return n, err
}

func (w *lmtpWire) Write(p []byte) (int, error) {
	if !w.inBody {
		w.transcript.said(command{phaseMAIL, strings.TrimRight(string(p), "\r\n")})
	} else if err := w.SetWriteDeadline(time.Now().Add(w.block)); err != nil {
		return 0, err
	}
	return w.Conn.Write(p)
}

// heard takes replies down, line by line as they come.
func (w *lmtpWire) heard(p []byte) {
	for _, b := range p {
		if b != '\n' {
			if len(w.line) < maxReplyLine {
				w.line = append(w.line, b)
			}
			continue
		}
		code, text, more, _ := cutReplyLine(string(w.line))
		w.line = w.line[:0]
		if w.reply.code = code; len(w.reply.lines) < maxReplyLines {
			w.reply.lines = append(w.reply.lines, text)
		}
		if !more {
			w.transcript.heard(w.reply)
			w.reply = answer{}
		}
	}
}

// ask returns the reply to RCPT TO.
func (s *lmtpSession) ask(rcpt relay.Address) (relay.Reply, error) {
	if !rcpt.IsASCII() && !s.as.offers("SMTPUTF8") {
		return s.as.lacksUTF8(), nil
	}
	if err := s.Mail("", &smtp.MailOptions{UTF8: !rcpt.IsASCII()}); err != nil {
		return relay.Reply{}, lmtpError(phaseMAIL, err)
	}
	err := s.Rcpt(rcpt.String(), nil)
	if said, ok := errors.AsType[*smtp.SMTPError](err); ok {
		return lmtpReply(said), nil
	}
	if err != nil {
		return relay.Reply{}, lmtpError(phaseRCPT, err)
	}
	return relay.Reply{Code: 250}, nil
}
