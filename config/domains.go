package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/text/unicode/norm"

	"relayd/relay"
)

// NormalizeLocal is the form in which local parts of ours are compared: lower case, Unicode
// normal form C. relay/users and this package must agree on it, which a test sees to.
func NormalizeLocal(local string) string {
	return norm.NFC.String(strings.ToLower(norm.NFC.String(local)))
}

// domains reads the [domains."x"] tables and then follows the aliases through all of them.
func (r *reader) domains(s section, c *Config) {
	all := s.sub("domains")
	g := graph{places: map[relay.Address]span{}, targets: map[relay.Address][]relay.Address{},
		delimiter: c.SMTP.RecipientDelimiter}
	for _, e := range all.t.entries {
		d := r.domainOf(e)
		if _, twice := c.Domains[d]; twice {
			r.complain(e.at, wrong("write everything about a domain into one table", "the domain %s is given twice", d))
		}
		header := fmt.Sprintf("[domains.%q]", e.name)
		t := s.section(s.tableOf(e.val, header), "domains.*")
		if dc := r.domain(t, d, e.at, &g); d != "" {
			c.Domains[d] = dc
			c.DefaultDomain = cmp.Or(c.DefaultDomain, d)
		}
	}
	if len(all.t.entries) == 0 {
		r.warn(all.t.at, `add a table such as [domains."office.example"]`, "no mail is delivered here: there is no domain")
		r.domain(s.section(newTable(s.t.at), "domains.*"), "", span{}, &graph{})
	}
	for _, loop := range g.loops() {
		r.complain(g.places[loop[0]], wrong("let one of them lead to a mailbox instead",
			"the alias %q leads back to itself: %s", loop[0].Local, trail(loop)))
	}
}

// domainOf is the domain that e is a table of; empty, after a complaint, where its name is none.
func (r *reader) domainOf(e *entry) relay.Domain {
	e.used = true
	r.dotted(e)
	d, err := parseName(e.name)
	if err != nil {
		r.complain(e.at, err)
	}
	return d
}

// dotted complains about [domains.office.example]: without its quotes the name is two keys.
func (r *reader) dotted(e *entry) {
	if e.val.table == nil {
		return
	}
	for _, inner := range e.val.table.entries {
		if inner.val.kind == kindTable && inner.name != "aliases" {
			inner.used = true
			r.complain(e.at, wrong(fmt.Sprintf("did you mean [domains.%q]?", e.name+"."+inner.name),
				"the name of a domain has dots and must stand in quotes"))
		}
	}
}

// domain reads one domain and adds its aliases to the graph.
func (r *reader) domain(s section, d relay.Domain, at span, g *graph) DomainConfig {
	dc := DomainConfig{Aliases: map[string][]string{}}
	one(s, "language", &dc.Language, readWord("en", "de", "fr", "es"))
	r.server(s, d, &dc)
	r.policyHost(s, &dc)
	r.aliases(s.sub("aliases"), d, g, dc.Aliases)
	own := relay.Address{Local: relay.Postmaster.Local, Domain: d}
	target := own
	place, ok := one(s, "postmaster", &target, func(v *value) (relay.Address, *problem) { return readTarget(v, d) })
	dc.Postmaster = target.String()
	switch _, aliased := dc.Aliases[own.Local]; {
	case aliased || d == "":
	case ok && target != own:
		g.add(own, place, target)
	case s.t.get("postmaster") == nil && dc.Server == (Server{}):
		r.warn(at, fmt.Sprintf(`add to [domains.%q] a line such as postmaster = "ann"`, d),
			"nobody is named as postmaster of %s: its letters will wait in a mailbox called postmaster", d)
	}
	return dc
}

// policyHost reads the MTA-STS policy that is served for a domain.
func (r *reader) policyHost(s section, dc *DomainConfig) {
	var mode string
	one(s, "mta_sts", &mode, readWord(string(relay.STSEnforce), string(relay.STSTesting), string(relay.STSNone)))
	hosts, _ := many(s, "mta_sts_mx", readDomain)
	dc.STS, dc.STSHosts = relay.STSMode(mode), whats(hosts)
	if len(hosts) > 0 && mode == "" {
		r.warn(hosts[0].at, "", "mta_sts is not set, so mta_sts_mx changes nothing")
	}
}

func (r *reader) aliases(s section, d relay.Domain, g *graph, dst map[string][]string) {
	for _, e := range s.t.entries {
		e.used = true
		name, err := readAlias(e.name, d)
		if err != nil {
			r.complain(e.at, err)
			continue
		}
		if _, twice := dst[name.Local]; twice {
			r.complain(e.at, wrong("names match in any case: put all targets into one list", "the alias %q is given twice", clip(e.name)))
		}
		targets := elements(s.reader, e.val, func(v *value) (relay.Address, *problem) { return readTarget(v, d) })
		if e.val.kind == kindList && len(e.val.items) == 0 {
			r.complain(e.at, wrong("", "the alias %q leads nowhere", clip(e.name)))
		}
		dst[name.Local] = []string{}
		for _, t := range targets {
			if text := t.what.String(); !slices.Contains(dst[name.Local], text) {
				dst[name.Local] = append(dst[name.Local], text)
			}
		}
		g.add(name, e.at, whats(targets)...)
	}
}

