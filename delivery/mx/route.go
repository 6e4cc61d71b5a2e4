package mx

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"

	"relayd/relay"
)

// Route sends some letters to a fixed host instead of the MX of their recipients, or says how much TLS
// those owe us. A letter takes it
// when every selector that is not empty fits. Which letters may leave at all is not decided here.
type Route struct {
	To     string   // "partner.example", "*.partner.example" (its subdomains only), "*"
	From   []string // the sender: a domain, "*.office.example" or an address
	Logins []string // who submitted it, alike
	MX     []string // a most preferred mail host of the recipients: a name or "*.protection.example"

	Via relay.Domain // a name, dialled by its addresses without a look at its MX, or a literal; empty: the MX
	// Socket is the path of a Unix socket and takes the place of Via. LMTP is spoken there instead of SMTP.
	Socket string
	LMTP   bool
	Port   int    // 0: Config.Port. At 465 TLS comes first (RFC 8314 §3.3)
	TLS    string // TLSNone, ...; empty: what the domain asks for, and TLSVerify with a User

	// User and Password log in there (RFC 4954), under TLS or not at all. Empty: no login.
	User     string
	Password Secret

	// After lets so many attempts be made without the route first. On lets every attempt be made
	// without it, and sends the recipients who were refused in one of these ways to it at once: an
	// enhanced status such as "5.7.1", or Blocklist.
	After int
	On    []string
}

// Blocklist among Route.On is a refusal that says that our address is on a list of bad ones.
const Blocklist = "blocklist"

// Secret is a password that logs do not show.
type Secret string

// String hides it.
func (Secret) String() string { return "***" }

// GoString hides it from %#v too.
func (Secret) GoString() string { return "***" }

// LogValue hides it from slog.
func (Secret) LogValue() slog.Value { return slog.StringValue("***") }

// Rescue is a refusal that sent recipients to a route (Route.On).
type Rescue struct {
	Domain relay.Domain // of the recipients
	Host   string       // who refused
	Reply  relay.Reply
	Via    relay.Domain
}

func (r *Route) matches(d relay.Domain) bool { return matchDomain(r.To, d) }

func matchDomain(pattern string, d relay.Domain) bool {
	if suffix, ok := strings.CutPrefix(pattern, "*"); ok {
		return strings.HasSuffix(string(d), suffix)
	}
	return relay.Domain(pattern) == d
}

// matchAddress says whether one of the patterns is for a. Local parts are ours, and we do not tell
// them apart by their case.
func matchAddress(patterns []string, a relay.Address) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		if strings.Contains(p, "@") {
			return strings.EqualFold(p, a.String())
		}
		return !a.IsNull() && matchDomain(p, a.Domain)
	})
}

// takes says whether the route is for the letter as far as that can be told without the DNS.
func (r *Route) takes(env *relay.Envelope, d relay.Domain) bool {
	if !r.matches(d) || len(r.From) > 0 && !matchAddress(r.From, env.From) {
		return false
	}
	if len(r.Logins) == 0 {
		return true
	}
	who, err := relay.ParseAddress(env.Origin.User, true)
	return err == nil && matchAddress(r.Logins, who)
}

// choice is where a letter goes by the routes of today.
type choice struct {
	via    *Route // nil: to the MX
	rescue *Route // for whoever is refused; nil: nobody
}

// choose goes through the routes in their order. Its error is one of the DNS, which a route by MX
// host asks.
func (c *Client) choose(ctx context.Context, env *relay.Envelope, d relay.Domain) (ch choice, err error) {
	if env.Via != "" {
		return c.ordered(env.Via, d), nil
	}
	var hosts []relay.Domain
	asked := false
	routes := *c.routes.Load()
	for i := range routes {
		r := &routes[i]
		if !r.takes(env, d) || r.To == "*" && c.isBackup(d) {
			continue
		}
		if len(r.MX) > 0 && !asked {
			if hosts, err = c.preferred(ctx, d); err != nil {
				return choice{}, err
			}
			asked = true
		}
		if len(r.MX) > 0 && !r.isFor(hosts) {
			continue
		}
		switch waits := r.After > 0 && env.Attempt <= r.After; {
		case !waits && (r.After > 0 || len(r.On) == 0):
			ch.via = r
			return ch, nil
		case len(r.On) > 0 && ch.rescue == nil:
			ch.rescue = r
		}
	}
	return ch, nil
}

