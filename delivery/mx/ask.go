package mx

import (
	"context"
	"errors"
	"fmt"

	"relayd/relay"
)

// maxAsked is how many hosts are asked about one recipient.
const maxAsked = 2

// Ask asks the server that keeps the domain of rcpt whether it takes mail for it: by MAIL FROM:<> and
// RCPT TO, without a letter. An error says that no host has answered yes or no.
func (c *Client) Ask(ctx context.Context, rcpt relay.Address) (bool, error) {
	env := relay.Envelope{Rcpts: []relay.Recipient{{Addr: rcpt}}}
	ch, err := c.choose(ctx, &env, rcpt.Domain)
	if err != nil {
		return false, fmt.Errorf("mx: ask: %w", err)
	}
	lmtp := ch.via != nil && ch.via.LMTP
	ask, find := c.askSMTP, c.targets
	if lmtp {
		ask = c.askLMTP
		find = func(ctx context.Context, _ relay.Domain, r *Route) ([]target, verdict, relay.Reply) {
			return c.lmtpTargets(ctx, r)
		}
	}
	targets, _, reply := find(ctx, rcpt.Domain, ch.via)
	err = errors.New(reply.Text)
	p := c.plan(ctx, rcpt.Domain, ch.via, false)
	for _, t := range targets[:min(len(targets), maxAsked)] {
		if !lmtp {
			if t.need, err = c.require(ctx, p, t); err != nil {
				continue
			}
		}
		var reply relay.Reply
		reply, err = ask(ctx, t, rcpt)
		switch v := judge(phaseRCPT, reply); {
		case err != nil:
		case reply.OK():
			return true, nil
		case v == rcptFailed && speaksOfMailbox(reply):
			return false, nil
		default:
			err = fmt.Errorf("%s said %s", t, reply)
		}
	}
	return false, fmt.Errorf("mx: ask: %w", err)
}

// speaksOfMailbox says whether a refusal may mean that there is no such mailbox: one for reasons of policy,
// of our address or of the system says nothing about it (RFC 3463 §3).
func speaksOfMailbox(r relay.Reply) bool {
	return r.Status == (relay.Status{}) || r.Status[1] == 1 || r.Status[1] == 2
}

// askSMTP returns the reply to RCPT TO. A refusal of MAIL is an error: it says nothing about the
// recipient.
func (c *Client) askSMTP(ctx context.Context, t target, rcpt relay.Address) (relay.Reply, error) {
	for {
		s, err := c.session(ctx, t)
		if err != nil {
			return relay.Reply{}, err
		}
		reply, err := s.ask(rcpt)
		reused := s.reused
		if err != nil {
			s.broken = true
		}
		s.end(c.idle)
		if err != nil && reused && ctx.Err() == nil {
			continue // it had died while it waited
		}
		return reply, err
	}
}

func (s *session) ask(rcpt relay.Address) (relay.Reply, error) {
	if s.spent() {
		return relay.Reply{}, lost(phaseMAIL, errors.New("the connection is used up"))
	}
	if !rcpt.IsASCII() && !s.offers("SMTPUTF8") {
		return s.lacksUTF8(), nil
	}
	s.mails++
	s.open = true
	mail := "MAIL FROM:<>"
	if !rcpt.IsASCII() {
		mail += " SMTPUTF8"
	}
	var reply relay.Reply
	for _, cmd := range []command{{phaseMAIL, mail}, {phaseRCPT, "RCPT TO:" + rcpt.Path()}, {phaseRSET, "RSET"}} {
		a, err := s.exchange(cmd.phase, cmd.line)
		if err != nil {
			return relay.Reply{}, err
		}
		s.reused = false
		switch r := a.reply(); {
		case cmd.phase == phaseRCPT:
			reply = r
		case cmd.phase == phaseRSET:
			s.open = !r.OK()
		case cmd.phase == phaseMAIL && !r.OK():
			return relay.Reply{}, refused(phaseMAIL, r)
		}
	}
	return reply, nil
}

func (c *Client) askLMTP(ctx context.Context, t target, rcpt relay.Address) (relay.Reply, error) {
	s, err := c.connectLMTP(ctx, t)
	if err != nil {
		return relay.Reply{}, err
	}
	defer s.end()
	return s.ask(rcpt)
}
