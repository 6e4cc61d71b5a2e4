package relay

import (
	"errors"
	"net/netip"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Domain is a mail domain in its one canonical form: lower-case A-labels without a final dot
// (RFC 5890), or an address literal such as [192.0.2.1] or [IPv6:2001:db8::1] (RFC 5321
// §4.1.3). The zero value belongs to the null path and to nothing else.
type Domain string

// Limits of RFC 5321 §4.5.3.1, in octets.
const (
	MaxLocal  = 64
	MaxDomain = 255
	MaxPath   = 256
)

// What is wrong with a domain.
var (
	ErrDomainEmpty  = errors.New("the domain is empty")
	ErrDomainLong   = errors.New("the domain is longer than 255 octets or one of its labels than 63")
	ErrDomainSyntax = errors.New("the domain has a character or form that domains cannot have")
)

// ParseDomain turns a host or mail domain into its canonical form. It accepts any case, U-labels
// and one final dot; `office.example.`, `OFFICE.example` and `office.example` are the same
// Domain. Underscores are let through, because hosts that carry them do exist.
func ParseDomain(s string) (Domain, error) {
	if strings.HasPrefix(s, "[") {
		return parseLiteral(s)
	}
	s = strings.TrimSuffix(s, ".")
	if s == "" {
		return "", ErrDomainEmpty
	}
	if len(s) > 4*MaxDomain {
		return "", ErrDomainLong
	}
	if !isASCII(s) {
		if !utf8.ValidString(s) {
			return "", ErrDomainSyntax
		}
		a, err := idna.Lookup.ToASCII(s)
		if err != nil {
			return "", ErrDomainSyntax
		}
		s = strings.TrimSuffix(a, ".")
	}
	s = strings.ToLower(s)
	if err := checkLabels(s); err != nil {
		return "", err
	}
	return Domain(s), nil
}

// IsLiteral says whether the domain is an address in brackets.
func (d Domain) IsLiteral() bool { return strings.HasPrefix(string(d), "[") }

// Literal is the address of an address literal; the zero Addr for a name.
func (d Domain) Literal() netip.Addr {
	if !d.IsLiteral() {
		return netip.Addr{}
	}
	inner := strings.TrimSuffix(strings.TrimPrefix(string(d), "["), "]")
	addr, _ := netip.ParseAddr(strings.TrimPrefix(inner, "IPv6:"))
	return addr
}

func parseLiteral(s string) (Domain, error) {
	inner, ok := strings.CutSuffix(s[1:], "]")
	if !ok || len(s) > MaxDomain {
		return "", ErrDomainSyntax
	}
	tag, rest, tagged := strings.Cut(inner, ":")
	if tagged && strings.EqualFold(tag, "ipv6") {
		addr, err := netip.ParseAddr(rest)
		if err != nil || !addr.Is6() || addr.Zone() != "" {
			return "", ErrDomainSyntax
		}
		// [IPv6:::ffff:192.0.2.1] and [192.0.2.1] are one host and must classify alike.
		if addr.Is4In6() {
			return Domain("[" + addr.Unmap().String() + "]"), nil
		}
		return Domain("[IPv6:" + addr.String() + "]"), nil
	}
	addr, err := netip.ParseAddr(inner)
	if err != nil || !addr.Is4() {
		return "", ErrDomainSyntax
	}
	return Domain("[" + addr.String() + "]"), nil
}

func checkLabels(s string) error {
	if len(s) > MaxDomain {
		return ErrDomainLong
	}
	for label := range strings.SplitSeq(s, ".") {
		switch {
		case label == "":
			return ErrDomainSyntax
		case len(label) > 63:
			return ErrDomainLong
		case label[0] == '-' || label[len(label)-1] == '-':
			return ErrDomainSyntax
		}
		for i := range len(label) {
			c := label[i]
			if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
				return ErrDomainSyntax
			}
		}
	}
	return nil
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
