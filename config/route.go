package config

import (
	"path/filepath"
	"slices"
	"strings"

	"relayd/relay"
)

// Route sends some letters to a given host instead of the MX records of their recipients, or says how
// much TLS their hosts owe us. A letter takes it when every selector it has fits.
type Route struct {
	To   []string // canonical domains, "*.example" for every name below one, "*" for all
	From []string // of the sender: the same, or addresses as Address.String writes them
	// Logins are who submitted the letter, alike. MX are names or patterns of the most preferred
	// mail hosts of the recipients.
	Logins []string
	MX     []string

	Via  string // host:port, an IPv6 address in brackets; empty: the MX records
	Host string // the host of Via, a name in canonical form or an IP address without brackets
	Port uint16 // the port of Via
	TLS  string // RouteTLSNone, ...; empty: what the domain asks for, and verify with a User

	User         string // empty: no login there
	PasswordFile string // absolute; holds the password and perhaps a line end

	After int      // so many attempts go without the route first
	On    []string // enhanced statuses and Blocklist: only whoever is refused so goes there
}

// The values of Route.TLS.
const (
	RouteTLSNone   = "none"
	RouteTLSMay    = "may"
	RouteTLSVerify = "verify"
	RouteTLSDANE   = "dane"
)

// Blocklist among Route.On is a refusal because our address is on a list of bad ones.
const Blocklist = "blocklist"

// Matches says whether mail for d may take this route, as far as its recipients decide.
func (r Route) Matches(d relay.Domain) bool {
	for _, to := range r.To {
		parent, below := strings.CutPrefix(to, "*.")
		switch {
		case to == "*", to == string(d):
			return true
		case below && strings.HasSuffix(string(d), "."+parent):
			return true
		}
	}
	return false
}

// Always says that nothing but the recipient's domain decides about the route.
func (r Route) Always() bool {
	return len(r.From)+len(r.Logins)+len(r.MX)+len(r.On)+r.After == 0
}

// route reads one [[route]]; seen are the patterns of those before it that are always taken. Without
// a Config it only makes the names known.
func (r *reader) route(s section, c *Config, seen map[string]bool) {
	var got Route
	to, hasTo := many(s, "to", readPattern)
	from, hasFrom := many(s, "from", readWho)
	logins, hasLogin := many(s, "login", readWho)
	mx, hasMX := many(s, "mx", readHostPattern)
	on, hasOn := many(s, "on", readRefusal)
	one(s, "after", &got.After, readCount(1, 1000))
	var via hostPort
	_, hasVia := one(s, "via", &via, readVia)
	one(s, "tls", &got.TLS, readWord(RouteTLSVerify, RouteTLSDANE, RouteTLSMay, RouteTLSNone))
	r.routeLogin(s, &got, c)
	if c == nil {
		return
	}
	for _, list := range []string{"to", "from", "login", "mx", "on"} {
		if e := s.t.get(list); e != nil && e.val.kind == kindList && len(e.val.items) == 0 && list != "to" {
			r.complain(e.at, wrong("leave the line out", "%s is empty, so no letter could ever take this route", list))
		}
	}
	other := hasFrom || hasLogin || hasMX
	if !hasTo && !other || hasTo && s.t.get("to").val.kind == kindList && len(s.t.get("to").val.items) == 0 {
		r.complain(s.t.at, wrong(`add to = "partner.example", or to = "*" for all`, "this route does not say which domains it is for"))
	}
	only := hasOn || got.After > 0 || got.User != ""
	if !hasVia && s.t.get("via") == nil && (s.t.get("tls") == nil || only) {
		r.complain(s.t.at, wrong(`add via = "smarthost.example:587"`, "this route does not say where it leads"))
	}
	got.To, got.From, got.Logins, got.MX, got.On = whats(to), whats(from), whats(logins), whats(mx), whats(on)
	got.Via, got.Host, got.Port = via.text, via.host, via.port
	if !hasTo {
		got.To = []string{"*"}
	}
	for _, p := range to {
		r.uselessPattern(p, c, seen)
		if !other && !hasOn && got.After == 0 {
			seen[p.what] = true
		}
	}
	c.Routes = append(c.Routes, got)
}

func (r *reader) routeLogin(s section, got *Route, c *Config) {
	at, hasUser := one(s, "user", &got.User, readString)
	folder := "."
	if c != nil {
		folder = filepath.Dir(c.Path)
	}
	hasFile := r.path(s, "password_file", &got.PasswordFile, folder)
	if hasUser && got.TLS == RouteTLSNone {
		r.complain(s.t.get("tls").val.at, wrong(`leave the line out, or write tls = "may" if its certificate cannot be right`,
			"a password does not cross the line without TLS"))
	}
	switch {
	case hasUser && got.User == "":
		r.complain(at, wrong("leave the line out if the host wants no login", "user is empty"))
	case strings.ContainsRune(got.User, 0):
		r.complain(at, wrong("", "user contains a NUL character"))
	case hasUser && !hasFile && s.t.get("password_file") == nil:
		r.complain(at, wrong(`add password_file = "/etc/relayd/smarthost.password", a file only relayd can read`,
			"there is a user and no password_file"))
	case hasFile && !hasUser && s.t.get("user") == nil:
		r.complain(s.t.get("password_file").at, wrong(`add user = "office@smarthost.example"`, "there is a password_file and no user"))
	}
}

// readWho reads whose letters a route is for: an address, a domain, or the domains below one.
func readWho(v *value) (string, *problem) {
	s, err := readString(v)
	if err != nil {
		return "", err
	}
	if !strings.Contains(s, "@") {
		d, p := readPattern(v)
		if p != nil {
			p.text = wrong("", "%q is neither an address nor a domain", clip(s)).text
		}
		return d, p
	}
	a, bad := relay.ParseAddress(s, true)
	if bad != nil {
		return "", wrong(`write "ann@office.example", "office.example" or "*.office.example"`, "%q is neither an address nor a domain", clip(s))
	}
	return a.String(), nil
}

// readHostPattern reads the name of a mail host, or of all below one.
func readHostPattern(v *value) (string, *problem) {
	s, err := readPattern(v)
	switch {
	case err != nil:
		err.text = wrong("", "%q is neither the name of a mail host nor a pattern such as \"*.mail.protection.outlook.com\"", clip(v.text)).text
	case s == "*":
		return "", wrong(`write to = "*" for all mail`, "%q as mx is every host", s)
	}
	return s, err
}

// readRefusal reads one element of on.
func readRefusal(v *value) (string, *problem) {
	s, err := readString(v)
	if err != nil || s == Blocklist {
		return s, err
	}
	st, ok := relay.ParseStatus(s)
	if !ok || !slices.Contains([]int{4, 5}, st[0]) {
		return "", wrong(`write an enhanced status such as "5.7.1", or "blocklist"`, "%q is not a way to be refused", clip(s))
	}
	return st.String(), nil
}
