package mx

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"relayd/relay"
)

// session is one SMTP connection to one host, greeted and ready for MAIL. It outlives an
// attempt when it goes to the idle sessions, and belongs to one goroutine at a time.
type session struct {
	*conn
	target target
	ext    map[string]string // EHLO keywords, upper case, with their parameters; nil after HELO
	tls    string            // protocol, cipher and what the certificate proved; empty without TLS
	plain  string            // without TLS: what is to be said about that

	mails  int         // transactions begun
	reused bool        // no command has been answered since it came from the idle sessions
	open   bool        // a MAIL stands that neither data nor RSET has ended
	broken bool        // nothing more may be said
	detach func() bool // ends the hold of the attempt's context on the connection
}

// attach lets ctx close the connection: no phase outlives the attempt.
func (s *session) attach(ctx context.Context) {
	s.detach = context.AfterFunc(ctx, s.conn.abort)
	s.transcript = transcriptOf(ctx)
}

// connect makes a session with t. When TLS was offered and its handshake failed, the same host
// gets one more connection without TLS, unless it must prove something: TLS is opportunistic (RFC
// 7435), and mail that arrives in the clear beats mail that does not arrive.
func (c *Client) connect(ctx context.Context, t target) (*session, error) {
	s, err := c.connectOnce(ctx, t, true)
	if loss, ok := errors.AsType[*lossError](err); ok && loss.phase == phaseTLS && ctx.Err() == nil && !t.need.mandatory() && !t.implicitTLS() {
		c.log.Debug("no TLS with this host, going on without", "mx", t.String(), "err", loss.err)
		return c.connectOnce(ctx, t, false)
	}
	return s, err
}

func (c *Client) connectOnce(ctx context.Context, t target, useTLS bool) (*session, error) {
	transcriptOf(ctx).note("%s", t)
	cn, t, err := c.dialEither(ctx, t)
	if err != nil {
		return nil, err
	}
	s := &session{conn: cn, target: t}
	s.attach(ctx)
	if err := s.greet(ctx, c, useTLS); err != nil {
		s.detach()
		s.abort()
		return nil, err
	}
	return s, nil
}

// greet takes the session from the connection to where MAIL may be said.
func (s *session) greet(ctx context.Context, c *Client, useTLS bool) error {
	if err := s.shake(ctx, c, useTLS); err != nil || !s.target.logsIn() {
		return err
	}
	return s.login(s.target.via)
}

// shake is what comes before a login: the greeting, EHLO and TLS, or TLS first.
func (s *session) shake(ctx context.Context, c *Client, useTLS bool) (err error) {
	if s.target.implicitTLS() {
		if err := s.handshake(ctx, c); err != nil {
			return err
		}
	}
	a, err := s.read(phaseGreeting)
	if err != nil {
		return err
	}
	if a.code != 220 {
		return refused(phaseGreeting, a.reply())
	}
	if err := s.hello(c.cfg.Hostname); err != nil {
		return err
	}
	switch {
	case s.target.need.level == levelClear, s.tls != "":
		return nil
	case !useTLS:
		return s.without(c, "the handshake fails")
	}
	return s.secure(ctx, c)
}

// security is what a Result says of TLS.
func (s *session) security() string { return s.tls + s.plain }

// hello says EHLO, and HELO to a host that does not know EHLO (RFC 5321 §3.2).
func (s *session) hello(name relay.Domain) error {
	a, err := s.exchange(phaseEHLO, "EHLO "+string(name))
	if err != nil {
		return err
	}
	if a.code/100 == 2 {
		s.ext = extensions(a.lines)
		return nil
	}
	if a.code/100 != 5 || s.tls != "" {
		return refused(phaseEHLO, a.reply())
	}
	if a, err = s.exchange(phaseHELO, "HELO "+string(name)); err != nil {
		return err
	}
	if a.code/100 != 2 {
		return refused(phaseHELO, a.reply())
	}
	return nil
}

// extensions reads the lines of an EHLO reply behind the first.
func extensions(lines []string) map[string]string {
	ext := make(map[string]string, len(lines))
	for _, line := range lines[min(1, len(lines)):] {
		keyword, params, _ := strings.Cut(strings.TrimSpace(line), " ")
		ext[strings.ToUpper(keyword)] = strings.TrimSpace(params)
	}
	return ext
}

func (s *session) offers(keyword string) bool {
	_, ok := s.ext[keyword]
	return ok
}

// limit is a limit of the remote's LIMITS extension (RFC 9422), such as RCPTMAX; else otherwise.
func (s *session) limit(name string, otherwise int) int {
	for word := range strings.FieldsSeq(s.ext["LIMITS"]) {
		key, value, _ := strings.Cut(word, "=")
		n, err := strconv.Atoi(value)
		if strings.EqualFold(key, name) && err == nil && n > 0 {
			return min(n, otherwise)
		}
	}
	return otherwise
}

