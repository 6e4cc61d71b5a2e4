package config

import (
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"relayd/relay"
)

// The functions here read one value each. Their sentences are for a person who has never seen
// this program.

func readString(v *value) (string, *problem) {
	if v.kind != kindString {
		return "", wrong(quoted(v), "%s where a string in quotes is needed", v.kind)
	}
	return v.text, nil
}

// quoted suggests the quotes somebody left out.
func quoted(v *value) string {
	if v.kind == kindList || v.kind == kindTable || v.kind == kindOther {
		return ""
	}
	return fmt.Sprintf("did you mean %q?", v.text)
}

func readBool(v *value) (bool, *problem) {
	if v.kind == kindBool {
		return v.text == "true", nil
	}
	hint := ""
	switch strings.ToLower(v.text) {
	case "true", "yes", "on", "1":
		hint = "did you mean true, without quotes?"
	case "false", "no", "off", "0":
		hint = "did you mean false, without quotes?"
	}
	return false, wrong(hint, "%s where true or false is needed", v.kind)
}

// readCount reads a whole number of at least least.
func readCount(least, most int) func(*value) (int, *problem) {
	return func(v *value) (int, *problem) {
		if v.kind != kindInteger {
			hint := ""
			if n, err := strconv.Atoi(v.text); err == nil {
				hint = fmt.Sprintf("did you mean %d, without quotes?", n)
			}
			return 0, wrong(hint, "%s where a whole number is needed", v.kind)
		}
		n, err := strconv.ParseInt(strings.ReplaceAll(v.text, "_", ""), 0, 64)
		switch {
		case err != nil || n > int64(most):
			return 0, wrong("", "%s is too much: %d is the most", clip(v.text), most)
		case n < int64(least):
			return 0, wrong("", "%s is too little: %d is the least", clip(v.text), least)
		}
		return int(n), nil
	}
}

func readPort(v *value) (uint16, *problem) {
	n, err := readCount(1, 65535)(v)
	return uint16(n), err
}

// readWord reads one of a few words.
func readWord(words ...string) func(*value) (string, *problem) {
	return func(v *value) (string, *problem) {
		s, err := readString(v)
		if err != nil {
			return "", err
		}
		for _, w := range words {
			if s == w {
				return w, nil
			}
		}
		hint := ""
		if near := nearest(s, words); near != "" {
			hint = fmt.Sprintf("did you mean %q?", near)
		}
		return "", wrong(hint, "%q is not one of %s", clip(s), `"`+strings.Join(words, `", "`)+`"`)
	}
}

const durationHint = `write a number and a unit, such as "30s", "5m", "4h", "1h30m" or "5d"`

// units of durations. A month or a year would not always be equally long.
var units = map[string]time.Duration{
	"ms": time.Millisecond, "s": time.Second, "m": time.Minute, "h": time.Hour,
	"d": 24 * time.Hour, "w": 7 * 24 * time.Hour,
}

// readDuration reads a positive time span such as "5m", "1h30m" or "5d".
func readDuration(v *value) (time.Duration, *problem) {
	if v.kind == kindInteger && v.text != "0" {
		return 0, wrong(fmt.Sprintf(`did you mean "%ss" (seconds) or "%[1]sm" (minutes)?`, v.text), "a time needs a unit")
	}
	s, err := readString(v)
	if err != nil {
		return 0, wrong(durationHint, "%s where a time is needed", v.kind)
	}
	d, ok := parseDuration(s)
	switch {
	case !ok:
		return 0, wrong(durationHint, "%q is not a time", clip(s))
	case d <= 0:
		return 0, wrong("", "%q is no time at all: it must be more than 0", clip(s))
	}
	return d, nil
}

// readDelay reads a time, or "off" for none.
func readDelay(v *value) (time.Duration, *problem) {
	if s, err := readString(v); err == nil && s == "off" {
		return 0, nil
	}
	return readDuration(v)
}

