package pop3

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"strings"

	"relayd/relay/sasl"
)

// logins are the mechanisms as they are on this connection now.
func (s *session) logins() sasl.Session {
	l := sasl.Session{Auth: s.server.cfg.Auth, Client: s.client.Addr()}
	if conn, ok := s.conn.(*tls.Conn); ok {
		state := conn.ConnectionState()
		l.TLS = &state
	}
	return l
}

// mechanismNames is what CAPA says after SASL.
func (s *session) mechanismNames() string { return strings.Join(s.logins().Mechanisms(), " ") }

// auth implements AUTH (RFC 5034), with or without an initial response. AUTH alone lists the
// mechanisms, which is older than the RFC and still asked by some clients.
func (s *session) auth(ctx context.Context, arg string) {
	name, initial, found := strings.Cut(arg, " ")
	switch {
	case !s.mayLogin():
		s.wrong(badLogin, textNeedTLS)
		return
	case arg == "":
		s.ok(textMechanisms)
		for _, name := range s.logins().Mechanisms() {
			s.writeString(name + "\r\n")
		}
		s.writeString(".\r\n")
		return
	}
	login := s.logins().Start(name)
	if login == nil {
		s.wrong(none, textNoMechanism, s.mechanismNames())
		return
	}
	s.converse(ctx, login, &exchange{session: s, initial: initial, begun: found})
}

// converse carries the messages of a login to and fro.
func (s *session) converse(ctx context.Context, login *sasl.Exchange, x *exchange) {
	var response []byte
	if x.begun {
		var ok bool
		if response, ok = x.ask(nil); !ok {
			return
		}
	}
	for {
		challenge, done, err := login.Next(ctx, response)
		if err != nil || done {
			s.enter(ctx, login.Name(), login.Who(), err)
			return
		}
		var ok bool
		if response, ok = x.ask(challenge); !ok {
			return
		}
	}
}

// exchange is one AUTH: challenges go out, responses come in.
type exchange struct {
	session *session
	initial string
	begun   bool // initial is the client's first response
}

// ask returns the client's response to a challenge. If there is none, it has told the client why.
func (x *exchange) ask(challenge []byte) (response []byte, ok bool) {
	if x.begun {
		x.begun = false
		if x.initial == "=" { // how an empty one is written (RFC 5034 §4)
			return []byte{}, true
		}
		return x.decode(x.initial)
	}
	s := x.session
	s.writeString("+ " + base64.StdEncoding.EncodeToString(challenge) + "\r\n")
	line, _, err := s.readLine(maxAnswer, s.deadline())
	switch {
	case errors.Is(err, errLongLine):
		s.wrong(none, textLongLine)
	case err != nil:
		s.over = true
	case string(line) == "*":
		s.err(none, textCancelled)
	default:
		return x.decode(string(line))
	}
	return nil, false
}

func (x *exchange) decode(text string) (response []byte, ok bool) {
	// The decoder would skip line ends.
	response, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || strings.ContainsAny(text, "\r\n") {
		x.session.wrong(none, textBase64)
		return nil, false
	}
	return response, true
}
