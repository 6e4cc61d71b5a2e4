package orders

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"relayd/relay"
)

// Rule holds new mail on its way out. Every field that is set must match, as in a filter of the
// queue: From and To match what occurs in an address, or all of it with * and ?; Domain is that of
// the recipients.
type Rule struct {
	From   string    `json:"from,omitempty"` // "<>": reports
	To     string    `json:"to,omitempty"`
	Domain string    `json:"domain,omitempty"`
	Since  time.Time `json:"since"`
	Reason string    `json:"reason,omitempty"` // the operator's note
}

// String is the rule as its flags say it: "--from x --domain y".
func (r Rule) String() string {
	var parts []string
	for _, f := range []struct{ name, value string }{{"--from", r.From}, {"--to", r.To}, {"--domain", r.Domain}} {
		if f.value != "" {
			parts = append(parts, f.name+" "+f.value)
		}
	}
	return strings.Join(parts, " ")
}

func (r Rule) same(o Rule) bool { return r.From == o.From && r.To == o.To && r.Domain == o.Domain }

// byRule begins every reason of a rule, and tells them from those of relay/quota.
const byRule = "by the rule "

// IsRule says whether the reason an item is held for is that of a Rule.
func IsRule(reason string) bool { return strings.HasPrefix(reason, byRule) }

func (r Rule) why() string {
	s := byRule + r.String()
	if r.Reason != "" {
		s += ": " + r.Reason
	}
	return s
}

// Check brings a rule into its form; ErrBad when it has none.
func (r Rule) Check() (Rule, error) {
	r.From, r.To = strings.ToLower(r.From), strings.ToLower(r.To)
	if r.From == "" && r.To == "" && r.Domain == "" {
		return r, fmt.Errorf("%w: a rule needs a sender, a recipient or a domain", ErrBad)
	}
	if max(len(r.From), len(r.To)) > maxText {
		return r, fmt.Errorf("%w: longer than %d octets", ErrBad, maxText)
	}
	p, err := Pause{What: Sending, Domain: r.Domain, Reason: r.Reason}.Check()
	r.Domain = p.Domain
	return r, err
}

func (s *state) rules() *[]Rule { return &s.Rules }

// AddRule puts a rule in force, and says whether it was before: then its time and reason stay.
func (b *Book) AddRule(r Rule) (was bool, err error) { return add(b, (*state).rules, r) }

// RemoveRule ends the rule of the same From, To and Domain, and says whether there was one.
func (b *Book) RemoveRule(r Rule) (was bool, err error) { return remove(b, (*state).rules, r) }

// Rules are all that are in force, in the order they were given; not to be changed.
func (b *Book) Rules() []Rule { return b.now.Load().Rules }

// Hold says why new mail from somebody to recipients in one domain is held; empty: it is not.
func (b *Book) Hold(from relay.Address, domain relay.Domain, rcpts []relay.Recipient) string {
	for _, r := range b.Rules() {
		if r.matches(from, domain, rcpts) {
			return r.why()
		}
	}
	return ""
}

func (r Rule) matches(from relay.Address, domain relay.Domain, rcpts []relay.Recipient) bool {
	if r.From != "" && !relay.MatchText(r.From, cmp.Or(from.String(), "<>"), true) {
		return false
	}
	if r.Domain != "" && !relay.MatchText(r.Domain, string(domain), false) {
		return false
	}
	return r.To == "" || slices.ContainsFunc(rcpts, func(rc relay.Recipient) bool {
		return relay.MatchText(r.To, rc.Addr.String(), true) || rc.Orig != "" && relay.MatchText(r.To, rc.Orig, true)
	})
}