// readAlias checks the name of an alias: a local part, in any case.
func readAlias(name string, d relay.Domain) (relay.Address, *problem) {
	if local, domain, ok := strings.Cut(name, "@"); ok {
		return relay.Address{}, wrong(fmt.Sprintf("did you mean %q in [domains.%q.aliases]?", clip(local), clip(domain)),
			"the name of an alias is only what stands before the @, not %q", clip(name))
	}
	if name == "*" || name == "" {
		return relay.Address{}, wrong("name every alias", "%q cannot be the name of an alias", name)
	}
	if d == "" { // complained about already
		d = "invalid.test"
	}
	a, err := relay.ParseAddress(name+"@"+string(d), true)
	if err != nil || bare(a) != name {
		return relay.Address{}, wrong("it is what stands before the @ in an address", "%q cannot be the name of an alias%s", clip(name), because(err))
	}
	return normalize(a), nil
}

// readTarget reads where mail shall go: "ann", a mailbox or alias of domain d, or a whole address.
func readTarget(v *value, d relay.Domain) (relay.Address, *problem) {
	s, p := readString(v)
	if p != nil {
		return relay.Address{}, p
	}
	if d == "" {
		d = "invalid.test"
	}
	whole := s
	if !strings.Contains(s, "@") {
		whole = s + "@" + string(d)
	}
	a, err := relay.ParseAddress(whole, true)
	switch {
	case strings.Contains(s, ",") && err != nil:
		return a, wrong(`write a list of strings: ["ann", "bob"]`, "%q is not one address", clip(s))
	case err != nil || whole != s && bare(a) != s:
		return a, wrong(`write "ann" for a mailbox here or "carol@partner.example" for one elsewhere`, "%q is not an address%s", clip(s), because(err))
	}
	return a, nil
}

// bare is a local part as SMTP writes it. One that needs quotes is a slip where it stands without
// a domain: nobody calls a mailbox .ann.
func bare(a relay.Address) string {
	return strings.TrimSuffix(a.String(), "@"+string(a.Domain))
}

func because(err error) string {
	if err == nil {
		return ""
	}
	return ": " + err.Error()
}

func normalize(a relay.Address) relay.Address {
	return relay.Address{Local: NormalizeLocal(a.Local), Domain: a.Domain}
}

// graph is where aliases lead, through all domains, by normalised addresses.
type graph struct {
	order     []relay.Address
	places    map[relay.Address]span
	targets   map[relay.Address][]relay.Address
	delimiter string
}

func (g *graph) add(name relay.Address, at span, targets ...relay.Address) {
	if _, ok := g.targets[name]; ok || g.targets == nil {
		return
	}
	g.order = append(g.order, name)
	g.places[name] = at
	g.targets[name] = targets
}

// alias is the alias that takes mail for a, with or without a tag: sales+x is sales.
func (g *graph) alias(a relay.Address) (relay.Address, bool) {
	a = normalize(a)
	if _, ok := g.targets[a]; ok || g.delimiter == "" {
		return a, ok
	}
	base, _, tagged := strings.Cut(a.Local, g.delimiter)
	a.Local = base
	_, ok := g.targets[a]
	return a, ok && tagged
}

// keepsCopy says whether an alias names itself beside others: relay/intake then means the mailbox
// of that name, as people know it from Postfix.
func (g *graph) keepsCopy(alias, to relay.Address) bool {
	return alias == to && len(g.targets[alias]) > 1
}

// loops returns every way an alias leads back to itself, each once. It keeps its own stack: the
// chain is as long as the file's author likes.
func (g *graph) loops() [][]relay.Address {
	var found [][]relay.Address
	done := map[relay.Address]bool{}
	for _, start := range g.order {
		var path []relay.Address
		next := map[relay.Address]int{} // on the path: which target to follow next
		push := func(a relay.Address) { path = append(path, a); next[a] = 0 }
		if !done[start] {
			push(start)
		}
		for len(path) > 0 {
			here := path[len(path)-1]
			i := next[here]
			if i == len(g.targets[here]) {
				done[here] = true
				delete(next, here)
				path = path[:len(path)-1]
				continue
			}
			next[here]++
			to, ok := g.alias(g.targets[here][i])
			if _, onPath := next[to]; ok && onPath && g.keepsCopy(here, to) {
				continue
			} else if ok && onPath {
				found = append(found, append(slices.Clone(path[slices.Index(path, to):]), to))
			} else if ok && !done[to] {
				push(to)
			}
		}
	}
	return found
}

// trail writes a loop as people read it.
func trail(loop []relay.Address) string {
	if n := len(loop); n > 12 {
		loop = append(append(slices.Clone(loop[:6]), relay.Address{Local: "…"}), loop[n-5:]...)
	}
	parts := make([]string, len(loop))
	for i, a := range loop {
		parts[i] = a.String()
	}
	return strings.Join(parts, " → ")
}
