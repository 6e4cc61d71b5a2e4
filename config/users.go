package config

import (
	"fmt"
	"strings"

	"relayd/relay"
)

// users reads the [users."x"] tables. Who is a user stands in the users file, which may change
// meanwhile, so a table for somebody unknown is no complaint.
func (r *reader) users(s section, c *Config) {
	all := s.sub("users")
	for _, e := range all.t.entries {
		e.used = true
		a, err := readLogin(e.name, c.DefaultDomain)
		if err != nil {
			r.complain(e.at, err)
		}
		if _, twice := c.Users[a]; twice {
			r.complain(e.at, wrong("write everything about a user into one table", "the user %s is given twice", a))
		}
		u := r.user(s.section(s.tableOf(e.val, fmt.Sprintf("[users.%q]", e.name)), "users.*"))
		if err == nil {
			c.Users[a] = u
		}
	}
	if len(all.t.entries) == 0 {
		r.user(s.section(newTable(s.t.at), "users.*"))
	}
}

func (r *reader) user(s section) UserConfig {
	var u UserConfig
	grants, given := many(s, "send_as", readGrant)
	u.SendAs = whats(grants)
	at, _ := one(s, "send_as_any", &u.SendAsAny, readBool)
	if u.SendAsAny && given {
		r.warn(at, "", "send_as_any lets this user send as anybody, so send_as changes nothing")
	}
	one(s, "junk_in_pop3", &u.JunkInPOP3, readBool)
	if at, ok := one(s, "junk_score", &u.JunkScore, readScore); ok {
		r.scores = append(r.scores, at)
	}
	one(s, "recipients_hour", &u.RecipientsHour, readCount(1, most))
	one(s, "recipients_day", &u.RecipientsDay, readCount(1, most))
	return u
}

// readLogin reads the name of a user.
func readLogin(name string, domain relay.Domain) (relay.Address, *problem) {
	a, err := relay.ParseAddress(name, true)
	if err == nil {
		return normalize(a), nil
	}
	hint := ""
	if !strings.Contains(name, "@") && domain != "" {
		hint = fmt.Sprintf("did you mean [users.%q]?", clip(name)+"@"+string(domain))
	}
	return a, wrong(hint, "%q is not the address of a user: %s", clip(name), err)
}

// readGrant reads an address somebody may send as; "*" as its local part stands for all.
func readGrant(v *value) (relay.Address, *problem) {
	s, p := readString(v)
	if p != nil {
		return relay.Address{}, p
	}
	if s == "*" {
		return relay.Address{}, wrong("did you mean send_as_any = true?", "%q is not an address", s)
	}
	a, err := relay.ParseAddress(s, true)
	if err == nil && strings.Contains(a.Local, "*") && a.Local != "*" {
		err = relay.ErrAddressSyntax
	}
	if err != nil {
		return a, wrong(`write "info@office.example", or "*@office.example" for everybody of a domain`, "%q is not an address: %s", clip(s), err)
	}
	return normalize(a), nil
}
