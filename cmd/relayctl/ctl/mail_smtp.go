package ctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/smtp"
	"net/textproto"
	"slices"
	"strings"

	"relayd/relay"
)

// smtpReplies bounds all the octets an SMTP server may answer in a session, so that one that
// never ends its reply cannot fill the memory.
const smtpReplies = 4 << 20

// outgoing is a letter with its envelope, complete and checked.
type outgoing struct {
	from  relay.Address
	rcpts []relay.Address
	text  []byte // with CRLF line ends
}

// login is who sends. Where it is optional, a server on this machine that offers none may do
// without.
type login struct {
	user, password string
	optional       bool
}

// submission is an SMTP session.
type submission struct {
	*smtp.Client
	endpoint
	wire *wire
	tls  bool
}

// submit sends one letter to all its recipients or to none, and returns the server's answer to it.
func (e endpoint) submit(ctx context.Context, letter outgoing, who login) (string, error) {
	s, err := e.openSMTP(ctx)
	if err != nil {
		return "", err
	}
	defer s.Close()
	if err := s.login(who); err != nil {
		return "", err
	}
	reply, err := s.send(letter)
	if err != nil {
		return "", err
	}
	// The letter is the server's already, whatever it makes of this.
	_ = s.Quit()
	return reply, nil
}

// openSMTP connects, greets and starts TLS where the server offers it.
func (e endpoint) openSMTP(ctx context.Context) (*submission, error) {
	w, err := e.dial(ctx, smtpReplies)
	if err != nil {
		return nil, err
	}
	s, err := e.greet(ctx, w)
	if err != nil {
		w.Close()
		return nil, err
	}
	return s, nil
}

func (e endpoint) greet(ctx context.Context, w *wire) (*submission, error) {
	s := &submission{endpoint: e, wire: w, tls: e.transport.tls}
	conn := net.Conn(w)
	if s.tls {
		var err error
		if conn, err = e.handshake(ctx, w); err != nil {
			return nil, err
		}
	}
	host, _, _ := net.SplitHostPort(e.addr)
	var err error
	if s.Client, err = smtp.NewClient(conn, host); err != nil {
		return nil, fmt.Errorf("%s did not greet: %w", e.addr, smtpFailed(err))
	}
	if err := s.Hello(heloName(w)); err != nil {
		return nil, fmt.Errorf("%s refused EHLO: %w", e.addr, smtpFailed(err))
	}
	if offered, _ := s.Extension("STARTTLS"); offered && !s.tls {
		if err := s.StartTLS(e.tlsConfig(w)); err != nil {
			return nil, e.tlsFailed(err)
		}
		s.tls = true
	}
	return s, nil
}

// heloName is the address literal a client without a name of its own greets with (RFC 5321
// §4.1.4).
func heloName(w *wire) string {
	local, err := netip.ParseAddrPort(w.LocalAddr().String())
	if err != nil {
		return "localhost"
	}
	if ip := local.Addr().Unmap().WithZone(""); ip.Is4() {
		return "[" + ip.String() + "]"
	} else {
		return "[IPv6:" + ip.String() + "]"
	}
}

// login sends the password, under TLS or within this machine only.
func (s *submission) login(who login) error {
	offered, mechanisms := s.Extension("AUTH")
	switch {
	case who.user == "", who.optional && !offered && s.wire.loopback():
		return nil
	case !s.tls && !s.wire.loopback():
		return s.errPlain()
	case !slices.Contains(strings.Fields(strings.ToUpper(mechanisms)), "PLAIN"):
		return hint(fmt.Errorf("%s offers no login with a password here", s.addr),
			"it may want another port, such as that of submission; without --user nobody logs in")
	}
	if err := s.Auth(plainAuth{who.user, who.password}); err != nil {
		return fmt.Errorf("login as %s: %w", who.user, smtpFailed(err))
	}
	return nil
}

// plainAuth is SASL PLAIN (RFC 4616). That of net/smtp knows this machine by three names only.
type plainAuth struct{ user, password string }

