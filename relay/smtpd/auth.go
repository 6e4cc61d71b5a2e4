package smtpd

import (
	"context"
	"errors"
	"net/netip"

	"relayd/relay"
	"relayd/relay/sasl"
)

// logins are the mechanisms as they are on this connection now.
func (g *guard) logins() sasl.Session {
	auth := g.srv.auth
	if g.set.profile.Lenient {
		auth = lenientClerk{auth}
	}
	return sasl.Session{Auth: auth, Client: g.peer.client.Addr(), TLS: g.secure}
}

// lenientClerk hides what careless programs encode along with name and password, and SCRAM, which
// forgives nothing.
type lenientClerk struct{ strict relay.Authenticator }

// Authenticate implements relay.Authenticator.
func (l lenientClerk) Authenticate(ctx context.Context, name, password string, client netip.Addr) (relay.Address, error) {
	return l.strict.Authenticate(ctx, trimmed(name), trimmed(password), client)
}

// exchange runs a SASL mechanism for go-smtp and gives its outcome the right reply (RFC 4954 §6).
type exchange struct {
	g     *guard
	login *sasl.Exchange
}

// Next implements the Server of go-sasl. On success the rest of the session is the user's.
func (x *exchange) Next(response []byte) (challenge []byte, done bool, err error) {
	challenge, done, err = x.login.Next(x.g.srv.ctx, response)
	switch {
	case err == nil && done:
		x.g.user, x.g.answer = x.login.Who().String(), &replyLoggedIn
		x.g.log.Info("logged in", "client", x.g.peer.client, "user", x.g.user)
		return nil, true, nil
	case err == nil:
		return challenge, false, nil
	}
	r := x.g.loginRefusal(err)
	x.g.answer = &r
	return nil, false, engineError(r)
}

// loginRefusal tells wrong credentials from trouble of our own and from a malformed exchange.
func (g *guard) loginRefusal(err error) relay.Reply {
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
	case errors.Is(err, relay.ErrLoginSyntax):
		g.failures++
		return replyBadAuth
	default:
		g.log.Error("login failed", "client", g.peer.client, "err", err)
	}
	g.log.Info("refused", "client", g.peer.client, "helo", g.peer.helo, "code", r.Code, "reason", "login")
	return r
}
