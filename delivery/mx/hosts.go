package mx

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"relayd/relay"
)

// Bounds of an attempt.
const (
	maxTried     = 5  // addresses tried (RFC 5321 §5.1 asks for two at least)
	maxPerHost   = 4  // addresses of one host, so that a dead one leaves its backup a turn
	maxExchanges = 30 // hosts looked up
)

// target is one place to connect to.
type target struct {
	name   string // the host's name; an address in brackets where it has none
	addr   netip.AddrPort
	second netip.AddrPort // an IPv4 address of the same host, tried beside an IPv6 addr that takes long
	via    *Route         // that leads there; nil: the MX records do
	socket bool           // name is the path of a Unix socket
	need   security       // what it must prove
	// signed: DNSSEC vouches that this is a mail host of the domain, or our configuration does.
	signed bool
	next   relay.Domain // what the domain is an alias of, by DNSSEC; empty: of nothing
}

// String is the host as results and logs show it: mx1.partner.example[192.0.2.7]:25.
func (t target) String() string {
	if t.socket {
		return t.name
	}
	if strings.HasPrefix(t.name, "[") {
		return t.name + ":" + strconv.Itoa(int(t.addr.Port()))
	}
	return fmt.Sprintf("%s[%s]:%d", t.name, t.addr.Addr(), t.addr.Port())
}

// ParseRoute reads a route as the config file has it; via is host or host:port, the host a name
// or an address.
func ParseRoute(to, via string) (Route, error) {
	r := Route{To: to}
	if to != "*" {
		d, err := relay.ParseDomain(strings.TrimPrefix(to, "*."))
		if err != nil {
			return r, fmt.Errorf("mx: route to %q: %w", to, err)
		}
		r.To = to[:len(to)-len(strings.TrimPrefix(to, "*."))] + string(d)
	}
	host := via
	if h, port, err := net.SplitHostPort(via); err == nil {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return r, fmt.Errorf("mx: route via %q: the port is not a number from 1 to 65535", via)
		}
		host, r.Port = h, int(n)
	}
	host = strings.TrimPrefix(strings.Trim(host, "[]"), "IPv6:")
	if addr, err := netip.ParseAddr(host); err == nil {
		r.Via = literal(addr)
		return r, nil
	}
	var err error
	if r.Via, err = relay.ParseDomain(host); err != nil {
		return r, fmt.Errorf("mx: route via %q: %w", via, err)
	}
	return r, nil
}

func literal(addr netip.Addr) relay.Domain {
	if addr = addr.Unmap(); addr.Is4() {
		return relay.Domain("[" + addr.String() + "]")
	}
	return relay.Domain("[IPv6:" + addr.String() + "]")
}

// targets says whom to try for domain, by the route or the best first, or why there is nobody. The
// verdict is read only when there are no targets.
func (c *Client) targets(ctx context.Context, d relay.Domain, via *Route) ([]target, verdict, relay.Reply) {
	if via != nil && via.Via != "" {
		return c.viaRoute(ctx, via)
	}
	if d.IsLiteral() {
		t := target{name: string(d), addr: netip.AddrPortFrom(d.Literal(), c.port)}
		if c.isOurs("", t.addr) {
			return nil, messageFailed, loopReply(d)
		}
		return []target{t}, verdict{}, relay.Reply{}
	}
	mxs, name, signed, err := c.exchangers(ctx, d)
	switch {
	case errors.Is(err, relay.ErrNoRecord), err == nil && len(mxs) == 0:
		mxs = []relay.MX{{Host: d}} // RFC 5321 §5.1: the implicit MX
	case err != nil:
		return nil, hostTrouble, dnsReply(ctx, "the MX records of "+string(d), err)
	}
	mxs = slices.DeleteFunc(slices.Clone(mxs), func(m relay.MX) bool { return m.Host == "" })
	if len(mxs) == 0 {
		// RFC 7505 §3: never fall back to the A record of a domain that says it takes no mail.
		return nil, messageFailed, relay.Reply{Code: 556, Status: relay.Status{5, 1, 10},
			Text: "the domain " + string(d) + " says in the DNS that it takes no mail"}
	}
	targets, v, reply := c.exchanges(ctx, d, mxs)
	if v == messageFailed && c.isBackup(d) {
		v, reply = hostTrouble, relay.Reply{Code: 451, Status: relay.Status{4, 4, 4}, Text: "we are a backup of " + string(d) + ": " + reply.Text}
	}
	for i := range targets {
		if targets[i].signed = signed; signed && name != d {
			targets[i].next = name
		}
	}
	return targets, v, reply
}

// exchangers asks for the MX records, the name they are of, and whether DNSSEC vouches for them or for their
// absence.
func (c *Client) exchangers(ctx context.Context, d relay.Domain) ([]relay.MX, relay.Domain, bool, error) {
	if c.cfg.Secure != nil {
		return c.cfg.Secure.SecureMX(ctx, d)
	}
	mxs, err := c.cfg.Resolver.MX(ctx, d)
	return mxs, d, false, err
}

// viaRoute never fails a letter for good: what is wrong is our configuration.
func (c *Client) viaRoute(ctx context.Context, r *Route) ([]target, verdict, relay.Reply) {
	port := c.port
	if r.Port != 0 {
		port = uint16(r.Port)
	}
	if r.Via.IsLiteral() {
		return []target{{name: string(r.Via), addr: netip.AddrPortFrom(r.Via.Literal(), port), via: r}}, verdict{}, relay.Reply{}
	}
	addrs, err := c.cfg.Resolver.Addrs(ctx, r.Via)
	if errors.Is(err, relay.ErrNoRecord) || err == nil && len(addrs) == 0 {
		return nil, hostTrouble, relay.Reply{Code: 451, Status: relay.Status{4, 4, 4},
			Text: "the host " + string(r.Via) + " of our route to " + r.To + " has no address in the DNS"}
	}
	if err != nil {
		return nil, hostTrouble, dnsReply(ctx, "the addresses of "+string(r.Via), err)
	}
	targets := hostTargets(r.Via, addrs, port, false)
	for i := range targets {
		targets[i].via, targets[i].signed = r, true
	}
	return c.spread([][]target{targets}), verdict{}, relay.Reply{}
}

