package mx

import (
	"errors"

	"relayd/relay"
)

// requireTLSSource is who asks for what a letter with REQUIRETLS wants.
const requireTLSSource = "REQUIRETLS"

// requireTLS says what t must prove before it gets a letter with REQUIRETLS, after require has said what the
// domain or a route wants, or err: that it is a mail host of the domain, by DNSSEC, MTA-STS or our own
// configuration, and its name, by DANE or a certificate that we trust (RFC 8689 §4.2.1).
func (p plan) requireTLS(t target, err error) (security, error) {
	if err != nil {
		return t.need, err
	}
	if t.need.level == levelClear {
		return t.need, &policyError{source: requireTLSSource, text: "a route says that it is used without TLS"}
	}
	named := t.via != nil || t.signed || p.domain.IsLiteral() || p.sts.Allows(relay.Domain(t.name))
	if !named {
		e := &policyError{source: requireTLSSource, text: "neither DNSSEC nor an MTA-STS policy says that it is a mail host of " + string(p.domain)}
		if p.sts.Problem != "" {
			e.text, e.passing = "the MTA-STS policy of "+string(p.domain)+" cannot be fetched", true
		}
		return t.need, e
	}
	need := t.need
	if need.level < levelVerify {
		need.level = levelVerify
		if need.source != "" {
			need.source += ", "
		}
		need.source += requireTLSSource
	}
	return need, nil
}

// finalLoss is the reply for a letter with REQUIRETLS that t can never be given as it is today; the zero
// Reply: it may do better later, as a host that is down may. Such a letter does not wait for TLS to be
// mended: its writer is told (RFC 8689 §4.2.1).
func (l *letter) finalLoss(t target, err error) relay.Reply {
	if !l.env.RequireTLS {
		return relay.Reply{}
	}
	loss, _ := errors.AsType[*lossError](err)
	e, forbidden := errors.AsType[*policyError](err)
	text := ""
	switch {
	case forbidden && !e.passing:
		text = lossReply(phasePolicy, t.String(), e).Text
	case loss != nil && loss.phase == phaseSTARTTLS && loss.reply.Code/100 == 5:
		text = t.String() + " refuses STARTTLS (" + requireTLSSource + " asks for it): " + loss.reply.String()
	default:
		return relay.Reply{}
	}
	return relay.Reply{Code: 550, Status: relay.Status{5, 7, 10}, Text: text}
}

// keepsTLS says whether a letter with REQUIRETLS may go over the session: under TLS, to a host that promises
// to do alike, or over LMTP within this machine, which is delivery and not transport.
func (s *session) keepsTLS() bool {
	t := s.target
	if t.via != nil && t.via.LMTP && (t.socket || t.addr.Addr().IsLoopback()) {
		return true
	}
	return s.tls != "" && s.offers(requireTLSSource)
}