func parseDuration(s string) (time.Duration, bool) {
	total := 0.0
	rest := strings.ReplaceAll(s, " ", "")
	for {
		n := len(rest) - len(strings.TrimLeft(rest, "0123456789."))
		amount, err := strconv.ParseFloat(rest[:n], 64)
		if err != nil {
			return 0, false
		}
		rest = rest[n:]
		u := len(rest) - len(strings.TrimLeft(rest, "abcdefghijklmnopqrstuvwxyz"))
		unit, ok := units[rest[:u]]
		if !ok {
			return 0, false
		}
		total += amount * float64(unit)
		if rest = rest[u:]; rest == "" {
			return time.Duration(total), total < float64(maxDuration)
		}
	}
}

// maxDuration keeps sums of times far from overflowing.
const maxDuration = 10 * 365 * 24 * time.Hour

const sizeHint = `write a number and a unit, such as "50MB" (50,000,000 bytes) or "50MiB" (52,428,800)`

var sizes = map[string]float64{
	"": 1, "b": 1,
	"k": 1e3, "kb": 1e3, "kib": 1 << 10,
	"m": 1e6, "mb": 1e6, "mib": 1 << 20,
	"g": 1e9, "gb": 1e9, "gib": 1 << 30,
	"t": 1e12, "tb": 1e12, "tib": 1 << 40,
}

// readSize reads a positive number of octets, "50MB" or a bare number.
func readSize(v *value) (int64, *problem) {
	if v.kind != kindString && v.kind != kindInteger {
		return 0, wrong(sizeHint, "%s where a size is needed", v.kind)
	}
	s := strings.TrimSpace(strings.ReplaceAll(v.text, "_", ""))
	n := len(s) - len(strings.TrimLeft(s, "0123456789."))
	amount, err := strconv.ParseFloat(s[:n], 64)
	unit, ok := sizes[strings.ToLower(strings.TrimSpace(s[n:]))]
	switch size := amount * unit; {
	case err != nil || !ok:
		return 0, wrong(sizeHint, "%q is not a size", clip(v.text))
	case size < 1:
		return 0, wrong("", "%q is nothing at all: it must be more than 0", clip(v.text))
	case size > math.MaxInt64/1024:
		return 0, wrong("", "%q is more than any disk holds", clip(v.text))
	default:
		return int64(size), nil
	}
}

// readFloor reads a size or a percentage.
func readFloor(v *value) (DiskFloor, *problem) {
	share, percent := strings.CutSuffix(strings.TrimSpace(v.text), "%")
	if v.kind != kindString || !percent {
		n, err := readSize(v)
		if err != nil {
			err.hint = `write a size such as "250MB", or a share of the disk such as "2%"`
		}
		return DiskFloor{Bytes: n}, err
	}
	p, err := strconv.ParseFloat(strings.TrimSpace(share), 64)
	if err != nil || !(p > 0 && p < 100) {
		return DiskFloor{}, wrong(`write a share between 0 and 100, such as "2%"`, "%q is not a share of the disk", clip(v.text))
	}
	return DiskFloor{Percent: p}, nil
}

// readDomain reads the name of a host or a mail domain.
func readDomain(v *value) (relay.Domain, *problem) {
	s, err := readString(v)
	if err != nil {
		return "", err
	}
	return parseName(s)
}

func parseName(s string) (relay.Domain, *problem) {
	d, err := relay.ParseDomain(s)
	hint := ""
	if _, rest, ok := strings.Cut(s, "://"); ok {
		host, _, _ := strings.Cut(rest, "/")
		hint = fmt.Sprintf("did you mean %q?", clip(host))
	} else if _, after, ok := strings.Cut(s, "@"); ok {
		hint = fmt.Sprintf("did you mean %q?", clip(after))
	} else if host, _, ok := strings.Cut(s, ":"); ok && !strings.HasPrefix(s, "[") {
		hint = fmt.Sprintf("did you mean %q?", clip(host))
	}
	if err != nil {
		return "", wrong(hint, "%q is not a domain name: %s", clip(s), err)
	}
	if _, err := netip.ParseAddr(string(d)); err == nil || d.IsLiteral() {
		return "", wrong("", "%q is an IP address, and a name is needed here", clip(s))
	}
	// No top-level domain is a number (RFC 3696 §2): 192.0.2.300 is a slip, not a name.
	if last := d[strings.LastIndexByte(string(d), '.')+1:]; strings.Trim(string(last), "0123456789") == "" {
		return "", wrong(hint, "%q is neither a domain name nor an IP address", clip(s))
	}
	return d, nil
}

