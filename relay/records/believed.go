package records

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"relayd/relay"
)

// policies returns the TXT records of name that begin with version, as all of these kinds do.
func (c *check) policies(ctx context.Context, name, version string) ([]string, error) {
	all, err := c.dns.TXT(ctx, name)
	if err != nil {
		return nil, err
	}
	found := slices.DeleteFunc(all, func(text string) bool {
		rest, ok := cutPrefixFold(strings.TrimSpace(text), version)
		return !ok || rest != "" && rest[0] != ' ' && rest[0] != ';'
	})
	if len(found) == 0 {
		return nil, relay.ErrNoRecord
	}
	return found, nil
}

func cutPrefixFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return s[len(prefix):], true
}

// tag is the value of a tag in a record of the form a=b; c=d.
func tag(text, name string) string {
	for part := range strings.SplitSeq(text, ";") {
		if n, value, _ := strings.Cut(part, "="); strings.EqualFold(strings.TrimSpace(n), name) {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// spfRecord judges the SPF record by what it says of each address that sends for the domain.
func (c *check) spfRecord(ctx context.Context) Line {
	l := Line{Type: "TXT", For: "spf", Name: string(c.Domain), Want: `"v=spf1 mx -all"`}
	if a, err := netip.ParseAddr(c.Smarthost); err == nil {
		l.Want = fmt.Sprintf(`"v=spf1 mx ip%d:%s -all"`, map[bool]int{true: 4, false: 6}[a.Is4()], a)
	} else if c.Smarthost != "" {
		l.Want = fmt.Sprintf(`"v=spf1 mx include:%s -all"`, parent(c.Smarthost))
	}
	found, err := c.policies(ctx, string(c.Domain), "v=spf1")
	if err != nil {
		return l.unanswered(err, Fault, "without it anybody may send as the domain, and Gmail refuses our mail")
	}
	l.Found = found
	if len(found) > 1 {
		return l.judge(Fault, "there are %d records, and two count as none (RFC 7208 §4.5)", len(found))
	}
	terms := strings.Fields(strings.ToLower(found[0]))
	if slices.Contains(terms, "+all") || slices.Contains(terms, "all") {
		return l.judge(Fault, "it lets the whole world send as the domain")
	}
	senders, who := c.Addrs, "we"
	if c.Smarthost != "" {
		if senders, err = c.hosts(ctx, c.Smarthost); err != nil {
			return l.judge(Unknown, "the addresses of the smarthost %s cannot be found: %v", c.Smarthost, err)
		}
		who = c.Smarthost
	}
	return c.judgeSenders(ctx, l, senders, who, terms)
}

// hosts is the addresses of a host, which may be one itself.
func (c *check) hosts(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	return c.dns.Addrs(ctx, relay.Domain(host))
}

func (c *check) judgeSenders(ctx context.Context, l Line, senders []netip.Addr, who string, terms []string) Line {
	for _, a := range senders {
		switch result := c.SPF(ctx, a); result {
		case "pass":
		case "temperror":
			return l.judge(Unknown, "what it includes cannot be looked up just now")
		case "permerror":
			return l.judge(Fault, "it is broken: a mistake in it, an include that is not there, or more than ten look-ups (RFC 7208 §4.6.4)")
		default:
			if c.Smarthost != "" && mentions(terms, parent(c.Smarthost)) {
				// A provider often sends from other addresses than it takes mail at.
				continue
			}
			return l.judge(Fault, "mail from %s, where %s send from, has the result %s", a, who, result)
		}
	}
	last := terms[len(terms)-1]
	switch {
	case len(senders) == 0:
		return l.judge(Unknown, "we do not know which address we send from")
	case last == "?all" || !strings.HasSuffix(last, "all") && !strings.HasPrefix(last, "redirect="):
		return l.judge(Advice, "our addresses pass, and so do everybody's: end it with -all or ~all")
	}
	return l.judge(OK, "mail from %s passes", join(senders))
}

// mentions says whether a term names the domain or something below it.
func mentions(terms []string, domain string) bool {
	return slices.ContainsFunc(terms, func(t string) bool {
		_, value, ok := strings.Cut(t, ":")
		return ok && (value == domain || strings.HasSuffix(value, "."+domain))
	})
}

// parent is the domain that a smarthost is one of, as far as that can be guessed: providers
// publish what to include there.
func parent(host string) string {
	if _, rest, ok := strings.Cut(host, "."); ok && strings.Contains(rest, ".") {
		return rest
	}
	return host
}

func (c *check) dkim() (lines []Line) {
	for _, k := range c.Keys {
		l := Line{Type: "TXT", For: "dkim", Name: k.Name, Want: k.Strings}
		switch {
		case k.Visible && k.Next:
			l = l.judge(OK, "relayctl dkim rotate may follow")
		case k.Visible:
			l = l.judge(OK, "this key signs")
		case k.Problem == "":
			l = l.judge(Unknown, "the DNS did not answer")
		case k.Next:
			l = l.judge(Advice, "%s: this key cannot take its turn", k.Problem)
		default:
			l = l.judge(Fault, "%s: this key does not sign", k.Problem)
		}
		if k.Visible {
			l.Found = []string{k.Text}
		}
		lines = append(lines, l)
	}
	return lines
}

func (c *check) dmarc(ctx context.Context) Line {
	l := Line{Type: "TXT", For: "dmarc", Name: "_dmarc." + string(c.Domain),
		Want: fmt.Sprintf(`"v=DMARC1; p=quarantine; rua=mailto:postmaster@%s"`, c.Domain)}
	found, err := c.policies(ctx, l.Name, "v=DMARC1")
	if err != nil {
		return l.unanswered(err, Fault, "without it nobody is told what to do with forgeries, and Gmail trusts the domain less")
	}
	l.Found = found
	p := strings.ToLower(tag(found[0], "p"))
	switch {
	case len(found) > 1:
		return l.judge(Fault, "there are %d records, and two count as none (RFC 9989)", len(found))
	case p == "none" || p == "":
		return l.judge(Advice, "forgeries are let through: make it p=quarantine when the reports show that all of your mail passes")
	case p != "quarantine" && p != "reject":
		return l.judge(Fault, "p=%s is none of none, quarantine and reject", p)
	case tag(found[0], "rua") == "":
		return l.judge(OK, "forgeries are stopped; with rua= you would hear of them")
	}
	return l.judge(OK, "forgeries are stopped, and reports come to %s", tag(found[0], "rua"))
}

func (c *check) mtaSTS(ctx context.Context) Line {
	l := Line{Type: "TXT", For: "mta-sts", Name: "_mta-sts." + string(c.Domain), Want: fmt.Sprintf(`"v=STSv1; id=%s"`, cmp.Or(c.STS.ID, "1"))}
	found, err := c.policies(ctx, l.Name, "v=STSv1")
	if err != nil && c.STS.ID != "" {
		return l.unanswered(err, Fault, "we serve a policy, and nobody is told of it (RFC 8461 §3.1)")
	}
	if err != nil {
		return l.unanswered(err, Advice, "with it and a policy at https://mta-sts."+string(c.Domain)+
			"/.well-known/mta-sts.txt, nobody between can read mail to us (RFC 8461)")
	}
	if l.Found = found; len(found) > 1 || tag(found[0], "id") == "" {
		return l.judge(Fault, "it wants to be one record with an id= (RFC 8461 §3.1)")
	}
	if _, err := c.dns.Addrs(ctx, "mta-sts."+c.Domain); err != nil {
		return l.unanswered(err, Fault, "mta-sts."+string(c.Domain)+", where the policy should be, has no address")
	}
	if c.STS.ID != "" {
		return c.ownPolicy(ctx, l)
	}
	return l.judge(OK, "senders are told to insist on TLS")
}

// ownPolicy judges the policy that we serve: senders must hear of the one we have now, believe it, and
// find every mail host of the domain in it.
func (c *check) ownPolicy(ctx context.Context, l Line) Line {
	hosts, err := c.dns.MX(ctx, c.Domain)
	if err != nil && !errors.Is(err, relay.ErrNoRecord) {
		return l.judge(Unknown, "the DNS did not answer: %v", err)
	}
	for _, mx := range hosts {
		if !c.STS.Allows(mx.Host) {
			return l.judge(Fault, "the policy does not name %s, so mail to it stops: add it to mta_sts_mx", mx.Host)
		}
	}
	switch {
	case tag(l.Found[0], "id") != c.STS.ID:
		return l.judge(Fault, "the policy has changed, and the id= has not: senders go by the old one (RFC 8461 §3.1)")
	case c.STS.Problem != "":
		return l.judge(Fault, "%s: nobody believes the policy", c.STS.Problem)
	case c.STS.Mode != relay.STSEnforce:
		return l.judge(Advice, "the policy is mode: %s, so nobody insists on TLS yet; make it \"enforce\" when the TLS reports show no failures", c.STS.Mode)
	}
	return l.judge(OK, "senders are told to insist on TLS")
}

// policyHost judges the name of the web host that serves the policy.
func (c *check) policyHost(ctx context.Context) Line {
	l := Line{Type: "A/AAAA", For: "mta-sts", Name: "mta-sts." + string(c.Domain), Want: fmt.Sprintf("CNAME %s.", c.Hostname)}
	found, err := c.dns.Addrs(ctx, relay.Domain(l.Name))
	if err != nil {
		return l.unanswered(err, Fault, "senders look for the policy there (RFC 8461 §3.3)")
	}
	l.Found = strings.Fields(join(found))
	ours, err := c.dns.Addrs(ctx, c.Hostname)
	if err != nil {
		return l.judge(Unknown, "the addresses of %s cannot be found", c.Hostname)
	}
	if !slices.ContainsFunc(found, func(a netip.Addr) bool { return contains(ours, a) }) {
		return l.judge(Fault, "it leads to another host than %s, which serves the policy", c.Hostname)
	}
	return l.judge(OK, "senders find the policy here")
}

func (c *check) tlsRPT(ctx context.Context) Line {
	l := Line{Type: "TXT", For: "tls-rpt", Name: "_smtp._tls." + string(c.Domain),
		Want: fmt.Sprintf(`"v=TLSRPTv1; rua=mailto:postmaster@%s"`, c.Domain)}
	found, err := c.policies(ctx, l.Name, "v=TLSRPTv1")
	if err != nil {
		return l.unanswered(err, Advice, "with it others report when TLS to us fails (RFC 8460)")
	}
	if l.Found = found; len(found) > 1 || tag(found[0], "rua") == "" {
		return l.judge(Fault, "it wants to be one record with a rua= (RFC 8460 §3)")
	}
	return l.judge(OK, "reports go to %s", tag(found[0], "rua"))
}
