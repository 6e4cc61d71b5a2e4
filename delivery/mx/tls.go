package mx

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"relayd/relay"
)

// The values of Route.TLS. The empty one leaves it to what the domain asks for, and is
// opportunistic where it asks for nothing.
const (
	TLSNone   = "none"   // never
	TLSMay    = "may"    // where it is offered; mail that arrives in the clear beats mail that does not (RFC 7435)
	TLSVerify = "verify" // with a certificate for the host's name, or not at all
	TLSDANE   = "dane"   // with one that DNSSEC vouches for, or not at all
)

// Memory remembers which hosts had TLS, and when they had it last. relay/known is one.
type Memory interface {
	Note(host relay.Domain, at time.Time)
	Last(host relay.Domain) (day time.Time, ok bool)
}

// Policies knows what domains say about TLS to their hosts (RFC 8461). delivery/mtasts does. Find
// may take as long as a fetch from a web server; the zero policy is that of a domain without one.
type Policies interface {
	Find(ctx context.Context, d relay.Domain) relay.STSPolicy
}

// memoryHolds is for how long a host that had TLS and has it no more is worth a word.
const memoryHolds = 60 * 24 * time.Hour

// level is how much a connection must prove before mail goes over it.
type level int

const (
	levelMay level = iota // nothing
	levelClear
	levelTesting // nothing, but it is told
	levelEncrypt // TLS
	levelVerify
	levelDANE
)

// security is what is asked of one host. It is part of the target, so that a session which was
// opened with less is never reused for a letter that needs more.
type security struct {
	level  level
	source string // who asks for it, for people; empty: nobody
	names  string // with TLSA records: the host's, divided by blanks; the first is their base domain, and for SNI
	tlsa   string // and the records, as encodeTLSA has them
}

// mandatory says that no mail goes to the host unless TLS proves what is asked.
func (n security) mandatory() bool { return n.level >= levelEncrypt }

// plan is how the hosts of one domain are dealt with in one attempt.
type plan struct {
	tls    string // Route.TLS
	domain relay.Domain
	sts    relay.STSPolicy
}

// plan says how much TLS it takes by a route, which may be nil, or else by the policy of the domain.
// Where we log in, a certificate has to prove who hears the password, unless the route says in so
// many words that it need not. A letter with REQUIRETLS needs the policy whatever the route says.
func (c *Client) plan(ctx context.Context, d relay.Domain, via *Route, requireTLS bool) (p plan) {
	p.domain = d
	if via != nil {
		p.tls = via.TLS
		if via.User != "" && via.TLS == "" {
			p.tls = TLSVerify
		}
	}
	// What a domain says is about its own hosts, not about a host of ours that leads there.
	if (p.tls == "" || requireTLS) && (via == nil || via.Via == "") && c.cfg.Policies != nil {
		p.sts = c.cfg.Policies.Find(ctx, d)
	}
	return p
}

// require says what t must prove. An error means that no mail may go there now.
func (c *Client) require(ctx context.Context, p plan, t target) (security, error) {
	switch p.tls {
	case TLSNone:
		return security{level: levelClear, source: "route"}, nil
	case TLSMay:
		return security{level: levelMay, source: "route"}, nil
	case TLSVerify:
		return security{level: levelVerify, source: "route"}, nil
	}
	need, found, err := c.dane(ctx, p, t)
	switch {
	case err != nil:
		return security{}, err
	case p.tls == TLSDANE && need.level != levelDANE:
		return security{}, &policyError{source: "route", text: "it has no usable TLSA record that DNSSEC vouches for", result: relay.TLSNoDANE}
	case need.level == levelDANE:
		return need, nil // which an MTA-STS policy neither weakens nor replaces (RFC 8461 §2)
	case found && p.sts.Mode != relay.STSEnforce:
		return need, nil
	}
	return p.mtasts(t)
}

// mtasts says what the policy of the domain asks of t.
func (p plan) mtasts(t target) (security, error) {
	allowed := p.sts.Allows(relay.Domain(t.name))
	switch {
	case p.sts.Mode == relay.STSEnforce && !allowed:
		return security{}, &policyError{source: "mta-sts", text: notInPolicy, result: relay.TLSInvalid}
	case p.sts.Mode == relay.STSEnforce:
		return security{level: levelVerify, source: "mta-sts"}, nil
	case p.sts.Mode == relay.STSTesting && !allowed:
		return security{level: levelTesting, source: stsTesting + ", not among the hosts of the policy"}, nil
	case p.sts.Mode == relay.STSTesting:
		return security{level: levelTesting, source: stsTesting}, nil
	}
	return security{}, nil
}

// What results and reports say of a policy.
const (
	stsTesting   = "mta-sts testing"
	daneUnusable = "dane, no usable record"
	notInPolicy  = "it is not among the hosts of its domain's policy"
)

// policyError is a host that cannot be trusted with the letter, whatever else it says.
type policyError struct {
	source string // who asks for it
	text   string
	result string // in a word of RFC 8460 §4.3; empty: err tells
	err    error

	passing bool // it says nothing of the host: a later attempt may find out more
}

