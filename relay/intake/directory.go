package intake

import (
	"net/netip"
	"slices"
	"strings"

	"relayd/relay"
)

// Directory knows which addresses are ours and who may send elsewhere. It is a snapshot of the
// config: a reload makes a new one, and a transaction keeps the one it began with.
type Directory struct {
	Hostname  relay.Domain
	Default   relay.Domain // whose postmaster answers <postmaster> and postmaster@Hostname
	Domains   map[relay.Domain]Domain
	Backups   map[relay.Domain]Known // domains of others, whose mail we take from strangers too
	Trusted   []netip.Prefix         // may relay without a login
	Delimiter string                 // divides user from tag in user+tag; empty: no tags
	Users     Users
	Grants    map[relay.Address]Grant // by login, normalised
}

// Domain is one mail domain whose letters end here.
type Domain struct {
	Postmaster string              // a local part of this domain or an address
	Aliases    map[string][]string // local part, normalised, to local parts or addresses
	// Elsewhere says that another server of ours keeps its mail: the queue takes it, not the maildirs.
	Elsewhere bool
	Known     Known // who is there beside the users; only of a domain Elsewhere
}

// Known says whom a domain that is kept elsewhere has.
type Known struct {
	Names map[string]bool // local parts, normalised
	Ask   bool            // the server that keeps it is asked about all others
}

// Users says which mailboxes exist; relay/users stands behind it.
type Users interface {
	// Mailbox returns the one spelling of a under which its mail is kept, and whether somebody
	// has it.
	Mailbox(a relay.Address) (relay.Address, bool)
}

// Bounds of the resolution of one RCPT command.
const (
	maxAliasDepth   = 20
	maxAliasTargets = 1000
)

// Trusts says whether a client may relay without a login.
func (d *Directory) Trusts(client netip.Addr) bool {
	client = client.Unmap()
	return slices.ContainsFunc(d.Trusted, func(p netip.Prefix) bool { return p.Contains(client) })
}

// Classify resolves one RCPT TO address into the places the letter must go to. A refusal is a
// *relay.Failure: 550 5.1.1 for an unknown user of ours, 550 5.7.1 for anybody else's address
// from a client that may not relay. Never an open relay: the only way to a foreign recipient is
// through mayRelay or through an alias that the operator wrote.
func (d *Directory) Classify(o relay.Origin, to relay.Address) ([]relay.Recipient, error) {
	domain, ours := d.ours(o, to)
	if known, ok := d.Backups[to.Domain]; ok && !d.mayRelay(o) {
		return d.backup(known, to)
	}
	if !ours {
		if !d.mayRelay(o) {
			return nil, relay.Refuse("intake: classify", 550, "5.7.1",
				"we do not relay to "+string(to.Domain)+" for you: log in, or send from a trusted network")
		}
		return []relay.Recipient{{Addr: to, Orig: to.String()}}, nil
	}
	r := resolution{dir: d, orig: to, seen: map[relay.Address]bool{}}
	r.local(relay.Address{Local: to.Local, Domain: domain}, 0)
	if len(r.found) == 0 && strings.EqualFold(to.Local, relay.Postmaster.Local) {
		// It always exists: where the config's postmaster leads nowhere, its letters are kept in a
		// maildir of that name.
		mailbox := relay.Address{Local: relay.Postmaster.Local, Domain: domain}
		r.keep(mailbox, mailbox, false)
	}
	switch {
	case r.tooMany:
		return nil, relay.Refuse("intake: classify", 550, "5.1.4", "this alias leads to too many addresses")
	case len(r.found) == 0:
		return nil, relay.Refuse("intake: classify", 550, "5.1.1", "there is no mailbox "+to.String()+" here")
	}
	return r.found, nil
}

// backup resolves an address in a domain that we are the backup MX of, for a stranger: somebody who
// is not known would be refused by its own server later, and we could give the letter back to nobody.
func (d *Directory) backup(known Known, to relay.Address) ([]relay.Recipient, error) {
	if known.Ask || d.has(known, to) {
		return []relay.Recipient{{Addr: to, Orig: to.String()}}, nil
	}
	return nil, relay.Refuse("intake: classify", 550, "5.1.1", "there is no mailbox "+to.String()+", says the list of "+string(to.Domain))
}

// has says whether a domain kept elsewhere is known to have an address, with or without its tag. Every
// domain has a postmaster (RFC 5321 §4.5.1).
func (d *Directory) has(known Known, a relay.Address) bool {
	normal, _ := d.Users.Mailbox(a)
	base := normal.Local
	if d.Delimiter != "" {
		base, _, _ = strings.Cut(normal.Local, d.Delimiter)
	}
	return known.Names[normal.Local] || base != "" && known.Names[base] || normal.Local == relay.Postmaster.Local
}

