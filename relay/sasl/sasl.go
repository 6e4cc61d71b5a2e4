// Package sasl is how a client proves who it is (RFC 4422): the mechanisms PLAIN (RFC 4616), LOGIN
// and, where somebody has a verifier for it, SCRAM-SHA-256 with its -PLUS (RFC 7677, 9266).
// relay/smtpd and pop3 carry the messages of an Exchange to and fro, each in its own wrapping, and
// an Authenticator such as relay/users decides. It knows nothing of whether a password may cross
// the line: whoever asks it must have looked.
package sasl

import (
	"bytes"
	"context"
	"crypto/tls"
	"net/netip"
	"strings"

	"relayd/relay"
)

// maxMessage is the longest message of a client that is looked at, in octets: two names and a
// password fit, all as long as they may be. An exchange remembers no more than two of them.
const maxMessage = 4096

// Session is what the mechanisms know of a connection.
type Session struct {
	Auth   relay.Authenticator
	Client netip.Addr
	TLS    *tls.ConnectionState // nil: in the clear
}

// mechanism is one way to log in. Its run is a conversation in the order of RFC 4422 §3.
type mechanism struct {
	name  string
	offer func(s Session) bool
	start func(s Session) step
}

// step answers one message of the client, and names the next step; nil: it was the last.
type step func(ctx context.Context, x *Exchange, message []byte) (challenge string, next step, err error)

// The mechanisms in the order we list them. Clients that take the first they know get what always
// worked.
var mechanisms = []mechanism{
	{"PLAIN", always, func(Session) step { return plain }},
	{"LOGIN", always, func(Session) step { return loginName }},
	{"SCRAM-SHA-256", Session.scram, func(s Session) step { return s.scramFirst(false) }},
	{"SCRAM-SHA-256-PLUS", Session.plus, func(s Session) step { return s.scramFirst(true) }},
}

func always(Session) bool { return true }

// Mechanisms are the names of those that can work on this connection.
func (s Session) Mechanisms() []string {
	var names []string
	for _, m := range mechanisms {
		if m.offer(s) {
			names = append(names, m.name)
		}
	}
	return names
}

// Start begins a login by the mechanism of that name, in any case; nil where it is not offered.
func (s Session) Start(name string) *Exchange {
	for _, m := range mechanisms {
		if strings.EqualFold(m.name, name) && m.offer(s) {
			return &Exchange{session: s, next: m.start(s), prompt: m.name == "LOGIN"}
		}
	}
	return nil
}

// Exchange is one login. It belongs to one goroutine.
type Exchange struct {
	session Session
	next    step
	prompt  bool // the server speaks first
	begun   bool
	over    bool
	name    string
	who     relay.Address
}

// Next takes a message of the client, nil where it has sent none yet, and returns the challenge to
// send; done says that the client is in and there is none. Errors are relay.ErrDenied,
// relay.ErrLoginSyntax and temporary ones, such as the *relay.Failure of the throttle; after one,
// and after done, the exchange is over.
func (x *Exchange) Next(ctx context.Context, message []byte) (challenge []byte, done bool, err error) {
	switch {
	case x.over, len(message) > maxMessage:
		x.over = true
		return nil, false, relay.ErrLoginSyntax
	case message == nil && !x.begun:
		x.begun = true
		if x.prompt {
			return []byte(promptName), false, nil
		}
		return []byte{}, false, nil
	}
	x.begun = true
	text, next, err := x.next(ctx, x, message)
	if err != nil || next == nil {
		x.over = true
		return nil, err == nil, err
	}
	x.next = next
	return []byte(text), false, nil
}

// Name is what the client calls itself; empty where it has not yet. It is a stranger's text.
func (x *Exchange) Name() string { return x.name }

// Who is whose mailbox the login opens, once it is done.
func (x *Exchange) Who() relay.Address { return x.who }

// password ends an exchange that brought a password.
func (x *Exchange) password(ctx context.Context, password string) (string, step, error) {
	// A NUL could cut a name or a password short somewhere behind us.
	if strings.ContainsRune(x.name, 0) || strings.ContainsRune(password, 0) {
		return "", nil, relay.ErrDenied
	}
	who, err := x.session.Auth.Authenticate(ctx, x.name, password, x.session.Client)
	x.who = who
	return "", nil, err
}

func plain(ctx context.Context, x *Exchange, message []byte) (string, step, error) {
	parts := bytes.Split(message, []byte{0})
	if len(parts) != 3 {
		return "", nil, relay.ErrLoginSyntax
	}
	as := string(parts[0])
	x.name = string(parts[1])
	if as != "" && as != x.name {
		// Nobody may act as somebody else; the answer is that of a wrong password.
		return "", nil, relay.ErrDenied
	}
	return x.password(ctx, string(parts[2]))
}

// The prompts of LOGIN (draft-murchison-sasl-login): old clients look for these words.
const (
	promptName     = "Username:"
	promptPassword = "Password:"
)

// loginName takes the name, which some clients send at once.
func loginName(_ context.Context, x *Exchange, message []byte) (string, step, error) {
	x.name = string(message)
	return promptPassword, loginPassword, nil
}

func loginPassword(ctx context.Context, x *Exchange, message []byte) (string, step, error) {
	return x.password(ctx, string(message))
}
