package resolver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// udpSize is what we say we can take over UDP: it fits into one packet on every path (DNS flag
// day 2020), because fragments can be forged.
const udpSize = 1232

// rcodeError is a server's own word that it cannot answer.
type rcodeError string

func (e rcodeError) Error() string { return string(e) }

// ask puts one question to the servers in turn until one answers with NOERROR or NXDOMAIN. Those
// that were silent are asked again, those that answered SERVFAIL or REFUSED are not.
func (r *Resolver) ask(ctx context.Context, q question) (*dns.Msg, error) {
	list, first := r.servers.get(time.Now())
	failures := make([]error, len(list))
	for i := range max(min(len(list)*r.rounds, maxTries), len(list)) {
		at := (first + i) % len(list)
		if _, spoke := failures[at].(rcodeError); spoke {
			continue
		}
		m, err := r.askServer(ctx, list[at], q)
		if err == nil {
			r.servers.prefer(list[at])
			return m, nil
		}
		failures[at] = err
		if ctx.Err() != nil {
			break
		}
	}
	return nil, r.combine(list, failures)
}

// combine puts the last failure of each server on one line.
func (r *Resolver) combine(list []netip.AddrPort, failures []error) error {
	var text []string
	for i, err := range failures {
		if err != nil {
			text = append(text, fmt.Sprintf("%s: %v", list[i], err))
		}
	}
	if r.ctx.Err() != nil {
		return errClosed
	}
	return errors.New(strings.Join(text, "; "))
}

// askServer asks one server over UDP, over TCP if the answer did not fit, and without EDNS0 if
// the server does not know it (RFC 6891 §7).
func (r *Resolver) askServer(ctx context.Context, server netip.AddrPort, q question) (*dns.Msg, error) {
	m, err := r.try(ctx, server, q, true)
	if err != nil {
		return nil, err
	}
	if old := m.Rcode; old == dns.RcodeFormatError || old == dns.RcodeNotImplemented || old == dns.RcodeBadVers {
		if m, err = r.try(ctx, server, q, false); err != nil {
			return nil, err
		}
	}
	if m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
		return nil, rcodeError(rcodeText(m))
	}
	return m, nil
}

func (r *Resolver) try(ctx context.Context, server netip.AddrPort, q question, edns bool) (*dns.Msg, error) {
	query := new(dns.Msg).SetQuestion(q.name, q.qtype)
	query.AuthenticatedData = true // we understand the bit (RFC 6840 §5.7)
	if edns {
		query.SetEdns0(udpSize, false)
	}
	m, err := r.once(ctx, server, query, false)
	if err == nil && m.Truncated {
		if m, err = r.once(ctx, server, query, true); err == nil && m.Truncated {
			err = errors.New("truncated over TCP")
		}
	}
	return m, err
}

func (r *Resolver) once(ctx context.Context, server netip.AddrPort, m *dns.Msg, overTCP bool) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	return r.exchange(ctx, server, m, overTCP)
}

// exchange sends m from a fresh socket, hence a fresh random port, and returns the reply to it.
func exchange(ctx context.Context, server netip.AddrPort, m *dns.Msg, overTCP bool) (*dns.Msg, error) {
	network := "udp"
	if overTCP {
		network = "tcp"
	}
	c, err := new(net.Dialer).DialContext(ctx, network, server.String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	// Closing the socket is what ends a read when ctx is cancelled before its deadline.
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	if deadline, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(deadline)
	}
	conn := &dns.Conn{Conn: c, UDPSize: dns.DefaultMsgSize}
	if err := conn.WriteMsg(m); err != nil {
		return nil, err
	}
	return receive(conn, m)
}

// receive reads until the reply to m comes. Packets with another ID or another question are late
// or forged: they are passed over, so that a forger cannot end the wait for the true one.
func receive(conn *dns.Conn, m *dns.Msg) (*dns.Msg, error) {
	for {
		raw, err := conn.ReadMsgHeader(nil)
		if errors.Is(err, dns.ErrShortRead) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if id := uint16(raw[0])<<8 | uint16(raw[1]); id != m.Id {
			continue
		}
		reply := new(dns.Msg)
		if err := reply.Unpack(raw); err != nil && !reply.Truncated {
			return nil, fmt.Errorf("malformed answer: %w", err)
		}
		if answers(reply, m.Question[0]) {
			return reply, nil
		}
	}
}

// answers says whether reply is one, to the question q. A server that understands no EDNS0 may
// send FORMERR without the question.
func answers(reply *dns.Msg, q dns.Question) bool {
	if !reply.Response || reply.Opcode != dns.OpcodeQuery {
		return false
	}
	if len(reply.Question) == 0 {
		return reply.Rcode == dns.RcodeFormatError || reply.Rcode == dns.RcodeNotImplemented
	}
	got := reply.Question[0]
	return len(reply.Question) == 1 && got.Qtype == q.Qtype && got.Qclass == q.Qclass &&
		dns.CanonicalName(got.Name) == q.Name
}

// rcodeText names the RCODE and, where the server gives it, the reason (RFC 8914), by its number
// alone: the text in it comes from strangers.
func rcodeText(m *dns.Msg) string {
	text, ok := dns.RcodeToString[m.Rcode]
	if !ok {
		text = fmt.Sprintf("RCODE %d", m.Rcode)
	}
	if opt := m.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if ede, ok := o.(*dns.EDNS0_EDE); ok {
				if reason := dns.ExtendedErrorCodeToString[ede.InfoCode]; reason != "" {
					return text + " (" + reason + ")"
				}
			}
		}
	}
	return text
}