// hostPort is a host and a port as written.
type hostPort struct {
	text string
	host string // without brackets; empty for all addresses
	port uint16
}

func splitHostPort(s string) (hostPort, bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return hostPort{}, false
	}
	host, digits := s[:i], s[i+1:]
	port, err := strconv.ParseUint(digits, 10, 16)
	if err != nil || strings.HasPrefix(digits, "+") {
		return hostPort{}, false
	}
	inner, bracketed := strings.CutPrefix(host, "[")
	if bracketed {
		var closed bool
		host, closed = strings.CutSuffix(inner, "]")
		addr, err := netip.ParseAddr(host)
		if !closed || err != nil || !addr.Is6() {
			return hostPort{}, false
		}
	}
	return hostPort{s, host, uint16(port)}, bracketed || !strings.Contains(host, ":")
}

// readListen reads an address to listen on: "host:port", or ":port" for all addresses.
func readListen(v *value) (hostPort, *problem) {
	hint := `write "address:port", or ":port" to listen on all addresses`
	if n, err := strconv.ParseUint(v.text, 10, 16); err == nil {
		hint = fmt.Sprintf(`did you mean ":%d"?`, n)
	} else if addr, err := netip.ParseAddr(v.text); err == nil && addr.Is6() {
		hint = `the brackets of an IPv6 address and the port are missing, as in "[::1]:25"`
	}
	if v.kind != kindString {
		return hostPort{}, wrong(hint, "%s where an address to listen on is needed, in quotes", v.kind)
	}
	hp, ok := splitHostPort(v.text)
	if !ok {
		return hostPort{}, wrong(hint, "%q is not an address to listen on", clip(v.text))
	}
	if _, err := netip.ParseAddr(hp.host); err == nil || hp.host == "" {
		return hp, nil
	}
	if _, err := parseName(hp.host); err != nil {
		return hostPort{}, wrong(`write "address:port", or ":port" to listen on all addresses`, "%q does not begin with an address of this machine", clip(v.text))
	}
	return hp, nil
}

// readServer reads the address of a DNS server; the port is 53 unless given.
func readServer(v *value) (netip.AddrPort, *problem) {
	s, err := readString(v)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if addr, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return netip.AddrPortFrom(addr.Unmap(), 53), nil
	}
	ap, bad := netip.ParseAddrPort(s)
	if bad != nil || ap.Port() == 0 {
		return netip.AddrPort{}, wrong(`write an IP address, such as "192.0.2.53" or "[2001:db8::53]:53"`,
			"%q is not the address of a DNS server, and names need one to be looked up", clip(s))
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), nil
}

// readSource reads an address to connect from, of one family.
func readSource(v6 bool) func(*value) (netip.Addr, *problem) {
	family := "IPv4"
	if v6 {
		family = "IPv6"
	}
	return func(v *value) (netip.Addr, *problem) {
		s, err := readString(v)
		if err != nil {
			return netip.Addr{}, err
		}
		addr, bad := netip.ParseAddr(s)
		addr = addr.Unmap()
		if bad != nil || addr.Is6() != v6 || addr.IsUnspecified() || addr.IsMulticast() {
			return netip.Addr{}, wrong("leave it out to let the system choose", "%q is not an %s address to connect from", clip(s), family)
		}
		return addr, nil
	}
}

// readNetwork reads a network whose members may relay.
func readNetwork(v *value) (netip.Prefix, *problem) {
	p, err := readAnyNetwork(v)
	if err != nil {
		return p, err
	}
	return p, tooWide(v.text, p)
}

