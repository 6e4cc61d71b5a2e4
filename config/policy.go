package config

import (
	"strings"

	"relayd/relay"
)

func (r *reader) policy(s section, p *Policy) {
	one(s, "mode", &p.Mode, readWord(PolicyEnforce, PolicyObserve, PolicyOff))
	except, _ := many(s, "except", readException)
	p.Except = whats(except)
	one(s, "received_spf", &p.ReceivedSPF, readBool)
	one(s, "aggregate_reports", &p.AggregateReports, readBool)
	mailboxes, _ := many(s, "report_mailboxes", readMailbox)
	p.ReportMailboxes = whats(mailboxes)
	if len(except) > 0 && p.Mode != PolicyEnforce {
		r.warn(except[0].at, "", "mode is %q, under which nothing is refused, so except changes nothing", p.Mode)
	}
}

// readException reads an address, a domain, or "*.example" for every name below one.
func readException(v *value) (string, *problem) {
	s, p := readString(v)
	switch {
	case p != nil:
		return "", p
	case s == "*":
		return "", wrong(`write mode = "observe" to refuse nothing at all`, "%q would except everybody", s)
	case strings.Contains(s, "@"):
		a, p := readGrant(v)
		if p != nil {
			return "", p
		}
		if a.Local == "*" {
			return string(a.Domain), nil
		}
		return a.String(), nil
	}
	return readPattern(v)
}

// readMailbox reads the address of a mailbox here.
func readMailbox(v *value) (relay.Address, *problem) {
	s, p := readString(v)
	if p != nil {
		return relay.Address{}, p
	}
	a, err := relay.ParseAddress(s, true)
	if err != nil {
		return relay.Address{}, wrong(`write the whole address of a mailbox, such as "ann@office.example"`, "%q is not an address: %s", clip(s), err)
	}
	return normalize(a), nil
}
