package pop3

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"strings"
)

// mechanism is a way to prove who one is (RFC 4422). It answers the client in every case.
type mechanism struct {
	name string
	run  func(s *session, ctx context.Context, x *exchange)
}

var mechanisms = []mechanism{
	{"PLAIN", (*session).plain},
	{"LOGIN", (*session).loginMechanism},
}

// mechanismNames is what CAPA says after SASL.
func mechanismNames() string {
	var names []string
	for _, m := range mechanisms {
		names = append(names, m.name)
	}
	return strings.Join(names, " ")
}

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
		for _, m := range mechanisms {
			s.writeString(m.name + "\r\n")
		}
		s.writeString(".\r\n")
		return
	}
	for _, m := range mechanisms {
		if strings.EqualFold(m.name, name) {
			m.run(s, ctx, &exchange{session: s, initial: initial, begun: found})
			return
		}
	}
	s.wrong(none, textNoMechanism, mechanismNames())
}

// exchange is one AUTH: challenges go out, responses come in.
type exchange struct {
	session *session
	initial string
	begun   bool // initial is the client's first response
}

// ask returns the client's response to a challenge. If there is none, it has told the client why.
func (x *exchange) ask(challenge string) (response []byte, ok bool) {
	if x.begun {
		x.begun = false
		if x.initial == "=" { // how an empty one is written (RFC 5034 §4)
			return nil, true
		}
		return x.decode(x.initial)
	}
	s := x.session
	s.writeString("+ " + base64.StdEncoding.EncodeToString([]byte(challenge)) + "\r\n")
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

// plain is PLAIN (RFC 4616).
func (s *session) plain(ctx context.Context, x *exchange) {
	response, ok := x.ask("")
	if !ok {
		return
	}
	parts := bytes.Split(response, []byte{0})
	if len(parts) != 3 {
		s.wrong(none, textPlainSyntax)
		return
	}
	authzid, name, password := string(parts[0]), string(parts[1]), string(parts[2])
	if authzid != "" && authzid != name {
		// Nobody may read as somebody else; the answer is that of a wrong password.
		s.denied(ctx, name)
		return
	}
	s.login(ctx, name, password)
}

// loginMechanism is LOGIN (draft-murchison-sasl-login): name and password are asked for in turn.
// Clients that send the name as the initial response are obliged.
func (s *session) loginMechanism(ctx context.Context, x *exchange) {
	name, ok := x.ask("Username:")
	if !ok {
		return
	}
	// Outlives the line it was read from, which ask overwrites.
	who := string(name)
	password, ok := x.ask("Password:")
	switch {
	case !ok:
	case strings.ContainsRune(who, 0) || bytes.IndexByte(password, 0) >= 0:
		s.denied(ctx, who)
	default:
		s.login(ctx, who, string(password))
	}
}
