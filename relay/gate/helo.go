package gate

import (
	"net/netip"
	"strings"

	"relayd/relay"
)

// judgeHelo says what is wrong with what a client calls itself (RFC 5321 §4.1.1.1, §4.1.3); false:
// nothing is. server is our end of the connection.
func (r *Rules) judgeHelo(helo string, client, server netip.Addr) (Point, bool) {
	bad := func(words string) (Point, bool) {
		return Point{Name: "helo", Weight: r.BadHelo, Words: "its HELO is " + words}, r.BadHelo != 0
	}
	forged := func(words string) (Point, bool) {
		return Point{Name: "forged-helo", Weight: r.ForgedHelo, Words: "its HELO is " + words}, r.ForgedHelo != 0
	}
	if addr, err := netip.ParseAddr(helo); err == nil {
		if addr.Unmap() == server && server != client {
			return forged("our own address")
		}
		return bad("an address without brackets")
	}
	d, err := relay.ParseDomain(helo)
	switch {
	case err != nil:
		return bad("no name a host can have")
	case d.IsLiteral():
		switch d.Literal().Unmap() {
		case client:
			return Point{}, false
		case server:
			return forged("our own address")
		}
		return bad("the address of somebody else")
	case r.isOurs(d):
		return forged("our own name")
	case !strings.Contains(string(d), "."), d == "localhost.localdomain":
		return bad("not a whole host name")
	case strings.Trim(string(d[strings.LastIndexByte(string(d), '.')+1:]), "0123456789") == "":
		// No top-level domain is a number (RFC 3696 §2).
		return bad("no name a host can have")
	}
	return Point{}, false
}