func (e *policyError) Error() string {
	s := e.text + " (" + e.source + " asks for it)"
	if e.err != nil {
		s += ": " + lossText(e.err)
	}
	return s
}

func (e *policyError) Unwrap() error { return e.err }

// proof is what a handshake has shown.
type proof struct {
	need security
	err  error // why the certificate proves nothing; nil: it does
}

// String is what stands behind the cipher in a Result: ", verified (mta-sts)".
func (p *proof) String() string {
	s := ", verified"
	if p.err != nil {
		s = ", unverified"
	}
	if p.need.source != "" {
		s += " (" + p.need.source + ")"
	}
	return s
}

// tlsConfig is for a connection to t. The certificate is looked at in any case, because a Result
// tells what it was worth; it ends the handshake where t must prove itself.
func (c *Client) tlsConfig(t target) (*tls.Config, *proof) {
	cfg := c.cfg.TLS.Clone()
	cfg.ServerName = t.name
	if t.need.level == levelDANE {
		cfg.ServerName, _, _ = strings.Cut(t.need.names, " ")
	}
	p := &proof{need: t.need}
	cfg.InsecureSkipVerify = true // VerifyConnection does it
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		if p.err = t.check(cs, cfg.RootCAs); p.err == nil || t.need.level < levelVerify {
			return nil
		}
		return &policyError{source: t.need.source, text: "its certificate does not prove that it is " + t.name, err: p.err}
	}
	return cfg, p
}

// check says whether the certificate of a connection proves that it leads to t.
func (t target) check(cs tls.ConnectionState, roots *x509.CertPool) error {
	if len(cs.PeerCertificates) == 0 {
		return errors.New("there is none")
	}
	if t.need.level == levelDANE {
		return t.need.checkDANE(cs.PeerCertificates)
	}
	o := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), CurrentTime: time.Now(),
		DNSName: strings.Replace(t.name, "[IPv6:", "[", 1)}
	for _, cert := range cs.PeerCertificates[1:] {
		o.Intermediates.AddCert(cert)
	}
	_, err := cs.PeerCertificates[0].Verify(o)
	return err
}

// secure puts TLS on the session where it is wanted and can be had.
func (s *session) secure(ctx context.Context, c *Client) error {
	if _, offered := s.ext["STARTTLS"]; !offered {
		watchOf(ctx).note(s.target, s.conn, relay.TLSNoStartTLS, "")
		return s.without(c, "it does not offer STARTTLS")
	}
	a, err := s.exchange(phaseSTARTTLS, "STARTTLS")
	if err == nil && a.code != 220 {
		watchOf(ctx).note(s.target, s.conn, relay.TLSNoStartTLS, "STARTTLS was answered with "+a.reply().String())
	}
	switch {
	case err != nil:
		return err
	case a.code != 220 && s.target.need.mandatory():
		return refused(phaseSTARTTLS, a.reply())
	case a.code != 220:
		return s.without(c, "it refuses STARTTLS")
	}
	if err := s.handshake(ctx, c); err != nil {
		return err
	}
	// What was said in the clear counts for nothing: hello reads it all anew (RFC 3207 §4.2).
	return s.hello(c.cfg.Hostname)
}

// handshake is TLS itself, after STARTTLS or at once.
func (s *session) handshake(ctx context.Context, c *Client) (err error) {
	cfg, shown := c.tlsConfig(s.target)
	if s.tls, err = s.startTLS(ctx, cfg); err != nil {
		if ctx.Err() == nil {
			watchOf(ctx).failed(s.target, s.conn, errors.Unwrap(err))
		}
		return err
	}
	s.noteTLS(watchOf(ctx), shown)
	s.tls += shown.String()
	if shown.err != nil && s.target.need.level == levelTesting {
		c.log.Warn("this host does not meet its domain's policy, which is for testing", "mx", s.target.String(), "err", shown.err)
	}
	s.transcript.note("%s", s.tls)
	if c.cfg.Offered != nil {
		c.cfg.Offered.Note(relay.Domain(s.target.name), time.Now())
	}
	return nil
}

// without goes on in the clear where that is allowed, and notices when the host knew better
// before: that may be its owner's change, or somebody in the middle.
func (s *session) without(c *Client, why string) error {
	if s.target.need.mandatory() {
		return lost(phaseTLS, &policyError{source: s.target.need.source, text: why, result: relay.TLSNoStartTLS})
	}
	if s.target.need.level == levelTesting {
		s.plain = "none (" + s.target.need.source + ")"
		c.log.Warn("this host does not meet its domain's policy, which is for testing", "mx", s.target.String(), "err", why)
	}
	if c.cfg.Offered == nil {
		return nil
	}
	if last, ok := c.cfg.Offered.Last(relay.Domain(s.target.name)); ok && time.Since(last) < memoryHolds {
		s.plain = fmt.Sprintf("none: a downgrade, this host had TLS on %s and now %s", last.Format(time.DateOnly), why)
		c.log.Warn("a downgrade: this host had TLS before", "mx", s.target.String(), "last", last.Format(time.DateOnly), "err", why)
	}
	return nil
}