func (r *Route) isFor(hosts []relay.Domain) bool {
	return slices.ContainsFunc(hosts, func(h relay.Domain) bool {
		return slices.ContainsFunc(r.MX, func(p string) bool { return matchDomain(p, h) })
	})
}

// Hosts are the names of the hosts that mail for d goes to first: those of a route that is for all of it, or
// the most preferred mail hosts.
func (c *Client) Hosts(ctx context.Context, d relay.Domain) ([]relay.Domain, error) {
	for _, r := range *c.routes.Load() {
		always := len(r.From)+len(r.Logins)+len(r.MX)+len(r.On)+r.After == 0
		switch {
		case !always || !r.matches(d) || r.To == "*" && c.isBackup(d):
		case r.Via != "":
			return []relay.Domain{r.Via}, nil
		case r.Socket != "":
			return nil, nil
		}
	}
	return c.preferred(ctx, d)
}

// preferred are the names of the most preferred mail hosts of d.
func (c *Client) preferred(ctx context.Context, d relay.Domain) ([]relay.Domain, error) {
	if d.IsLiteral() {
		return nil, nil
	}
	mxs, err := c.cfg.Resolver.MX(ctx, d)
	switch {
	case errors.Is(err, relay.ErrNoRecord), err == nil && len(mxs) == 0:
		return []relay.Domain{d}, nil // RFC 5321 §5.1: the implicit MX
	case err != nil:
		return nil, err
	}
	best := slices.MinFunc(mxs, func(a, b relay.MX) int { return int(a.Pref) - int(b.Pref) })
	var hosts []relay.Domain
	for _, m := range mxs {
		if m.Pref == best.Pref && m.Host != "" {
			hosts = append(hosts, m.Host)
		}
	}
	return hosts, nil
}

// rescue offers the recipients who were refused in a way that r knows to its host. What that comes
// to is their result, well or badly: as long as the host cannot be reached they wait.
func (c *Client) rescue(ctx context.Context, l *letter, d relay.Domain, r *Route) {
	var refused []int
	for i, st := range l.state {
		if st.result.Outcome != relay.Delivered && st.result.Host != "" && r.rescues(st.result.Reply) {
			refused = append(refused, i)
		}
	}
	if len(refused) == 0 || ctx.Err() != nil {
		return
	}
	first := l.state[refused[0]].result
	c.log.Warn("we are refused, going by the route", "id", l.env.ID, "mx", first.Host, "code", first.Reply.Code,
		"status", first.Reply.Status, "via", r.Via)
	if c.cfg.Rescued != nil {
		c.cfg.Rescued(Rescue{Domain: d, Host: first.Host, Reply: first.Reply, Via: r.Via})
	}
	env := l.env
	env.Rcpts = nil
	for _, i := range refused {
		env.Rcpts = append(env.Rcpts, l.env.Rcpts[i])
	}
	again := &letter{env: env, body: l.body, size: l.size, state: make([]rcptState, len(refused)), trouble: map[string]bool{}}
	c.goVia(ctx, again, d, choice{via: r})
	for n, res := range again.results() {
		l.state[refused[n]] = rcptState{result: res, rank: rankWords, settled: true}
	}
}

// rescues says whether a refusal is one that r is for.
func (r *Route) rescues(reply relay.Reply) bool {
	return slices.ContainsFunc(r.On, func(on string) bool {
		if on == Blocklist {
			return speaksOfList(reply)
		}
		return on == reply.Status.String()
	})
}

// listWords are how the servers of this world say that an address is on a list; those without words
// of their own name the list.
var listWords = []string{
	"blocklist", "block list", "blacklist", "black list", "denylist", "dnsbl", "rbl", "blocked using", "is listed", "listed in",
	"listed at", "listed by", "banned sending ip", "reputation", "spamhaus", "spamcop", "barracudacentral", "sorbs.net", "uceprotect",
}

func speaksOfList(reply relay.Reply) bool {
	if reply.Code < 400 {
		return false
	}
	text := strings.ToLower(reply.Text)
	return slices.ContainsFunc(listWords, func(word string) bool { return strings.Contains(text, word) })
}
