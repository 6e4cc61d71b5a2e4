package mx

import (
	"errors"
	"io"
	"net"
	"os"

	"relayd/relay"
)

// phase is where in the dialogue something happened.
type phase int

const (
	phasePolicy phase = iota // before the connection
	phaseConnect
	phaseGreeting
	phaseEHLO
	phaseHELO
	phaseSTARTTLS
	phaseTLS
	phaseAUTH
	phaseRSET
	phaseMAIL
	phaseRCPT
	phaseDATA
	phaseBody // the letter is on its way, its final dot is not
	phaseEnd  // the final dot may have reached the remote
	phaseQUIT
)

func (p phase) String() string {
	return [...]string{"the policy", "the connection", "the greeting", "EHLO", "HELO", "STARTTLS", "the TLS handshake", "AUTH",
		"RSET", "MAIL FROM", "RCPT TO", "DATA", "the message", "the end of the message", "QUIT"}[p]
}

// verdict is what an answer means. This file alone decides it; everything that is not listed
// here is the host's trouble and temporary.
type verdict struct {
	// Scope: recipient settles that one and the session goes on; message settles every recipient
	// of the transaction; host ends the session.
	Scope   relay.Scope
	Outcome relay.Outcome
	// Next says that the next host may be asked in the same attempt.
	Next bool
}

var (
	delivered     = verdict{relay.ScopeMessage, relay.Delivered, false}
	hostTrouble   = verdict{relay.ScopeHost, relay.Deferred, true}
	hostUncertain = verdict{relay.ScopeHost, relay.Deferred, false}
	// hostLacks: the host has not the extension or the size for such letters. That is final only
	// if no host of the domain was out of reach that might have had it.
	hostLacks     = verdict{relay.ScopeHost, relay.Failed, true}
	messageFailed = verdict{relay.ScopeMessage, relay.Failed, false}
	messageLater  = verdict{relay.ScopeMessage, relay.Deferred, true}
	rcptFailed    = verdict{relay.ScopeRecipient, relay.Failed, false}
	rcptLater     = verdict{relay.ScopeRecipient, relay.Deferred, true}
)

// The ranks of verdicts.
const (
	rankTrouble = 1 // a host failed us
	rankWords   = 2 // a host spoke about the letter or the recipient
)

// rank orders what an attempt has heard about a recipient: words about the letter tell its
// writer more than a host that does not answer.
func (v verdict) rank() int {
	if v.Scope == relay.ScopeHost {
		return rankTrouble
	}
	return rankWords
}

// judge decides about a reply that is not the success its phase waits for, and about the reply
// to the end of the data in any case.
//
// A temporary refusal of a recipient or a letter lets the next host be asked at once (RFC 5321
// §5.1). A 5xx greeting or EHLO condemns the host and not the letter, as Postfix has it by
// default (smtp_skip_5xx_greeting): the 554 of a machine that is being rebuilt must not bounce
// an office's mail.
func judge(p phase, r relay.Reply) verdict {
	switch {
	case r.Code == 421 || p < phaseMAIL:
		return hostTrouble
	case outOfStep(r) || wantsLogin(r):
		return hostTrouble
	}
	switch kind := r.Code / 100; {
	case p == phaseRCPT && kind == 4:
		return rcptLater
	case p == phaseRCPT && kind == 5:
		return rcptFailed
	case kind == 4:
		return messageLater
	case kind == 5:
		return messageFailed
	case p == phaseEnd && kind == 2:
		return delivered
	case p == phaseEnd:
		return hostUncertain
	}
	return hostTrouble
}

// outOfStep says that the remote has lost its place in the dialogue, or we ours: that tells
// nothing about the letter. Some hosts use these codes for refusals of policy, which an enhanced
// status other than X.5.X gives away.
func outOfStep(r relay.Reply) bool {
	switch r.Code {
	case 500, 502, 503:
		return r.Status == (relay.Status{}) || r.Status[1] == 5
	}
	return false
}

// wantsLogin says that the remote wants AUTH or STARTTLS first (RFC 4954 §6, RFC 3207 §4).
// That is a matter of configuration, ours or theirs: a smarthost with the wrong settings must
// not bounce everything that waits for it.
func wantsLogin(r relay.Reply) bool {
	switch r.Code {
	case 530, 534, 535, 538:
		return true
	}
	return false
}

// tooMany says that a recipient was refused only because the transaction is full: it goes into
// the next one. RFC 5321 §4.5.3.1.10 asks for 452 and tells of old servers that say 552. It may
// be asked only when a recipient of this transaction has been accepted, or it would never end.
func tooMany(r relay.Reply) bool {
	full := r.Status == (relay.Status{}) || r.Status[1] == 5 && r.Status[2] == 3
	return full && (r.Code == 452 || r.Code == 552)
}

// judgeLoss decides about a connection that could not be made, broke, fell silent or talked
// nonsense in phase p. After the final dot the letter may have arrived: the next host is not
// asked at once, because that would make a duplicate likely, but the letter is not given up.
func judgeLoss(p phase) verdict {
	if p == phaseEnd {
		return hostUncertain
	}
	return hostTrouble
}

// lossReply says in our own words what judgeLoss judged.
func lossReply(p phase, where string, err error) relay.Reply {
	r := relay.Reply{Code: 451, Status: relay.Status{4, 4, 2}}
	switch {
	case p == phaseConnect:
		r.Status[2] = 1
		r.Text = "cannot connect to " + where + ": " + lossText(err)
	case isPolicy(err):
		r.Status = relay.Status{4, 7, 5}
		r.Text = where + ": " + clip(printable(err.Error()), 300)
	case p == phaseTLS:
		r.Status = relay.Status{4, 7, 5}
		r.Text = where + ": the TLS handshake failed: " + lossText(err)
	case errors.Is(err, errNoTLS), errors.Is(err, errNoAuth):
		r.Status = relay.Status{4, 7, 0}
		r.Text = where + ": " + err.Error()
	case isNonsense(err):
		r.Status = relay.Status{4, 5, 0}
		r.Text = where + ": " + lossText(err) + " (at " + p.String() + ")"
	case p == phaseBody:
		r.Text = where + ": " + lossText(err) + " while the message was being sent"
	default:
		r.Text = where + ": " + lossText(err) + " while we waited for the answer to " + p.String()
	}
	if p == phaseEnd {
		r.Text += "; the message may have arrived and will be sent again"
	}
	return r
}

func isPolicy(err error) bool {
	_, ok := errors.AsType[*policyError](err)
	return ok
}

func isNonsense(err error) bool {
	return errors.Is(err, errReplyGarbage) || errors.Is(err, errReplyEndless) ||
		errors.Is(err, errReplyLine) || errors.Is(err, errInjected)
}

// lossText is the bare cause of a network error, without the addresses that Go puts around it.
func lossText(err error) string {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Err != nil {
		err = op.Err
	}
	if sys, ok := errors.AsType[*os.SyscallError](err); ok {
		err = sys.Err
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "it timed out"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.ErrClosedPipe):
		return "the connection was closed"
	}
	return clip(printable(err.Error()), 300)
}
