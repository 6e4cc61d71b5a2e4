package sasl

import (
	"context"
	"crypto/tls"

	"relayd/relay"
)

// scram: where nobody has a verifier it is not offered, because many clients take the strongest
// mechanism they see and do not try another.
func (s Session) scram() bool {
	auth, ok := s.Auth.(relay.ScramAuthenticator)
	return ok && auth.HasScram()
}

// plus: tls-exporter is the binding that clients take under TLS 1.3 (RFC 9266 §3). Under TLS 1.2
// they take tls-unique, which does not bind enough (RFC 7627 §1), and get the mechanism without.
func (s Session) plus() bool { return s.scram() && len(s.exporter()) > 0 }

// exporter is the connection's tls-exporter (RFC 9266 §2).
func (s Session) exporter() []byte {
	if s.TLS == nil || s.TLS.Version < tls.VersionTLS13 {
		return nil
	}
	data, err := s.TLS.ExportKeyingMaterial("EXPORTER-Channel-Binding", nil, 32)
	if err != nil {
		return nil
	}
	return data
}

func (s Session) scramFirst(plus bool) step {
	exchange := s.Auth.(relay.ScramAuthenticator).Scram(s.Client, relay.ChannelBinding{Exporter: s.exporter(), Required: plus})
	return func(_ context.Context, x *Exchange, message []byte) (string, step, error) {
		reply, err := exchange.First(string(message))
		x.name = exchange.Name()
		return reply, scramFinal(exchange), err
	}
}

func scramFinal(exchange relay.ScramExchange) step {
	return func(ctx context.Context, x *Exchange, message []byte) (string, step, error) {
		reply, who, err := exchange.Final(ctx, string(message))
		return reply, scramEnd(who), err
	}
}

// scramEnd: the server's proof goes out as a challenge, which the client answers with nothing.
// Neither SMTP nor POP3 can carry it with the success (RFC 4954 §4, RFC 5034 §4).
func scramEnd(who relay.Address) step {
	return func(_ context.Context, x *Exchange, message []byte) (string, step, error) {
		if len(message) > 0 {
			return "", nil, relay.ErrLoginSyntax
		}
		x.who = who
		return "", nil, nil
	}
}
