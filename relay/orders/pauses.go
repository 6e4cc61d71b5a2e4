package orders

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"relayd/relay"
)

// What can be paused.
const (
	Sending = "sending" // to one domain, or to all
	Inbound = "inbound" // letters that come in by SMTP; our own reports and local programs go on
	POP3    = "pop3"    // new logins; sessions go on
)

// Pause is one thing that rests until it is resumed.
type Pause struct {
	What   string    `json:"what"`
	Domain string    `json:"domain,omitempty"` // of Sending: lower case, * and ? allowed; empty: to all
	Since  time.Time `json:"since"`
	Reason string    `json:"reason,omitempty"` // the operator's note
}

// String says what rests: "sending to partner.example".
func (p Pause) String() string {
	switch {
	case p.What == Inbound:
		return "taking mail in"
	case p.What == POP3:
		return "collecting by POP3"
	case p.Domain == "":
		return "sending"
	}
	return "sending to " + p.Domain
}

func (p Pause) same(q Pause) bool { return p.What == q.What && p.Domain == q.Domain }

// Check brings an order to pause or to resume into its form; ErrBad when it has none.
func (p Pause) Check() (Pause, error) {
	p.Domain = strings.ToLower(p.Domain)
	switch {
	case p.What != Sending && p.What != Inbound && p.What != POP3:
		return p, fmt.Errorf("%w: %.40q cannot be paused", ErrBad, p.What)
	case p.What != Sending && p.Domain != "":
		return p, fmt.Errorf("%w: a domain goes with sending alone", ErrBad)
	case len(p.Reason) > maxText || len(p.Domain) > maxText:
		return p, fmt.Errorf("%w: longer than %d octets", ErrBad, maxText)
	}
	if p.Domain != "" && !strings.ContainsAny(p.Domain, "*?") {
		d, err := relay.ParseDomain(p.Domain)
		if err != nil {
			return p, fmt.Errorf("%w: %.80q is not a domain: %v", ErrBad, p.Domain, err)
		}
		p.Domain = string(d)
	}
	return p, nil
}

func (s *state) pauses() *[]Pause { return &s.Pauses }

// Pause makes something rest, and says whether it did before: then its time and reason stay.
func (b *Book) Pause(p Pause) (was bool, err error) { return add(b, (*state).pauses, p) }

// Resume ends the pause of the same What and Domain, and says whether there was one.
func (b *Book) Resume(p Pause) (was bool, err error) { return remove(b, (*state).pauses, p) }

// Pauses are all that are in force, in the order they were given; not to be changed.
func (b *Book) Pauses() []Pause { return b.now.Load().Pauses }

// Rests says whether Inbound or POP3 is paused.
func (b *Book) Rests(what string) bool {
	return slices.ContainsFunc(b.Pauses(), func(p Pause) bool { return p.What == what })
}

// Paused says whether sending to a domain is.
func (b *Book) Paused(d relay.Domain) bool { return Find(b.Pauses(), d) != nil }

// Find is the pause that keeps mail for a domain from being sent; nil: none does.
func Find(pauses []Pause, d relay.Domain) *Pause {
	for i, p := range pauses {
		if p.What == Sending && (p.Domain == "" || relay.MatchText(p.Domain, string(d), false)) {
			return &pauses[i]
		}
	}
	return nil
}
