package relay

import (
	"context"
	"errors"
	"net/netip"
)

// ErrNoRecord is the answer of a DNS that works: no such name, or the name has no record of the
// type. It is final. Every other error of a Resolver means that we could not ask, which is
// never final.
var ErrNoRecord = errors.New("no such record in the DNS")

// MX is one mail exchanger (RFC 5321 §5.1). The null MX of RFC 7505 is a single MX with an
// empty Host.
type MX struct {
	Host Domain
	Pref uint16
}

// Resolver asks the DNS. relay/resolver implements it; delivery/mx, relay/smtpd and
// relay/policy ask.
type Resolver interface {
	// MX returns the exchangers of d by rising preference; CNAMEs are followed.
	MX(ctx context.Context, d Domain) ([]MX, error)
	// Addrs returns the A and AAAA records of host, IPv6 and IPv4 in the order answered.
	Addrs(ctx context.Context, host Domain) ([]netip.Addr, error)
	// TXT returns the TXT records of name, the strings of each joined.
	TXT(ctx context.Context, name string) ([]string, error)
	// PTR returns the names of an address.
	PTR(ctx context.Context, addr netip.Addr) ([]Domain, error)
}