// lacks says why this host cannot take the letter at all; the zero Reply: it can. Another host
// of the domain may.
func (s *session) lacks(l *letter) relay.Reply {
	size, err := strconv.ParseInt(s.ext["SIZE"], 10, 64)
	switch {
	case err == nil && size > 0 && s.sizeOf(l) > size:
		return relay.Reply{Code: 552, Status: relay.Status{5, 3, 4}, Text: fmt.Sprintf(
			"the message has %d octets, %s takes at most %d", s.sizeOf(l), s.target, size)}
	case l.env.By.Return && !s.deliversBy(l.env.By):
		return relay.Reply{Code: 554, Status: relay.Status{5, 3, 3}, Text: fmt.Sprintf(
			"the sender wants it back unless it is delivered in time, and %s does not see to that (it does not offer DELIVERBY)", s.target)}
	case l.needsUTF8() && !s.offers("SMTPUTF8"):
		return s.lacksUTF8()
	case l.env.RequireTLS && !s.keepsTLS():
		return relay.Reply{Code: 550, Status: relay.Status{5, 7, 30}, Text: fmt.Sprintf(
			"the message may only go to hosts that keep it under TLS, and %s does not promise that (it does not offer REQUIRETLS)", s.target)}
	case s.converts(l) && l.seven.err != nil:
		return relay.Reply{Code: 554, Status: relay.Status{5, 6, 3}, Text: fmt.Sprintf(
			"the message has 8-bit text, which %s cannot take (it does not offer 8BITMIME), and cannot be converted: %s",
			s.target, l.seven.err)}
	}
	return relay.Reply{}
}

// converts says that the letter goes to this host as 7-bit text; l.seven knows how.
func (s *session) converts(l *letter) bool { return l.env.Body8Bit && !s.offers("8BITMIME") }

// sizeOf is the size of the letter as this host gets it.
func (s *session) sizeOf(l *letter) int64 {
	if s.converts(l) && l.seven.err == nil {
		return l.seven.size
	}
	return l.size
}

func (s *session) lacksUTF8() relay.Reply {
	return relay.Reply{Code: 553, Status: relay.Status{5, 6, 7}, Text: fmt.Sprintf(
		"the message needs international addresses, which %s cannot take (it does not offer SMTPUTF8)", s.target)}
}

// deliver offers the letter to this host for the recipients of todo, in as many transactions as
// it takes, and records what each came to. It returns those that were not offered because the
// connection is used up; a non-nil error means that the host has failed and the session is
// closed, and what was not answered is the caller's to record.
func (s *session) deliver(l *letter, todo []int) ([]int, error) {
	if s.converts(l) {
		if _, err := l.asSevenBit(); err != nil {
			return nil, err
		}
	}
	if r := s.lacks(l); r.Code != 0 {
		l.recordOwn(todo, hostLacks, r)
		return nil, nil
	}
	if !s.offers("SMTPUTF8") {
		todo = s.dropUTF8(l, todo)
	}
	for len(todo) > 0 && !s.spent() {
		n := min(len(todo), s.limit("RCPTMAX", maxRcpts))
		again, err := s.transaction(l, todo[:n])
		if err != nil {
			s.broken = true
			return nil, err
		}
		todo = append(again, todo[n:]...)
	}
	return todo, nil
}

// dropUTF8 settles the recipients that a host without SMTPUTF8 cannot be told of.
func (s *session) dropUTF8(l *letter, todo []int) []int {
	keep := make([]int, 0, len(todo))
	for _, i := range todo {
		if l.env.Rcpts[i].Addr.IsASCII() {
			keep = append(keep, i)
		} else {
			l.recordOwn([]int{i}, hostLacks, s.lacksUTF8())
		}
	}
	return keep
}

// spent says that the session must not begin another transaction.
func (s *session) spent() bool {
	return s.broken || s.mails >= s.limit("MAILMAX", maxMails)
}

// mailCommand is MAIL FROM with the parameters the host understands.
func (s *session) mailCommand(l *letter, batch []int) string {
	var b strings.Builder
	b.WriteString("MAIL FROM:" + l.env.From.Path())
	if s.offers("SIZE") {
		b.WriteString(" SIZE=" + strconv.FormatInt(s.sizeOf(l), 10))
	}
	if s.offers("8BITMIME") && l.env.Body8Bit {
		b.WriteString(" BODY=8BITMIME")
	}
	if s.offers("SMTPUTF8") && (l.needsUTF8() || !l.allASCII(batch)) {
		b.WriteString(" SMTPUTF8")
	}
	if l.env.RequireTLS {
		b.WriteString(" REQUIRETLS") // lacks has seen that it is offered
	}
	if s.offers("DSN") {
		if l.env.Ret != "" {
			b.WriteString(" RET=" + string(l.env.Ret))
		}
		if l.env.EnvID != "" {
			b.WriteString(" ENVID=" + relay.Xtext(l.env.EnvID))
		}
	}
	if s.offers("DELIVERBY") && !l.env.By.IsZero() {
		b.WriteString(" BY=" + l.env.By.Param(time.Now()))
	}
	return b.String()
}

