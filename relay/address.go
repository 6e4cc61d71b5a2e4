package relay

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Address is a mailbox: a local part without quotes or backslashes, exactly as its owner means
// it, and a Domain. The zero value is the null path <> (RFC 5321 §4.5.5). The one other address
// with an empty Domain is <postmaster>, which RFC 5321 §4.5.1 allows without a domain.
type Address struct {
	Local  string
	Domain Domain
}

// What is wrong with an address. Errors of ParseDomain come through unchanged.
var (
	ErrAddressSyntax = errors.New("the address is not of the form local-part@domain")
	ErrLocalLong     = errors.New("the local part is longer than 64 octets")
	ErrPathLong      = errors.New("the address is longer than 256 octets")
	ErrControl       = errors.New("the address contains a control character")
	ErrNeedsUTF8     = errors.New("the address is not ASCII and the SMTPUTF8 extension was not asked for")
)

// Postmaster is the mailbox every mail host has (RFC 5321 §4.5.1), as written without a domain.
var Postmaster = Address{Local: "postmaster"}

// ParsePath reads a reverse-path or forward-path with its angle brackets: <>, <a@b>,
// <postmaster>, or the obsolete source route <@x,@y:a@b>, of which only a@b counts (RFC 5321
// §4.1.1.3, appendix C). utf8OK says that SMTPUTF8 was asked for (RFC 6531).
func ParsePath(s string, utf8OK bool) (Address, error) {
	inner, ok := strings.CutPrefix(s, "<")
	if !ok {
		return Address{}, ErrAddressSyntax
	}
	if inner, ok = strings.CutSuffix(inner, ">"); !ok {
		return Address{}, ErrAddressSyntax
	}
	if inner == "" {
		return Address{}, nil
	}
	if strings.HasPrefix(inner, "@") {
		var err error
		if inner, err = dropSourceRoute(inner); err != nil {
			return Address{}, err
		}
	}
	if strings.EqualFold(inner, Postmaster.Local) {
		return Postmaster, nil
	}
	return ParseAddress(inner, utf8OK)
}

// ParseAddress reads local-part@domain, the local part bare or quoted (RFC 5321 §4.1.2, RFC
// 6531 §3.3). A bare dot at either end of the local part or two together are let through,
// because such mailboxes exist in the wild; String quotes them on the way out.
func ParseAddress(s string, utf8OK bool) (Address, error) {
	if err := checkCharacters(s, utf8OK); err != nil {
		return Address{}, err
	}
	local, domain, err := splitAddress(s)
	if err != nil {
		return Address{}, err
	}
	if len(local) > MaxLocal {
		return Address{}, ErrLocalLong
	}
	d, err := ParseDomain(domain)
	if err != nil {
		return Address{}, err
	}
	a := Address{Local: local, Domain: d}
	if len("<")+len(quoteLocal(local))+len("@")+len(d)+len(">") > MaxPath {
		return Address{}, ErrPathLong
	}
	return a, nil
}

// IsNull says whether this is the null path <>, whose letters are never answered.
func (a Address) IsNull() bool { return a == Address{} }

// IsASCII says whether the address can travel without SMTPUTF8. The domain always can.
func (a Address) IsASCII() bool { return isASCII(a.Local) }

// String is the address as SMTP writes it between the angle brackets, the local part quoted
// where it has to be; empty for the null path.
func (a Address) String() string {
	switch {
	case a.IsNull():
		return ""
	case a.Domain == "":
		return quoteLocal(a.Local)
	}
	return quoteLocal(a.Local) + "@" + string(a.Domain)
}

// Path is the address in angle brackets, as MAIL FROM and RCPT TO take it.
func (a Address) Path() string { return "<" + a.String() + ">" }

// MarshalText is String, so that records and JSON hold addresses as people read them.
func (a Address) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (a *Address) UnmarshalText(b []byte) error {
	got, err := ParsePath("<"+string(b)+">", true)
	if err != nil {
		return err
	}
	*a = got
	return nil
}

func checkCharacters(s string, utf8OK bool) error {
	// Four times the limit leaves room for quoting; nothing longer is worth reading.
	if len(s) > 4*MaxPath {
		return ErrPathLong
	}
	if !isASCII(s) {
		if !utf8OK {
			return ErrNeedsUTF8
		}
		if !utf8.ValidString(s) {
			return ErrAddressSyntax
		}
	}
	for _, r := range s {
		// Control and format characters (Cc, Cf: bidi overrides among them) end in logs, headers
		// and listings, where they would lie about what the address is.
		if r >= ' ' && r <= '~' {
			continue
		}
		if unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) {
			return ErrControl
		}
	}
	return nil
}

// splitAddress takes the local part, unquoted, from what stands behind its @.
func splitAddress(s string) (local, domain string, err error) {
	if strings.HasPrefix(s, `"`) {
		return splitQuoted(s)
	}
	local, domain, ok := strings.Cut(s, "@")
	if !ok || local == "" {
		return "", "", ErrAddressSyntax
	}
	for _, r := range local {
		if r != '.' && !isAtext(r) {
			return "", "", ErrAddressSyntax
		}
	}
	return local, domain, nil
}

func splitQuoted(s string) (local, domain string, err error) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			if i++; i == len(s) {
				return "", "", ErrAddressSyntax
			}
			b.WriteByte(s[i])
		case '"':
			domain, ok := strings.CutPrefix(s[i+1:], "@")
			if !ok || b.Len() == 0 {
				return "", "", ErrAddressSyntax
			}
			return b.String(), domain, nil
		default:
			b.WriteByte(s[i])
		}
	}
	return "", "", ErrAddressSyntax
}

func dropSourceRoute(s string) (string, error) {
	route, rest, ok := strings.Cut(s, ":")
	// The colon of an address literal in the route, [IPv6:...], is not the one that ends it.
	for ok && strings.Count(route, "[") != strings.Count(route, "]") {
		var more string
		more, rest, ok = strings.Cut(rest, ":")
		route += ":" + more
	}
	if !ok {
		return "", ErrAddressSyntax
	}
	for hop := range strings.SplitSeq(route, ",") {
		host, at := strings.CutPrefix(hop, "@")
		if !at {
			return "", ErrAddressSyntax
		}
		if _, err := ParseDomain(host); err != nil {
			return "", err
		}
	}
	return rest, nil
}

func quoteLocal(s string) string {
	bare := s != "" && s[0] != '.' && s[len(s)-1] != '.' && !strings.Contains(s, "..")
	for _, r := range s {
		bare = bare && (r == '.' || isAtext(r))
	}
	if bare {
		return s
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// isAtext is the atext of RFC 5322 §3.2.3, with everything beyond ASCII as RFC 6532 §3.2 adds.
func isAtext(r rune) bool {
	return r >= utf8.RuneSelf ||
		r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' ||
		strings.ContainsRune("!#$%&'*+-/=?^_`{|}~", r)
}
