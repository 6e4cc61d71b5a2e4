package smtpd

import (
	"errors"
	"strings"

	"github.com/emersion/go-sasl"

	"relayd/relay"
)

// logIn asks the Authenticator; on success the rest of the session is the user's.
func (g *guard) logIn(name, password string) error {
	if g.set.profile.Lenient {
		name, password = trimmed(name), trimmed(password)
	}
	if strings.ContainsRune(name, 0) || strings.ContainsRune(password, 0) {
		return relay.ErrDenied
	}
	who, err := g.srv.auth.Authenticate(g.srv.ctx, name, password, g.peer.client.Addr())
	if err != nil {
		return err
	}
	g.user = who.String()
	return nil
}

// exchange runs a SASL mechanism for go-smtp and gives its outcome the right reply (RFC 4954 §6).
type exchange struct {
	g    *guard
	mech sasl.Server
}

// Next implements sasl.Server.
func (x *exchange) Next(response []byte) (challenge []byte, done bool, err error) {
	challenge, done, err = x.mech.Next(response)
	switch {
	case err == nil && done:
		x.g.answer = &replyLoggedIn
		return nil, true, nil
	case err == nil:
		return challenge, false, nil
	}
	r := x.g.loginRefusal(err, done)
	x.g.answer = &r
	return nil, false, engineError(r)
}

// loginRefusal tells wrong credentials from trouble of our own and from a malformed exchange.
// asked says that the mechanism got as far as asking.
func (g *guard) loginRefusal(err error, asked bool) relay.Reply {
	r := say(454, "4.7.0", "logging in does not work at the moment, please try again later")
	f, isFailure := errors.AsType[*relay.Failure](err)
	switch {
	case errors.Is(err, relay.ErrDenied):
		g.failures++
		g.because("name or password wrong")
		r = say(535, "5.7.8", relay.ErrDenied.Error())
	case isFailure:
		// Such as the refusal of somebody who guesses: who goes on asking is sent away.
		g.failures++
		r, _ = replyTo(f)
	case !asked:
		g.failures++
		return replyBadAuth
	default:
		g.log.Error("login failed", "client", g.peer.client, "err", err)
	}
	g.log.Info("refused", "client", g.peer.client, "helo", g.peer.helo, "code", r.Code, "reason", "login")
	return r
}

// loginServer is the server side of the LOGIN mechanism, which go-sasl lacks: name and password
// each asked for in turn (draft-murchison-sasl-login).
type loginServer struct {
	check    func(name, password string) error
	name     string
	haveName bool
	asked    bool
}

// Next implements sasl.Server.
func (l *loginServer) Next(response []byte) (challenge []byte, done bool, err error) {
	switch {
	case response == nil && !l.asked:
		l.asked = true
		return []byte("Username:"), false, nil
	case !l.haveName:
		l.name, l.haveName = string(response), true
		return []byte("Password:"), false, nil
	}
	return nil, true, l.check(l.name, string(response))
}
