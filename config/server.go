package config

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"relayd/relay"
)

// Server is a mail server behind this one that keeps the mail of a domain; zero: the maildirs here do.
type Server struct {
	LMTP   bool   // RFC 2033; else SMTP
	Socket string // absolute path of a Unix socket; empty: Host and Port
	Host   string // a name in canonical form or an IP address without brackets
	Port   uint16
	Text   string // as the file has it
}

// Known says whom a domain kept elsewhere has.
type Known struct {
	// Recipients are local parts in the form of NormalizeLocal, beside users, aliases and postmaster.
	Recipients []string
	Ask        bool // the server that keeps the domain is asked about everybody else
}

// RelayDomain is a domain that others keep and whose mail we take while they are away.
type RelayDomain struct {
	Known
	GiveUpAfter time.Duration // instead of Queue.GiveUpAfter
}

// relayPatience is the GiveUpAfter of a RelayDomain that says nothing: whoever has a second server
// expects it to hold out longer than anybody's first.
const relayPatience = 14 * 24 * time.Hour

// askWord among recipients stands alone.
const askWord = "ask"

// server reads where the mail of a domain of ours is kept.
func (r *reader) server(s section, d relay.Domain, dc *DomainConfig) {
	one(s, "server", &dc.Server, readKeeper)
	known, given := r.recipients(s, d)
	if dc.Known = known; given && s.t.get("server") == nil {
		r.complain(s.t.get("recipients").at, wrong("leave it out, and add people with `relayctl user add`",
			"recipients are for a domain with a server: who has a mailbox here stands in the users file"))
	}
}

// recipients reads a list of names, or "ask".
func (r *reader) recipients(s section, d relay.Domain) (known Known, given bool) {
	e := s.ask("recipients")
	if e == nil {
		return known, false
	}
	if text, err := readString(e.val); err == nil && text == askWord {
		return Known{Ask: true}, true
	}
	for _, a := range elements(r, e.val, func(v *value) (relay.Address, *problem) { return readTarget(v, d) }) {
		switch name := NormalizeLocal(a.what.Local); {
		case a.what.Domain != d && d != "":
			r.complain(a.at, wrong("", "%s is not in the domain %s", a.what, d))
		case a.what.Local == askWord:
			r.complain(a.at, wrong(`write recipients = "ask", without a list`, "\"ask\" stands alone: that server then knows about everybody"))
		case !slices.Contains(known.Recipients, name):
			known.Recipients = append(known.Recipients, name)
		}
	}
	if e.val.kind == kindList && len(e.val.items) == 0 {
		r.complain(e.at, wrong(`list them, or write recipients = "ask"`, "recipients is empty"))
	}
	return known, true
}

// readKeeper reads "lmtp:/path", "lmtp:host:port" or "smtp:host:port".
func readKeeper(v *value) (Server, *problem) {
	s, err := readString(v)
	if err != nil {
		return Server{}, err
	}
	hint := `write "lmtp:/run/dovecot/lmtp", "lmtp:127.0.0.1:24" or "smtp:inner.office.example:25"`
	protocol, where, _ := strings.Cut(s, ":")
	lmtp := protocol == "lmtp"
	if !lmtp && protocol != "smtp" || where == "" {
		return Server{}, wrong(hint, "%q does not say how to reach a server", clip(s))
	}
	where = strings.TrimPrefix(where, "unix:")
	if strings.HasPrefix(where, "/") {
		switch {
		case !lmtp:
			return Server{}, wrong(fmt.Sprintf("did you mean %q?", "lmtp:"+clip(where)), "SMTP needs a host and a port, not a socket such as %q", clip(where))
		case strings.ContainsRune(where, 0) || len(where) > 100:
			return Server{}, wrong("", "%q cannot be the path of a socket", clip(where))
		}
		return Server{LMTP: true, Socket: filepath.Clean(where), Text: s}, nil
	}
	hp, ok := splitHostPort(where)
	if !ok || hp.port == 0 || hp.host == "" {
		return Server{}, wrong(hint, "%q does not say host and port", clip(s))
	}
	if _, bad := netip.ParseAddr(hp.host); bad != nil {
		d, err := parseName(hp.host)
		if err != nil {
			return Server{}, err
		}
		hp.host = string(d)
	}
	return Server{LMTP: lmtp, Host: hp.host, Port: hp.port, Text: s}, nil
}

// relayDomains reads the [relay_domains."x"] tables.
func (r *reader) relayDomains(s section, c *Config) {
	all := s.sub("relay_domains")
	if len(all.t.entries) == 0 {
		r.relayDomain(s.section(newTable(s.t.at), "relay_domains.*"), "", nil)
	}
	for _, e := range all.t.entries {
		d := r.domainOf(e)
		t := s.section(s.tableOf(e.val, fmt.Sprintf("[relay_domains.%q]", e.name)), "relay_domains.*")
		rd := r.relayDomain(t, d, e)
		_, ours := c.Domains[d]
		_, twice := c.RelayDomains[d]
		switch {
		case d == "":
		case ours:
			r.complain(e.at, wrong("", "the mail of %s is delivered here, by [domains.%q]: it cannot be relayed as well", d, d))
		case twice:
			r.complain(e.at, wrong("write everything about a domain into one table", "the domain %s is given twice", d))
		default:
			c.RelayDomains[d] = rd
		}
	}
}

func (r *reader) relayDomain(s section, d relay.Domain, e *entry) RelayDomain {
	rd := RelayDomain{GiveUpAfter: relayPatience}
	known, given := r.recipients(s, d)
	rd.Known = known
	if !given && e != nil && s.t.get("recipients") == nil {
		r.complain(e.at, wrong(`add recipients = ["carol", "dora"], or recipients = "ask" where its own server can tell`,
			"nobody says who has a mailbox in %s: we would take mail for anybody, and could not give it back", e.name))
	}
	one(s, "give_up_after", &rd.GiveUpAfter, readDuration)
	return rd
}
