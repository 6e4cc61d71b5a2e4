package mx

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"strings"

	"relayd/relay"
)

// maxReason bounds what a report to a stranger says of an error, in octets.
const maxReason = 200

// watch tells what the connections of one attempt show of TLS (RFC 8460). A nil watch tells nobody.
type watch struct {
	tell    func(relay.TLSSession)
	letter  *letter
	plan    plan
	domain  relay.Domain // whom it concerns: the recipients', or the smarthost
	problem bool         // that the policy cannot be fetched has been told
}

type watchKey struct{}

// watching makes the sessions of an attempt tell what they see, in the way of transcript.
func (c *Client) watching(ctx context.Context, l *letter, p plan, via *Route) context.Context {
	w := &watch{tell: c.cfg.Sessions, letter: l, plan: p, domain: p.domain}
	if via != nil && via.Via != "" {
		w.domain = via.Via
	}
	if w.tell == nil || w.domain.IsLiteral() {
		return ctx
	}
	return context.WithValue(ctx, watchKey{}, w)
}

func watchOf(ctx context.Context) *watch {
	w, _ := ctx.Value(watchKey{}).(*watch)
	return w
}

// note tells of a connection to t, which is nil where a policy forbade it. Without a result it went well.
//
// A letter that waives TLS is not counted: its sessions are held against nothing. Reports are such letters,
// and if they were counted, two servers would report to each other about their reports for ever.
func (w *watch) note(t target, c net.Conn, result, reason string) {
	if w == nil || w.letter.waivesTLS() {
		return
	}
	s := relay.TLSSession{Domain: w.domain, Policy: w.policy(t)}
	if w.plan.sts.Problem != "" && !w.problem {
		w.problem = true
		w.tell(relay.TLSSession{Domain: w.domain, Policy: w.sts(), Failure: relay.TLSFailure{Result: w.plan.sts.Problem}})
	}
	if result != "" {
		s.Failure = relay.TLSFailure{Result: result, Host: t.name, Remote: t.addr.Addr(), Reason: clip(printable(reason), maxReason)}
		if c != nil {
			local, _ := netip.ParseAddrPort(c.LocalAddr().String())
			s.Failure.Local = local.Addr().Unmap()
		}
	}
	w.tell(s)
}

// failed is note for an error of require, of a handshake or of a certificate.
func (w *watch) failed(t target, c net.Conn, err error) {
	result, reason := tlsResult(err)
	if e, ok := errors.AsType[*policyError](err); ok && c == nil {
		if e.source == requireTLSSource {
			return // the domain promises nothing that it does not keep
		}
		t.need.source = e.source // what forbade the connection is what it was held against
	}
	w.note(t, c, result, reason)
}

// policy is what the sessions with t are held against.
func (w *watch) policy(t target) relay.TLSPolicy {
	switch {
	case strings.HasPrefix(t.need.source, "dane"):
		base, _, _ := strings.Cut(t.need.names, " ")
		if base == "" {
			base = t.name
		}
		p := relay.TLSPolicy{Type: relay.TLSPolicyTLSA, Domain: relay.Domain(base)}
		if t.need.tlsa != "" {
			p.Text = strings.Split(t.need.tlsa, "\n")
		}
		return p
	case strings.HasPrefix(t.need.source, "mta-sts"):
		return w.sts()
	}
	return relay.TLSPolicy{Type: relay.TLSPolicyNone, Domain: w.domain}
}

func (w *watch) sts() relay.TLSPolicy {
	return relay.TLSPolicy{Type: relay.TLSPolicySTS, Domain: w.domain, Text: w.plan.sts.Lines(), MX: w.plan.sts.MX}
}

// tlsResult is err in a word of RFC 8460 §4.3, and in its own.
func tlsResult(err error) (result, reason string) {
	reason = lossText(err)
	if e, ok := errors.AsType[*policyError](err); ok {
		if e.result != "" {
			return e.result, e.text
		}
		if e.err != nil {
			err, reason = e.err, lossText(e.err)
		}
	}
	invalid, isInvalid := errors.AsType[x509.CertificateInvalidError](err)
	_, stranger := errors.AsType[x509.UnknownAuthorityError](err)
	_, host := errors.AsType[x509.HostnameError](err)
	switch {
	case host:
		return relay.TLSWrongHost, reason
	case isInvalid && invalid.Reason == x509.Expired:
		return relay.TLSExpired, reason
	case stranger:
		return relay.TLSNotTrusted, reason
	}
	return relay.TLSInvalid, reason
}

// noteTLS tells what a handshake that went through has shown.
func (s *session) noteTLS(w *watch, shown *proof) {
	n := s.target.need
	switch {
	case strings.HasPrefix(n.source, daneUnusable):
		w.note(s.target, s.conn, relay.TLSBadTLSA, "no TLSA record is of use")
	case n.level == levelTesting && n.source != stsTesting:
		w.note(s.target, s.conn, relay.TLSInvalid, notInPolicy)
	case n.level == levelTesting && shown.err != nil:
		w.failed(s.target, s.conn, shown.err)
	default:
		w.note(s.target, s.conn, "", "")
	}
}
