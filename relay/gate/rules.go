package gate

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"relayd/relay"
)

// Mode says what follows from what the gate finds.
type Mode int

// The modes. Observe weighs, counts and notes in the letter, and refuses nothing.
const (
	Off Mode = iota
	Observe
	Enforce
)

// Rules is everything a reload may change.
type Rules struct {
	Mode Mode
	Pass []netip.Prefix // not weighed
	// GreetWait is how long the greeting waits for a client that says something before it, unless a
	// letter of the client's has been accepted lately; 0: it does not wait.
	GreetWait time.Duration
	// Connections bounds what one network (/24, or /64 of IPv6) may open within a minute, Letters
	// what it may begin within an hour; 0: no bound.
	Connections, Letters int

	// What is held against a client whose name does not lead back to it, that says a HELO no mail
	// server has, and that says it is us.
	NoReverse, BadHelo, ForgedHelo int
	Lists                          []List
	// From a sum of Junk on a letter goes to the folder Junk; from Reject on it is refused.
	Junk, Reject int
	// Greylist is how long the first letter of somebody unknown has to wait; 0: nobody has to.
	Greylist time.Duration

	Ours       func(relay.Domain) bool // whether a name is ours; nil: none is
	Postmaster string                  // the address that takes questions
}

// List is a list of addresses in the DNS (RFC 5782).
type List struct {
	Zone    relay.Domain
	Weight  int            // below 0: a list of the good
	Answers []netip.Prefix // those that count; none: all of 127.0.0.0/8 but 127.255.255.0/24
}

var (
	answers      = netip.MustParsePrefix("127.0.0.0/8")
	errorAnswers = netip.MustParsePrefix("127.255.255.0/24") // "you may not ask", by custom
)

// counts says whether an answer of the zone is one of the list.
func (l List) counts(answer netip.Addr) bool {
	if !answers.Contains(answer) || errorAnswers.Contains(answer) {
		return false
	}
	return len(l.Answers) == 0 || slices.ContainsFunc(l.Answers, func(p netip.Prefix) bool { return p.Contains(answer) })
}

func (r *Rules) passes(client netip.Addr) bool {
	return r.Mode == Off || !client.IsValid() || client == localhost4 || client == localhost6 ||
		slices.ContainsFunc(r.Pass, func(p netip.Prefix) bool { return p.Contains(client) })
}

var (
	localhost4 = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	localhost6 = netip.IPv6Loopback()
)

func (r *Rules) isOurs(d relay.Domain) bool { return r.Ours != nil && r.Ours(d) }

// network is the neighbourhood that shares a bound: a /24, or a /64 of IPv6.
func network(client netip.Addr) netip.Prefix {
	bits := 24
	if client.Is6() {
		bits = 64
	}
	p, _ := client.WithZone("").Prefix(bits)
	return p
}

// Rule is the name of a check, as the counters have it.
type Rule string

// The rules that refuse.
const (
	RuleConnections Rule = "connections" // too many of one network within a minute
	RuleEarly       Rule = "early"       // talked before the greeting
	RuleHTTP        Rule = "http"        // speaks HTTP
	RulePipelining  Rule = "pipelining"  // talked out of turn later on
	RuleLetters     Rule = "letters"     // too many of one network within an hour
	RuleScore       Rule = "score"       // the sum of what is held against it
	RuleGreylist    Rule = "greylist"    // somebody unknown, and not waited yet
)

// AllRules is all of them, the cheap ones first.
func AllRules() []Rule {
	return []Rule{RuleConnections, RuleEarly, RuleHTTP, RulePipelining, RuleLetters, RuleScore, RuleGreylist}
}

// Point is one finding about a client and what it weighs.
type Point struct {
	Name   string // "reverse", "helo", "forged-helo", or the zone of a list
	Weight int
	Words  string // for the client: "it is listed by ..."
}

func (p Point) String() string { return fmt.Sprintf("%s %+d", p.Name, p.Weight) }