func (p plainAuth) Start(*smtp.ServerInfo) (string, []byte, error) {
	return "PLAIN", []byte("\x00" + p.user + "\x00" + p.password), nil
}

func (p plainAuth) Next(_ []byte, more bool) ([]byte, error) {
	if more {
		return nil, errors.New("the server asks for more than name and password")
	}
	return nil, nil
}

// send plays MAIL, RCPT and DATA. A recipient refused means that nobody gets anything, so that the
// letter can be sent again without anybody getting it twice.
func (s *submission) send(letter outgoing) (string, error) {
	parameters, err := s.parameters(letter)
	if err != nil {
		return "", err
	}
	if _, err := s.command(250, "MAIL FROM:%s%s", letter.from.Path(), parameters); err != nil {
		return "", fmt.Errorf("the sender %s was refused, nothing was sent: %w", letter.from, err)
	}
	var refused []error
	for _, rcpt := range letter.rcpts {
		// 251 is a promise too (RFC 5321 §3.4).
		if _, err := s.command(25, "RCPT TO:%s", rcpt.Path()); err != nil {
			refused = append(refused, fmt.Errorf("%s was refused: %w", rcpt, err))
		}
	}
	if len(refused) > 0 {
		return "", errors.Join(append(refused, errors.New("nothing was sent to anybody"))...)
	}
	return s.data(letter.text)
}

// data sends the letter; net/smtp would keep the answer to itself.
func (s *submission) data(text []byte) (string, error) {
	if _, err := s.command(354, "DATA"); err != nil {
		return "", fmt.Errorf("the letter was refused: %w", err)
	}
	s.wire.patience = acceptPatience
	w := s.Text.DotWriter()
	if _, err := w.Write(text); err != nil {
		return "", fmt.Errorf("sending the letter: %w", err)
	}
	if err := w.Close(); err != nil {
		return "", fmt.Errorf("sending the letter: %w", err)
	}
	reply, err := s.answer(250)
	s.wire.patience = wirePatience
	if err != nil {
		return "", fmt.Errorf("the letter was refused: %w", err)
	}
	return reply, nil
}

// command leaves the counted pipeline of Text alone: net/smtp waits in it for its own turn.
func (s *submission) command(code int, format string, args ...any) (string, error) {
	if err := s.Text.PrintfLine(format, args...); err != nil {
		return "", err
	}
	return s.answer(code)
}

// answer reads a reply, which must be of that code or of a code that begins so.
func (s *submission) answer(code int) (string, error) {
	got, text, err := s.Text.ReadResponse(code)
	if err != nil {
		return "", smtpFailed(err)
	}
	return fmt.Sprintf("%d %s", got, text), nil
}

// smtpFailed shows a refusal as the server wrote it.
func smtpFailed(err error) error {
	if e, ok := errors.AsType[*textproto.Error](err); ok {
		return fmt.Errorf("%d %s", e.Code, e.Msg)
	}
	return err
}

// parameters are those of MAIL. SMTPUTF8 is asked for only where it is needed: the letter could
// never go on to a server without it (RFC 6531 §3.4).
func (s *submission) parameters(letter outgoing) (string, error) {
	p := ""
	if ok, _ := s.Extension("SIZE"); ok {
		p += fmt.Sprintf(" SIZE=%d", len(letter.text))
	}
	if ok, _ := s.Extension("8BITMIME"); ok && bytes.ContainsFunc(letter.text, func(r rune) bool { return r >= 0x80 }) {
		p += " BODY=8BITMIME"
	}
	for _, addr := range append([]relay.Address{letter.from}, letter.rcpts...) {
		if addr.IsASCII() {
			continue
		}
		if ok, _ := s.Extension("SMTPUTF8"); !ok {
			return "", fmt.Errorf("%s does not know addresses such as %s (no SMTPUTF8), nothing was sent", s.addr, addr)
		}
		return p + " SMTPUTF8", nil
	}
	return p, nil
}