// exchanges looks up the hosts of an MX list, preference by preference, until there are enough
// addresses. Where we are in the list ourselves it ends: the hosts from there on would only
// send the letter back to us (RFC 5321 §5.1).
func (c *Client) exchanges(ctx context.Context, d relay.Domain, mxs []relay.MX) ([]target, verdict, relay.Reply) {
	slices.SortStableFunc(mxs, func(a, b relay.MX) int { return int(a.Pref) - int(b.Pref) })
	mxs = mxs[:min(len(mxs), maxExchanges)]
	var out []target
	var trouble error
	ours := false
	for len(mxs) > 0 && len(out) < 2*maxTried && !ours {
		n := 1
		for n < len(mxs) && mxs[n].Pref == mxs[0].Pref {
			n++
		}
		group, err := c.group(ctx, mxs[:n])
		if ours = errors.Is(err, errOurselves); ours {
			break
		}
		if err != nil {
			trouble = err
		}
		out = append(out, group...)
		mxs = mxs[n:]
	}
	switch {
	case len(out) > 0:
		return out, verdict{}, relay.Reply{}
	case trouble != nil:
		return nil, hostTrouble, dnsReply(ctx, "the addresses of the mail hosts of "+string(d), trouble)
	case ours:
		return nil, messageFailed, loopReply(d)
	}
	return nil, messageFailed, relay.Reply{Code: 550, Status: relay.Status{5, 1, 2},
		Text: "the domain " + string(d) + " does not exist or has no mail host"}
}

func (c *Client) isBackup(d relay.Domain) bool { return c.cfg.Backup != nil && c.cfg.Backup(d) }

// errOurselves is found in an MX list.
var errOurselves = errors.New("this is us")

// group looks up the hosts of one preference and puts their addresses in a fair order. An error
// other than errOurselves is trouble with some of them.
func (c *Client) group(ctx context.Context, mxs []relay.MX) ([]target, error) {
	c.cfg.Shuffle(len(mxs), func(i, j int) { mxs[i], mxs[j] = mxs[j], mxs[i] })
	var hosts [][]target
	var trouble error
	for _, m := range mxs {
		if c.isOurs(m.Host, netip.AddrPort{}) {
			return nil, errOurselves
		}
		addrs, err := c.cfg.Resolver.Addrs(ctx, m.Host)
		if err != nil && !errors.Is(err, relay.ErrNoRecord) {
			trouble = err
		}
		ts := hostTargets(m.Host, addrs, c.port, len(hosts)%2 == 1)
		if slices.ContainsFunc(ts, func(t target) bool { return c.isOurs("", t.addr) }) {
			return nil, errOurselves
		}
		hosts = append(hosts, ts)
	}
	return c.spread(hosts), trouble
}

// isOurs says that a name or an address is this very server. Loopback and unspecified addresses
// are, whoever publishes them in the DNS; an attempt there could only reach ourselves.
func (c *Client) isOurs(name relay.Domain, addr netip.AddrPort) bool {
	if name != "" {
		return name == c.cfg.Hostname || c.cfg.SelfName != nil && c.cfg.SelfName(name)
	}
	if ip := addr.Addr(); ip.IsUnspecified() || ip.IsLoopback() && !c.cfg.AllowLoopback {
		return true
	}
	return c.cfg.SelfAddr != nil && c.cfg.SelfAddr(addr)
}

// hostTargets are the addresses of one host, IPv6 and IPv4 by turns. Every other host begins
// with IPv4: where one family leads nowhere it must not use up all the tries.
func hostTargets(host relay.Domain, addrs []netip.Addr, port uint16, fourFirst bool) []target {
	var six, four []target
	for _, a := range addrs {
		a = a.Unmap()
		t := target{name: string(host), addr: netip.AddrPortFrom(a, port)}
		switch {
		case !a.IsValid() || a.IsMulticast():
		case a.Is4():
			four = append(four, t)
		default:
			six = append(six, t)
		}
	}
	if fourFirst {
		six, four = four, six
	}
	out := make([]target, 0, len(addrs))
	for i := range max(len(six), len(four)) {
		out = append(out, six[min(i, len(six)):min(i+1, len(six))]...)
		out = append(out, four[min(i, len(four)):min(i+1, len(four))]...)
	}
	return out
}

// spread puts equal hosts in an order in which a dead host, a dead network or a host with many
// addresses costs the fewest tries: a first address of each host, then a second, and so on.
func (c *Client) spread(hosts [][]target) []target {
	var out []target
	for round := range maxPerHost {
		for _, h := range hosts {
			if round < len(h) {
				out = append(out, h[round])
			}
		}
	}
	return out
}

func loopReply(d relay.Domain) relay.Reply {
	return relay.Reply{Code: 554, Status: relay.Status{5, 4, 6},
		Text: "the DNS names this server as the mail host of " + string(d) + ", for which it takes no mail: a loop"}
}

func dnsReply(ctx context.Context, what string, err error) relay.Reply {
	if ctx.Err() != nil {
		return cutShortReply(ctx)
	}
	return relay.Reply{Code: 451, Status: relay.Status{4, 4, 3},
		Text: "cannot look up " + what + ": " + lossText(err)}
}
