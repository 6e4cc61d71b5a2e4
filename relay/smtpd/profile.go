package smtpd

import (
	"encoding/base64"
	"net/netip"
	"strings"
)

// Profile is what a service asks of its clients beyond the standards and what it forgives them.
// The zero Profile is that of a service for the world. One that forgives wants Admit, because
// what it forgives is what others build attacks on.
type Profile struct {
	// Admit says who may connect; nil: anybody. The others are refused in place of the greeting.
	Admit func(netip.Addr) bool
	// Lenient takes clients whose makers never read the standards. A bare LF ends a command. In a
	// letter a bare CR or LF becomes CR LF; what ends the letter is decided by the line end of
	// its DATA command: CRLF.CRLF behind CR LF, and behind a bare LF a dot alone on its line
	// whatever ends the lines. So nothing in a letter of a client that speaks CR LF ends it that
	// would not end it elsewhere. EHLO and HELO need no name, and AUTH is understood where its
	// answers lack their padding or their encoding.
	Lenient bool
	// NoLogin takes AUTH away; PlaintextAuth allows it without TLS.
	NoLogin, PlaintextAuth bool
	// PlaintextFrom says from where AUTH is allowed without TLS; nil: from nowhere. Others are not
	// told of it.
	PlaintextFrom func(netip.Addr) bool
	// LettersPerHour bounds what one address may send; 0: no bound. It needs Devices.
	LettersPerHour int
	// Devices, unless nil, is told what becomes of every client.
	Devices *Devices
}

func (p *Profile) admits(client netip.Addr) bool { return p.Admit == nil || p.Admit(client) }

var (
	replyStranger = say(554, "5.7.1", "this port is for the machines of this office, and your address is not among theirs")
	replyTooOften = say(450, "4.7.1", "too many letters from you within an hour, please try again later")
)

// lenientCommand is a command line of a lenient service without its line end. A bare LF ends it
// as well, and the guard remembers which one it was.
func (g *guard) lenientCommand(line []byte) []byte {
	line = line[:len(line)-1]
	g.bareLF = true
	if n := len(line); n > 0 && line[n-1] == '\r' {
		g.bareLF, line = false, line[:n-1]
	}
	return line
}

// lenientAuth rewrites the words of an AUTH command as the standard has them: a missing padding
// is added, "=" is no name for LOGIN, and one that is no base64 is the name itself.
func lenientAuth(mech, initial string) string {
	if fixed, ok := padded(initial); ok {
		initial = fixed
	} else if mech == "LOGIN" {
		initial = base64.StdEncoding.EncodeToString([]byte(initial))
	}
	return initial
}

// padded is a base64 text with its padding as it should be.
func padded(s string) (string, bool) {
	raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(strings.TrimSpace(s), "="))
	if err != nil {
		return s, false
	}
	return base64.StdEncoding.EncodeToString(raw), true
}

// trimmed is a name or password without the line end or NUL that careless programs encode along
// with it.
func trimmed(s string) string { return strings.TrimRight(s, "\r\n\x00") }

// literal is an address in the place of a name (RFC 5321 §4.1.3).
func literal(a netip.Addr) string {
	if a.Is6() {
		return "[IPv6:" + a.WithZone("").String() + "]"
	}
	return "[" + a.String() + "]"
}