// deliversBy says whether the host returns a letter that it cannot deliver in time; it may want a least
// time for that (RFC 2852 §4).
func (s *session) deliversBy(by relay.DeliverBy) bool {
	least, err := strconv.ParseInt(cmp.Or(s.ext["DELIVERBY"], "0"), 10, 64)
	return s.offers("DELIVERBY") && (err != nil || by.Seconds(time.Now()) >= least)
}

// rcptCommand is RCPT TO with what the sender wants to hear of, where the host will see to it. What
// a sender did not say is not said for him (RFC 3461 §5.2.1).
func (s *session) rcptCommand(r relay.Recipient) string {
	command := "RCPT TO:" + r.Addr.Path()
	if !s.offers("DSN") {
		return command
	}
	if r.Notify != 0 {
		command += " NOTIFY=" + r.Notify.String()
	}
	if r.ORcpt != "" {
		// Decoded and coded anew: nothing a client wrote is passed on as it stood.
		command += " ORCPT=" + relay.FormatORcpt(r.ORcpt)
	}
	return command
}

// sendBody sends the letter and its final dot, and waits for the verdict on it.
func (s *session) sendBody(l *letter) (relay.Reply, error) {
	if _, err := l.body.Seek(0, io.SeekStart); err != nil {
		return relay.Reply{}, &bodyError{err}
	}
	out := &bodyWriter{c: s.conn, end: time.Now().Add(s.timeouts.body(l.size))}
	b := dataBuffers.Get().(*dataBuffer)
	defer b.release()
	b.out.Reset(out)
	d := &dataWriter{w: b.out}
	source := &bodyReader{r: l.body}
	copyBody := func() error { _, err := io.CopyBuffer(d, source, b.block[:]); return err }
	if s.converts(l) {
		copyBody = func() error { return l.seven.write(d, bodySeeker{source, l.body}) }
	}
	if err := copyBody(); err != nil {
		if source.err != nil {
			return relay.Reply{}, &bodyError{source.err}
		}
		return s.lastWords(err)
	}
	if err := d.Close(); err != nil {
		return relay.Reply{}, lost(phaseEnd, err)
	}
	s.transcript.note("the message, %d octets", s.sizeOf(l))
	a, err := s.read(phaseEnd)
	if err != nil {
		return relay.Reply{}, err
	}
	if a.code == 421 {
		return relay.Reply{}, refused(phaseEnd, a.reply())
	}
	return a.reply(), nil
}

// lastWords looks whether a host that stopped taking the letter has said why. It is over with
// this connection either way, and the letter has not arrived: its final dot was never sent.
func (s *session) lastWords(cause error) (relay.Reply, error) {
	s.broken = true
	if err := s.SetReadDeadline(time.Now().Add(s.timeouts.QUIT)); err != nil {
		return relay.Reply{}, lost(phaseBody, cause)
	}
	a, err := readAnswer(s.br)
	if err != nil || a.code/100 < 4 {
		return relay.Reply{}, lost(phaseBody, cause)
	}
	s.transcript.heard(a)
	if a.code == 421 {
		return relay.Reply{}, refused(phaseBody, a.reply())
	}
	return a.reply(), nil
}

// bodyError is a letter that cannot be read from our own disk. It says nothing about the host.
type bodyError struct{ err error }

func (e *bodyError) Error() string { return "mx: read the message: " + e.err.Error() }
func (e *bodyError) Unwrap() error { return e.err }

// bodySeeker is a bodyReader that begins again.
type bodySeeker struct {
	*bodyReader
	io.Seeker
}

// bodyReader remembers its error, to tell a failing disk from a failing connection.
type bodyReader struct {
	r   io.Reader
	err error
}

func (b *bodyReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err != nil && err != io.EOF {
		b.err = err
	}
	return n, err
}

// quit says goodbye and closes. Nothing depends on the answer.
func (s *session) quit() {
	defer s.Close()
	if s.broken {
		return
	}
	s.SetDeadline(time.Now().Add(s.timeouts.QUIT))
	if _, err := s.Write([]byte("QUIT\r\n")); err == nil {
		readAnswer(s.br)
	}
}
