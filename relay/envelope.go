package relay

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"strings"
	"time"
)

// Envelope is what SMTP says about a letter beside the letter itself (RFC 5321 §2.3.1).
type Envelope struct {
	ID       ID          `json:"id"`
	From     Address     `json:"from"` // the reverse-path; null for reports
	Rcpts    []Recipient `json:"rcpts"`
	Ret      Ret         `json:"ret,omitzero"`   // how much of it a report of failure gives back
	EnvID    string      `json:"envid,omitzero"` // the sender's own name for it, for reports (RFC 3461 §4.4); printable ASCII
	Origin   Origin      `json:"origin"`
	Accepted time.Time   `json:"accepted"`
	Size     int64       `json:"size"`               // octets of the body as spooled, CRLF line ends
	Body8Bit bool        `json:"body_8bit,omitzero"` // contains octets above 127
	UTF8     bool        `json:"utf8,omitzero"`      // needs SMTPUTF8: asked for at MAIL, and the sender or the header uses it
	Junk     bool        `json:"junk,omitzero"`      // goes into the folder Junk of its mailboxes; for the maildirs alone
	Auth     string      `json:"auth,omitzero"`      // what relay/policy found: "spf=fail dkim=pass dmarc=pass"; empty: it was not asked
	Filter   string      `json:"filter,omitzero"`    // what content filters said: "rspamd=no-action/1.20 clamd=clean"; empty: none was asked
	Hold     string      `json:"hold,omitzero"`      // why its foreign part is held from the start; empty: it is not
	Via      string      `json:"via,omitzero"`       // where the operator sends it, a host or host:port or ViaMX; empty: where the routes lead
	Release  time.Time   `json:"release,omitzero"`   // not to leave before, as its sender asked (RFC 4865)
	By       DeliverBy   `json:"by,omitzero"`        // when it shall have arrived (RFC 2852)
	Attempt  int         `json:"-"`                  // which attempt at delivery this is, from 1; 0 before the first

	// RequireTLS: it goes on over TLS alone, to hosts that prove who they are and do the same (RFC 8689).
	RequireTLS bool `json:"require_tls,omitzero"`
}

// ViaMX as Envelope.Via sends a letter to the mail hosts of its recipients, past all routes.
const ViaMX = "mx"

// InHouse says whether it goes to mailboxes of ours; envelopes in the queue go there as a whole or not
// at all.
func (e *Envelope) InHouse() bool { return len(e.Rcpts) > 0 && !e.Rcpts[0].Mailbox.IsNull() }

// Born is when the clocks of its warnings and its end begin.
func (e *Envelope) Born() time.Time {
	if e.Release.After(e.Accepted) {
		return e.Release
	}
	return e.Accepted
}

// Recipient is one place a letter must go to, after aliases are resolved.
type Recipient struct {
	Addr    Address `json:"addr"`             // foreign: where to send it. local: the address delivered for
	Mailbox Address `json:"mailbox,omitzero"` // local only: the mailbox it goes into
	Orig    string  `json:"orig,omitzero"`    // what RCPT TO said, for reports
	Notify  Notify  `json:"notify,omitzero"`  // what the sender wants to hear of
	ORcpt   string  `json:"orcpt,omitzero"`   // what the sender's own server called it, see ParseORcpt
	Junk    bool    `json:"junk,omitzero"`    // local only: its copy goes into the folder Junk
}

// Origin is where a letter came from; it becomes the Received field and the log's client.
type Origin struct {
	Client  netip.AddrPort `json:"client,omitzero"` // zero for our own reports and the control socket
	Name    string         `json:"name,omitzero"`   // the client's name by PTR, if it was looked up and matches
	Helo    string         `json:"helo,omitzero"`   // what it called itself, made printable
	Proto   string         `json:"proto,omitzero"`  // SMTP, ESMTP, ESMTPS, ESMTPSA, UTF8SMTPS, ... (RFC 3848, RFC 6531)
	TLS     string         `json:"tls,omitzero"`    // "TLS1.3 TLS_AES_128_GCM_SHA256"; empty without TLS
	User    string         `json:"user,omitzero"`   // who logged in
	Service string         `json:"service,omitzero"`
	Server  netip.AddrPort `json:"server,omitzero"` // our end of the connection
	Trusted bool           `json:"trusted,omitzero"`
}

// Submitted says whether one of our own people handed the letter in (RFC 6409).
func (o Origin) Submitted() bool {
	return o.User != "" || strings.HasPrefix(o.Service, "submission")
}

