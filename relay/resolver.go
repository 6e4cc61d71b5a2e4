package relay

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
)

// ErrNoRecord is the answer of a DNS that works: no such name, or the name has no record of the
// type. It is final. Every other error of a Resolver means that we could not ask, which is
// never final.
var ErrNoRecord = errors.New("no such record in the DNS")

// ErrNoName is the ErrNoRecord that says that there is nothing at all at the name nor below it
// (NXDOMAIN, RFC 8020).
var ErrNoName = fmt.Errorf("no such name: %w", ErrNoRecord)

// MX is one mail exchanger (RFC 5321 §5.1). The null MX of RFC 7505 is a single MX with an
// empty Host.
type MX struct {
	Host Domain
	Pref uint16
}

// TLSA is what the DNS says about a certificate (RFC 6698 §2.1).
type TLSA struct {
	Usage    uint8 // 2: of an authority; 3: of the host. Others are of no use in SMTP (RFC 7672 §3.1.3)
	Selector uint8 // 0: the whole certificate; 1: its public key
	Matching uint8 // 0: as it is; 1: its SHA-256; 2: its SHA-512
	Data     []byte
}

// SecureResolver asks what DNSSEC vouches for. relay/resolver implements it, and believes the AD bit
// of a validating server on loopback; delivery/mx asks.
type SecureResolver interface {
	// SecureMX is Resolver.MX, the name the records are of, which is another where d is an alias, and
	// whether DNSSEC vouches for the answer, or for ErrNoRecord.
	SecureMX(ctx context.Context, d Domain) (list []MX, name Domain, secure bool, err error)
	// TLSA returns the records of the service at port of host and the name they are of, the end of
	// host's aliases or host itself. Where DNSSEC does not vouch for the addresses of host, or at least
	// for an alias that host is, where it does not vouch for the records, and where it vouches that there
	// are none, it returns none and no error (RFC 7672 §2.1.3 and §2.2). An error means that we do not know.
	TLSA(ctx context.Context, host Domain, port uint16) (records []TLSA, name Domain, err error)
}

// SRV is one place where a service of a domain is (RFC 2782). An empty Target says that there is
// none.
type SRV struct {
	Priority, Weight, Port uint16
	Target                 Domain
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
