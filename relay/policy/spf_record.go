package policy

import (
	"net/netip"
	"strconv"
	"strings"
)

// brokenSPF is what the library is shown in place of a record that is broken anywhere: a mechanism it
// does not know, so that it says permerror. By itself it finds a mistake only when it comes to the
// term, and some not at all, where RFC 7208 §4.6 wants all of the record read first.
const brokenSPF = "v=spf1 broken"

// maxSPF bounds a record that is looked at, in octets (RFC 7208 §3.4 wants 450 at most).
const maxSPF = 8 << 10

// strictSPF replaces SPF records that are broken by brokenSPF and leaves other texts alone.
func strictSPF(texts []string) []string {
	for i, text := range texts {
		if isSPF(text) && (len(text) > maxSPF || !validSPF(text)) {
			texts[i] = brokenSPF
		}
	}
	return texts
}

// isSPF: RFC 7208 §4.5.
func isSPF(text string) bool {
	const version = "v=spf1"
	return len(text) >= len(version) && strings.EqualFold(text[:len(version)], version) && (len(text) == len(version) || text[len(version)] == ' ')
}

// validSPF says whether a record follows the grammar of RFC 7208 §12.
func validSPF(text string) bool {
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
		return false
	}
	seen := map[string]bool{}
	for _, term := range strings.Fields(text)[1:] {
		i := strings.IndexAny(term, "=:/%")
		if i > 0 && term[i] == '=' && isModifierName(term[:i]) {
			name, value := strings.ToLower(term[:i]), term[i+1:]
			once := name == "redirect" || name == "exp"
			if once && (seen[name] || !isDomainSpec(value)) || !isMacroString(value, name == "exp" || !once) {
				return false
			}
			seen[name] = true
			continue
		}
		if !validMechanism(strings.TrimLeft(term[:1], "+-~?") + term[1:]) {
			return false
		}
	}
	return true
}

func isModifierName(s string) bool {
	for i := range len(s) {
		if c := s[i]; !isAlpha(c) && (i == 0 || !isDigit(c) && c != '-' && c != '_' && c != '.') {
			return false
		}
	}
	return s != ""
}

func isAlpha(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// validMechanism checks a mechanism without its qualifier.
func validMechanism(term string) bool {
	end := strings.IndexAny(term, ":/")
	if end < 0 {
		end = len(term)
	}
	name, rest := strings.ToLower(term[:end]), term[end:]
	value, has := strings.CutPrefix(rest, ":")
	switch name {
	case "all":
		return rest == ""
	case "include", "exists":
		return has && isDomainSpec(value)
	case "ptr":
		return rest == "" || has && isDomainSpec(value)
	case "a", "mx":
		domain, ok := cutLengths(rest)
		value, has := strings.CutPrefix(domain, ":")
		return ok && (domain == "" || has && isDomainSpec(value))
	case "ip4", "ip6":
		addr, length, long := strings.Cut(value, "/")
		a, err := netip.ParseAddr(addr)
		return has && err == nil && a.Zone() == "" && a.Is4() == (name == "ip4") && (!long || isLength(length, a.BitLen()))
	}
	return false
}

// cutLengths takes the prefix lengths "/24//64" off the end of an argument; false where there are some
// that no address has.
func cutLengths(s string) (rest string, ok bool) {
	rest, ok = s, true
	if i := strings.LastIndex(rest, "//"); i >= 0 && isNumber(rest[i+2:]) {
		rest, ok = rest[:i], isLength(rest[i+2:], 128)
	}
	if i := strings.LastIndexByte(rest, '/'); i >= 0 && isNumber(rest[i+1:]) {
		rest, ok = rest[:i], ok && isLength(rest[i+1:], 32)
	}
	return rest, ok
}

func isNumber(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r < '0' || r > '9' })
}

// isLength: RFC 7208 allows no zero before a number.
func isLength(s string, most int) bool {
	n, err := strconv.Atoi(s)
	return err == nil && isNumber(s) && n <= most && (len(s) == 1 || s[0] != '0')
}

// isDomainSpec: a macro string that ends in a top label or in a macro.
func isDomainSpec(s string) bool {
	if !isMacroString(s, false) {
		return false
	}
	if strings.HasSuffix(s, "}") || strings.HasSuffix(s, "%%") || strings.HasSuffix(s, "%_") || strings.HasSuffix(s, "%-") {
		return true
	}
	s = strings.TrimSuffix(s, ".")
	i := strings.LastIndexByte(s, '.')
	return i >= 0 && isTopLabel(s[i+1:])
}

// isTopLabel: letters, digits and inner hyphens, and not digits alone.
func isTopLabel(s string) bool {
	number := true
	for i := range len(s) {
		c := s[i]
		if !isAlpha(c) && !isDigit(c) && (c != '-' || i == 0 || i == len(s)-1) {
			return false
		}
		number = number && isDigit(c)
	}
	return s != "" && !number
}

// isMacroString: RFC 7208 §7.1. The letters c, r and t are for explanations (§7.2).
func isMacroString(s string, explains bool) bool {
	for {
		i := strings.IndexByte(s, '%')
		if i < 0 {
			return true
		}
		s = s[i+1:]
		switch {
		case s == "":
			return false
		case s[0] == '%' || s[0] == '_' || s[0] == '-':
			s = s[1:]
			continue
		case s[0] != '{':
			return false
		}
		macro, rest, ok := strings.Cut(s[1:], "}")
		if !ok || !isMacro(macro, explains) {
			return false
		}
		s = rest
	}
}

func isMacro(s string, explains bool) bool {
	letters := "slodiphv"
	if explains {
		letters += "crt"
	}
	if s == "" || !strings.ContainsRune(letters, rune(s[0]|0x20)) {
		return false
	}
	s = strings.TrimLeft(s[1:], "0123456789")
	if s != "" && s[0]|0x20 == 'r' {
		s = s[1:]
	}
	return strings.Trim(s, ".-+,/_=") == ""
}