// readAnyNetwork reads a network, however wide.
func readAnyNetwork(v *value) (netip.Prefix, *problem) {
	s, err := readString(v)
	if err != nil {
		return netip.Prefix{}, err
	}
	if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
		return netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()), nil
	}
	p, bad := netip.ParsePrefix(s)
	if bad != nil {
		return netip.Prefix{}, wrong(`write it as "192.0.2.0/24" or "2001:db8::/64", or a single address`, "%q is not a network", clip(s))
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	if p != p.Masked() {
		return netip.Prefix{}, wrong(fmt.Sprintf("did you mean %q, or only %q?", p.Masked(), p.Addr()),
			"%q is an address with the size of a network", clip(s))
	}
	return p, nil
}

// tooWide refuses to trust half the world: anybody there could send mail through us to anybody.
func tooWide(s string, p netip.Prefix) *problem {
	local := netip.MustParsePrefix("fc00::/7") // RFC 4193: addresses nobody on the Internet has
	switch {
	case p.Addr().Is4() && p.Bits() < 8, p.Addr().Is6() && p.Bits() < 16 && !local.Contains(p.Addr()):
	case p.Overlaps(netip.MustParsePrefix("::ffff:0:0/96")):
	default:
		return nil
	}
	return wrong("trust only the networks of your own office, such as \"192.168.1.0/24\"; everybody else can log in",
		"trusting %q would make this server an open relay, which strangers abuse and the world blocks", clip(s))
}

// readDelimiter reads the character between a mailbox and its tag.
func readDelimiter(v *value) (string, *problem) {
	s, err := readString(v)
	if err != nil || s == "" {
		return "", err
	}
	if len(s) != 1 || !strings.Contains("!#$%&'*+-/=?^_`{|}~", s) {
		return "", wrong(`write one character such as "+", or "" to switch it off`, "%q cannot divide a name from its tag", clip(s))
	}
	return s, nil
}

// readPattern reads which domains a route is for.
func readPattern(v *value) (string, *problem) {
	s, err := readString(v)
	if err != nil || s == "*" {
		return s, err
	}
	rest, below := strings.CutPrefix(s, "*.")
	if dotted, ok := strings.CutPrefix(s, "."); ok {
		return "", wrong(fmt.Sprintf(`did you mean "*.%s"?`, clip(dotted)), "%q is not a domain", clip(s))
	}
	d, err := parseName(rest)
	if err != nil {
		err.text = fmt.Sprintf("%q is neither a domain nor a pattern such as \"*.partner.example\" or \"*\"", clip(s))
		return "", err
	}
	if below {
		return "*." + string(d), nil
	}
	return string(d), nil
}

// readVia reads the host and port a route leads to.
func readVia(v *value) (hostPort, *problem) {
	s, err := readString(v)
	if err != nil {
		return hostPort{}, err
	}
	hp, ok := splitHostPort(s)
	if !ok || hp.port == 0 || hp.host == "" {
		hint := `write "host:port", such as "smarthost.example:587"`
		if _, err := parseName(s); err == nil {
			hint = fmt.Sprintf(`did you mean "%s:25" or "%[1]s:587"?`, s)
		}
		return hostPort{}, wrong(hint, "%q does not say host and port", clip(s))
	}
	if _, err := netip.ParseAddr(hp.host); err == nil {
		return hp, nil
	}
	d, err := parseName(hp.host)
	hp.host = string(d)
	return hp, err
}

// inWords writes a time as the file does: "5d", "1h30m".
func inWords(d time.Duration) string {
	var b strings.Builder
	for _, u := range []struct {
		name string
		unit time.Duration
	}{{"d", units["d"]}, {"h", units["h"]}, {"m", units["m"]}, {"s", units["s"]}, {"ms", units["ms"]}} {
		if n := d / u.unit; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, u.name)
			d -= n * u.unit
		}
	}
	return b.String()
}