// Outcome is how things stand for one recipient after an attempt.
type Outcome string

// The outcomes. Delivered and Failed are final, Deferred is not.
const (
	Delivered Outcome = "delivered"
	Deferred  Outcome = "deferred"
	Failed    Outcome = "failed"
)

// Result is what one attempt came to for one recipient, with the remote's own words.
type Result struct {
	Rcpt    Address   `json:"rcpt"`
	Outcome Outcome   `json:"outcome"`
	Reply   Reply     `json:"reply"`
	Host    string    `json:"host,omitzero"` // who said it, "mx1.partner.example[192.0.2.7]:25"; empty: we did
	TLS     string    `json:"tls,omitzero"`  // of the attempt, for people: "TLS1.3 TLS_AES_128_GCM_SHA256, verified (route)"; empty: without TLS, as before
	Way     string    `json:"way,omitzero"`  // by IPv4 or IPv6 where there was a choice, and why, for people
	DSN     bool      `json:"dsn,omitzero"`  // the host was told what reports the sender wants, and sends them from here on
	At      time.Time `json:"at"`
	Arrived bool      `json:"-"` // it lies in the mailbox, rather than having been passed on

	// Transcript is the dialogue of the whole attempt, line by line with the seconds since it began;
	// on one of its results, where not all was delivered. At most 8 KiB.
	Transcript string `json:"-"`
}

// Stager takes letters in for one kind of destination: the maildirs, the queue. relay/intake
// hands to it.
type Stager interface {
	// Stage opens a place for a letter; env is complete but for Size. Errors are *Failure or
	// temporary.
	Stage(ctx context.Context, env Envelope) (Staged, error)
}

// Staged is a letter on its way in. The body is written with CRLF line ends and no dot-stuffing.
type Staged interface {
	io.Writer
	// Commit makes the letter durable and visible. When it returns nil, no crash loses the letter.
	Commit(ctx context.Context) error
	// Abort drops the letter; after a Commit it takes the letter back where that is still
	// possible. Calling it twice, or after a failed Commit, is harmless.
	Abort() error
}

// Submitter is the front door for letters we write ourselves: delivery hands its reports to it,
// relay/intake opens it. nil means the letter is durable.
type Submitter interface {
	Submit(ctx context.Context, env Envelope, body io.Reader) error
}

// MailParams are the parameters of MAIL FROM (RFC 1870, 2852, 3461, 4865, 6152, 6531, 8689).
type MailParams struct {
	Size     int64 // announced octets; 0: not announced
	Body8Bit bool
	UTF8     bool
	Ret      Ret
	EnvID    string

	Release time.Time // see Envelope
	By      DeliverBy

	RequireTLS bool
	Binary     bool // the letter may hold any octets (RFC 3030); its MIME structure says which
}

// Acceptor is the front door for letters from clients: relay/smtpd knocks, relay/intake opens.
// Every error is a *Failure whose Reply goes to the client, or something unknown, which the
// client hears as 451 4.3.0.
type Acceptor interface {
	// Begin opens a transaction for a MAIL command.
	Begin(ctx context.Context, origin Origin, from Address, params MailParams) (Transaction, error)
	// Verify says whether addr would be accepted as a local recipient (VRFY); nil means yes.
	Verify(ctx context.Context, origin Origin, addr Address) error
}

// Transaction is one letter on its way through the front door. It belongs to one goroutine.
type Transaction interface {
	// Rcpt adds a recipient. A refusal leaves the transaction as it was.
	Rcpt(ctx context.Context, to Address, params RcptParams) error
	// Receive reads the letter until io.EOF, which must mean that the client sent all of it; any
	// other error drops it. CRLF line ends, dots unstuffed. When the error is nil the letter is
	// durable and the ID is what the 250 tells the client.
	Receive(ctx context.Context, body io.Reader) (ID, error)
	// Abort drops the transaction; harmless after Receive.
	Abort()
}

// Authenticator says who may log in. relay/users implements it; relay/smtpd and pop3 ask.
type Authenticator interface {
	// Authenticate returns the mailbox that name and password open. ErrDenied means that they are
	// wrong, without saying which; every other error is temporary.
	Authenticate(ctx context.Context, name, password string, client netip.Addr) (Address, error)
}

// ErrDenied is the answer to a wrong name, a wrong password and a login that is switched off.
var ErrDenied = errors.New("the name or the password is wrong")
