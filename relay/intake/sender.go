package intake

import (
	"fmt"
	"slices"
	"strings"

	"relayd/relay"
)

// Grant is what a login may send as beside its own addresses.
type Grant struct {
	Any bool
	// Addresses are normalised; the local part "*" stands for all of a domain.
	Addresses []relay.Address
}

func (g Grant) covers(a relay.Address) bool {
	return g.Any || slices.ContainsFunc(g.Addresses, func(have relay.Address) bool {
		return have == a || have.Local == "*" && have.Domain == a.Domain
	})
}

// owns says whether the login may send as a: it is the login's mailbox with or without a tag, or
// an address of ours that leads to it, or granted.
func (d *Directory) owns(o relay.Origin, a relay.Address) bool {
	user := d.userOf(o)
	if user.IsNull() || a.IsNull() {
		return false
	}
	normal, taken := d.Users.Mailbox(a)
	if normal == user || d.Grants[user].covers(normal) {
		return true
	}
	if domain, ours := d.ours(o, a); ours {
		r := resolution{dir: d, orig: a, seen: map[relay.Address]bool{}}
		r.local(relay.Address{Local: a.Local, Domain: domain}, 0)
		return slices.Contains(r.holders, user)
	}
	base, _, tagged := strings.Cut(normal.Local, d.Delimiter)
	return tagged && d.Delimiter != "" && !taken && relay.Address{Local: base, Domain: normal.Domain} == user
}

// checkSender refuses a reverse-path that is not the login's own. The null path is decided by
// From, when it comes.
func (d *Directory) checkSender(o relay.Origin, from relay.Address) error {
	if o.User == "" || from.IsNull() || d.owns(o, from) {
		return nil
	}
	return refuseSender(o.User, "send as "+from.String())
}

// checkFrom refuses a letter that shows somebody else in From than the login. Where From cannot be
// read, a reader might see anybody in it. A name without a domain is one of home.
func (d *Directory) checkFrom(o relay.Origin, from []string, home relay.Domain) error {
	if o.User == "" || d.Grants[d.userOf(o)].Any {
		return nil
	}
	for _, value := range from {
		writers, ok := mailboxes(value)
		if !ok || len(writers) == 0 {
			return refuseSender(o.User, "send this: its From field names no address that can be read")
		}
		for _, w := range writers {
			a, err := w.address(home)
			if err != nil || !d.owns(o, a) {
				return refuseSender(o.User, fmt.Sprintf("send as %s, which stands in From", w.text))
			}
		}
	}
	return nil
}

// userOf is the login's mailbox; null without a login.
func (d *Directory) userOf(o relay.Origin) relay.Address {
	a, err := relay.ParseAddress(o.User, true)
	if err != nil {
		return relay.Address{}
	}
	a, _ = d.Users.Mailbox(a)
	return a
}

func refuseSender(user, what string) error {
	return relay.Refuse("intake: sender", 550, "5.7.1", user+" may not "+what)
}
