package relay

import (
	"context"
	"errors"
	"net/netip"
)

// ErrLoginSyntax is a login whose messages are malformed; it says nothing of name or password.
var ErrLoginSyntax = errors.New("the login is malformed")

// ScramAuthenticator is an Authenticator that keeps verifiers for SCRAM-SHA-256 (RFC 5802, 7677).
// relay/users implements it; relay/sasl asks.
type ScramAuthenticator interface {
	Authenticator
	// HasScram says whether anybody can log in by SCRAM; where nobody can, it is not offered.
	HasScram() bool
	// Scram begins one exchange with a client.
	Scram(client netip.Addr, binding ChannelBinding) ScramExchange
}

// APOPAuthenticator is an Authenticator that keeps secrets for APOP (RFC 1939 §7). relay/users
// implements it; pop3 asks.
type APOPAuthenticator interface {
	Authenticator
	// HasAPOP says whether anybody can log in by APOP; where nobody can, it is not offered.
	HasAPOP() bool
	// APOP returns the mailbox that a digest opens, the MD5 of challenge and secret in hexadecimal.
	// Errors are those of Authenticate.
	APOP(ctx context.Context, name, challenge, digest string, client netip.Addr) (Address, error)
}

// ChannelBinding ties a login to the TLS connection it goes over, so that somebody in the middle
// with a certificate of their own cannot pass it on.
type ChannelBinding struct {
	// Exporter is the tls-exporter of the connection (RFC 9266 §2), 32 octets; empty where the
	// -PLUS mechanism is not offered.
	Exporter []byte
	// Required says that the client has chosen the -PLUS mechanism.
	Required bool
}

// ScramExchange is one login by SCRAM: First, then Final. It belongs to one goroutine. Errors are
// ErrDenied, ErrLoginSyntax, and temporary ones as of Authenticate.
type ScramExchange interface {
	// First takes the client's first message and answers it alike whoever it names.
	First(message string) (reply string, err error)
	// Final takes the client's proof, and returns ours and whose mailbox it opens.
	Final(ctx context.Context, message string) (reply string, who Address, err error)
	// Name is what the client calls itself; empty before First.
	Name() string
}
