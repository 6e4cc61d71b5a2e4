package config

import "strings"

func (r *reader) policy(s section, p *Policy) {
	one(s, "mode", &p.Mode, readWord(PolicyEnforce, PolicyObserve, PolicyOff))
	except, _ := many(s, "except", readException)
	p.Except = whats(except)
	if len(except) > 0 && p.Mode != PolicyEnforce {
		r.warn(except[0].at, "", "mode is %q, under which nothing is refused, so except changes nothing", p.Mode)
	}
}

// readException reads an address, a domain, or "*.example" for every name below one.
func readException(v *value) (string, *problem) {
	s, p := readString(v)
	switch {
	case p != nil:
		return "", p
	case s == "*":
		return "", wrong(`write mode = "observe" to refuse nothing at all`, "%q would except everybody", s)
	case strings.Contains(s, "@"):
		a, p := readGrant(v)
		if p != nil {
			return "", p
		}
		if a.Local == "*" {
			return string(a.Domain), nil
		}
		return a.String(), nil
	}
	return readPattern(v)
}
