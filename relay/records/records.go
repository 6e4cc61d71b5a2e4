// Package records says which records a mail domain of ours should have in the DNS, asks what it
// has, and judges each with a reason. cmd/relayd hands it what is known of the office and shows
// the lines to the operator; nothing here changes how mail is handled.
package records

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"relayd/relay"
)

// The verdicts.
const (
	OK      = "ok"
	Fault   = "fault"   // mail is lost, refused or not believed
	Advice  = "advice"  // it works, and could be better
	Unknown = "unknown" // the DNS did not answer
)

// Line is one record, or one set of records of the same name and type.
type Line struct {
	Type    string   `json:"type"` // MX, A, PTR, TXT, SRV
	For     string   `json:"for"`  // mx, address, ptr, spf, dkim, dmarc, mta-sts, tls-rpt, autoconfig, srv
	Name    string   `json:"name"`
	Want    string   `json:"want"`  // as a zone file has it, without the name; empty: we cannot know
	Found   []string `json:"found"` // never nil
	Verdict string   `json:"verdict"`
	Why     string   `json:"why"`
}

// Service is a record that tells mail programs where to go (RFC 6186).
type Service struct {
	Name string // _pop3s._tcp.office.example
	relay.SRV
}

// Key is a DKIM key.
type Key struct {
	Name, Text, Strings string
	Next                bool // it does not sign yet
	Visible             bool
	Problem             string
}

// Office is what a domain's records depend on.
type Office struct {
	Domain, Hostname relay.Domain
	Addrs            []netip.Addr // we send from these; empty: those that Hostname has
	Smarthost        string       // everything leaves through it; empty: nothing does
	Keys             []Key
	Services         []Service
	Autoconfig       bool // we answer at http://autoconfig.DOMAIN
	STS              STS
	// SPF says what the SPF record of Domain makes of mail from addr: pass, fail, softfail, neutral,
	// none, permerror or temperror (RFC 7208 §2.6).
	SPF func(ctx context.Context, addr netip.Addr) string
}

// STS is the MTA-STS policy that we serve for the domain; the zero STS: we serve none.
type STS struct {
	ID string // of its record
	relay.STSPolicy
	// Problem says why nobody believes it: its host has no certificate that others trust.
	Problem string
}

// Resolver is what is asked.
type Resolver interface {
	relay.Resolver
	// SRV returns the services at name.
	SRV(ctx context.Context, name string) ([]relay.SRV, error)
}

// timeout bounds the questions about one domain.
const timeout = 30 * time.Second

// check is one domain being looked at.
type check struct {
	Office
	dns Resolver
}

// Check asks for every record of an office.
func Check(ctx context.Context, o Office, dns Resolver) []Line {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	c := &check{o, dns}
	lines := []Line{c.mx(ctx)}
	lines = append(lines, c.addresses(ctx)...)
	lines = append(lines, c.spfRecord(ctx))
	lines = append(lines, c.dkim()...)
	lines = append(lines, c.dmarc(ctx), c.mtaSTS(ctx), c.tlsRPT(ctx))
	if c.STS.ID != "" {
		lines = append(lines, c.policyHost(ctx))
	}
	if c.Autoconfig {
		lines = append(lines, c.autoconfig(ctx))
	}
	for _, s := range c.Services {
		lines = append(lines, c.service(ctx, s))
	}
	for i := range lines {
		if lines[i].Found == nil {
			lines[i].Found = []string{}
		}
	}
	return lines
}

// Faulty says whether a line is one that somebody should look at: a record that is wrong, or one
// that could not be seen.
func Faulty(l Line) bool { return l.Verdict == Fault || l.Verdict == Unknown }

func (l Line) judge(verdict, format string, args ...any) Line {
	l.Verdict, l.Why = verdict, fmt.Sprintf(format, args...)
	return l
}

// unanswered judges a question that brought no records: missing is the verdict and the reason
// where the answer is that there are none.
func (l Line) unanswered(err error, verdict, missing string) Line {
	if errors.Is(err, relay.ErrNoRecord) {
		return l.judge(verdict, "%s", missing)
	}
	return l.judge(Unknown, "the DNS did not answer: %v", err)
}

func (c *check) mx(ctx context.Context) Line {
	l := Line{Type: "MX", For: "mx", Name: string(c.Domain), Want: fmt.Sprintf("10 %s.", c.Hostname)}
	found, err := c.dns.MX(ctx, c.Domain)
	if err != nil {
		return l.unanswered(err, Fault, "without it, mail goes to the address of the domain itself, if to anywhere")
	}
	at := -1
	for i, mx := range found {
		l.Found = append(l.Found, fmt.Sprintf("%d %s.", mx.Pref, mx.Host))
		if mx.Host == c.Hostname && at < 0 {
			at = i
		}
	}
	switch {
	case found[0].Host == "":
		return l.judge(Fault, "it says that the domain takes no mail (RFC 7505)")
	case at < 0:
		return l.judge(Fault, "mail for the domain goes to others and not to %s", c.Hostname)
	case found[0].Host != c.Hostname && found[0].Pref < found[at].Pref:
		return l.judge(OK, "%s comes first: it must pass the mail on to us", found[0].Host)
	}
	return l.judge(OK, "mail for the domain comes here")
}

// addresses judges the addresses of our name, and the name of each address.
func (c *check) addresses(ctx context.Context) []Line {
	l := Line{Type: "A/AAAA", For: "address", Name: string(c.Hostname), Want: join(c.Addrs)}
	found, err := c.dns.Addrs(ctx, c.Hostname)
	if err != nil {
		l = l.unanswered(err, Fault, "nobody can find our host, and many refuse mail from a name without an address")
		return append([]Line{l}, c.names(ctx, c.Addrs)...)
	}
	l.Found = strings.Fields(join(found))
	l = l.judge(OK, "our host is found")
	for _, a := range found {
		if a.IsLoopback() || a.IsUnspecified() {
			l = l.judge(Fault, "%s is no address the world could reach", a)
		}
	}
	for _, a := range c.Addrs {
		if l.Verdict == OK && !contains(found, a) {
			l = l.judge(Fault, "we send from %s, which is not among them: many refuse mail from a name that leads elsewhere", a)
		}
	}
	if len(c.Addrs) == 0 {
		c.Addrs = found
	}
	return append([]Line{l}, c.names(ctx, c.Addrs)...)
}

func (c *check) names(ctx context.Context, addrs []netip.Addr) (lines []Line) {
	for _, a := range addrs {
		l := Line{Type: "PTR", For: "ptr", Name: a.String(), Want: string(c.Hostname) + "."}
		found, err := c.dns.PTR(ctx, a)
		if err != nil {
			lines = append(lines, l.unanswered(err, Fault,
				"Gmail and others refuse mail from an address without a name; whoever rents out the address can set it"))
			continue
		}
		ours := false
		for _, name := range found {
			l.Found = append(l.Found, string(name)+".")
			ours = ours || name == c.Hostname
		}
		if ours {
			l = l.judge(OK, "the address and our name lead to each other")
		} else {
			l = l.judge(Fault, "the address has a name that is not how we greet, %s", c.Hostname)
		}
		lines = append(lines, l)
	}
	return lines
}

func join(addrs []netip.Addr) string {
	var words []string
	for _, a := range addrs {
		words = append(words, a.String())
	}
	return strings.Join(words, " ")
}

func contains(list []netip.Addr, a netip.Addr) bool {
	for _, have := range list {
		if have == a {
			return true
		}
	}
	return false
}