// unsure says whether only the server that keeps it can tell whether there is an address that Classify
// let through.
func (d *Directory) unsure(o relay.Origin, a relay.Address) bool {
	if known, ok := d.Backups[a.Domain]; ok {
		return known.Ask && !d.mayRelay(o) && !d.has(known, a)
	}
	domain, ours := d.Domains[a.Domain]
	if !ours || !domain.Elsewhere || !domain.Known.Ask || d.has(domain.Known, a) {
		return false
	}
	base := a
	if d.Delimiter != "" {
		base.Local, _, _ = strings.Cut(a.Local, d.Delimiter)
	}
	_, whole := d.Users.Mailbox(a)
	_, untagged := d.Users.Mailbox(base)
	return !whole && !untagged
}

func (d *Directory) mayRelay(o relay.Origin) bool { return o.Trusted || o.User != "" }

// ours says in which of our domains an address lies. Our own host name stands for the default
// domain, and so does an address literal of the address the client reached us on (RFC 5321
// §4.1.3) and the <postmaster> without a domain (§4.5.1).
func (d *Directory) ours(o relay.Origin, to relay.Address) (relay.Domain, bool) {
	_, ok := d.Domains[to.Domain]
	switch {
	case ok:
		return to.Domain, true
	case to.Domain == "" || to.Domain == d.Hostname:
		return d.Default, true
	case to.Domain.IsLiteral():
		return d.Default, to.Domain.Literal() == o.Server.Addr().Unmap()
	}
	return "", false
}

// resolution follows aliases for one RCPT command.
type resolution struct {
	dir     *Directory
	orig    relay.Address
	seen    map[relay.Address]bool
	found   []relay.Recipient
	tooMany bool
	holders []relay.Address // the users among those found
	tag     string          // with its delimiter, of the address being resolved
}

// local resolves an address in one of our domains: alias, mailbox, postmaster, and then the same
// without its tag.
func (r *resolution) local(a relay.Address, depth int) {
	mailbox, exists := r.dir.Users.Mailbox(a)
	if r.tooMany {
		return
	}
	if r.seen[mailbox] {
		// An alias that names itself means the mailbox of that name beside its other targets.
		if exists || r.listed(mailbox) {
			r.keep(a, mailbox, exists)
		}
		return
	}
	r.seen[mailbox] = true
	domain := r.dir.Domains[mailbox.Domain]
	targets, isAlias := domain.Aliases[mailbox.Local]
	switch {
	case depth > maxAliasDepth:
		r.tooMany = true
	case isAlias:
		tag := r.tag
		r.tag = "" // of the alias
		for _, t := range targets {
			r.target(t, mailbox.Domain, depth+1)
		}
		r.tag = tag
	case exists || r.listed(mailbox):
		r.keep(a, mailbox, exists)
	case mailbox.Local == relay.Postmaster.Local && domain.Postmaster != "":
		r.target(domain.Postmaster, mailbox.Domain, depth+1)
	default:
		before := len(r.found)
		if user, tag, ok := strings.Cut(a.Local, r.dir.Delimiter); ok && r.dir.Delimiter != "" && user != "" {
			outer := r.tag
			r.tag = r.dir.Delimiter + tag
			r.local(relay.Address{Local: user, Domain: a.Domain}, depth+1)
			r.tag = outer
		}
		if domain.Known.Ask && len(r.found) == before && r.tag == "" {
			r.keep(a, mailbox, false)
		}
	}
}

// listed says whether a domain kept elsewhere is known to have a mailbox that is nobody's here.
func (r *resolution) listed(mailbox relay.Address) bool {
	domain := r.dir.Domains[mailbox.Domain]
	return domain.Elsewhere && domain.Known.Names[mailbox.Local]
}

// keep adds a mailbox of one of our domains, which lies here or at the server that keeps the domain. There
// the tag goes along.
func (r *resolution) keep(a, mailbox relay.Address, exists bool) {
	if exists {
		r.holders = append(r.holders, mailbox)
	}
	if r.dir.Domains[mailbox.Domain].Elsewhere {
		mailbox.Local += r.tag
		r.add(relay.Recipient{Addr: mailbox})
		return
	}
	r.add(relay.Recipient{Addr: r.deliveredFor(a), Mailbox: mailbox})
}

// target resolves what the config wrote behind an alias. The config was checked, so text that is
// no address leads nowhere rather than to an error for the client.
func (r *resolution) target(text string, domain relay.Domain, depth int) {
	if !strings.Contains(text, "@") {
		r.local(relay.Address{Local: text, Domain: domain}, depth)
		return
	}
	a, err := relay.ParseAddress(text, true)
	if err != nil {
		return
	}
	if _, ours := r.dir.Domains[a.Domain]; ours {
		r.local(a, depth)
		return
	}
	r.add(relay.Recipient{Addr: a})
}

// deliveredFor is what Delivered-To names: the address of RCPT TO, with its tag and before its
// aliases, so that a reader knows why a letter came.
func (r *resolution) deliveredFor(a relay.Address) relay.Address {
	if _, ours := r.dir.Domains[r.orig.Domain]; ours {
		return r.orig
	}
	return a
}

func (r *resolution) add(rcpt relay.Recipient) {
	if len(r.found) >= maxAliasTargets {
		r.tooMany = true
		return
	}
	rcpt.Orig = r.orig.String()
	r.found = append(r.found, rcpt)
}
