package relaytest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

// DNSServer answers queries on one loopback port over UDP and TCP from zone text.
type DNSServer struct {
	addr netip.AddrPort
	udp  *dns.Server
	tcp  *dns.Server
	done sync.WaitGroup

	mu    sync.Mutex
	zone  *zone
	asked map[string]int
}

// DNS serves zone until the test ends and says where.
func DNS(t testing.TB, zone string) netip.AddrPort {
	t.Helper()
	return ServeDNS(t, zone).Addr()
}

// ServeDNS is DNS for tests that change the zone, let it fail or count the questions.
func ServeDNS(t testing.TB, zone string) *DNSServer {
	t.Helper()
	s, err := NewDNS("127.0.0.1:0", zone)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// NewDNS serves zone, in the text form that parseZone reads, on addr ("127.0.0.1:0" picks a
// port). It answers when NewDNS returns; Close ends it.
func NewDNS(addr, zone string) (*DNSServer, error) {
	s := &DNSServer{asked: map[string]int{}}
	if err := s.SetZone(zone); err != nil {
		return nil, err
	}
	packets, listener, err := listenBoth(addr)
	if err != nil {
		return nil, err
	}
	s.addr = netip.MustParseAddrPort(listener.Addr().String())
	s.udp = &dns.Server{PacketConn: packets, Handler: dns.HandlerFunc(s.handle), UDPSize: dns.DefaultMsgSize}
	s.tcp = &dns.Server{Listener: listener, Handler: dns.HandlerFunc(s.handle)}
	for _, server := range []*dns.Server{s.udp, s.tcp} {
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		s.done.Go(func() { _ = server.ActivateAndServe() })
		<-started
	}
	return s, nil
}

// Addr is where the server listens.
func (s *DNSServer) Addr() netip.AddrPort { return s.addr }

// SetZone replaces the zone and the faults.
func (s *DNSServer) SetZone(text string) error {
	z, err := parseZone(text)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.zone = z
	return nil
}

// Fail makes target ("NAME" or "NAME TYPE") misbehave from now on; FaultNone mends it.
func (s *DNSServer) Fail(target string, fault Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if fault == FaultNone {
		delete(s.zone.faults, faultKey(target))
		return
	}
	s.zone.faults[faultKey(target)] = fault
}

// Asked counts the questions for "NAME TYPE" so far, over UDP and TCP.
func (s *DNSServer) Asked(target string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[faultKey(target)]
}

// Close stops the server and waits for it.
func (s *DNSServer) Close() error {
	err := errors.Join(s.udp.Shutdown(), s.tcp.Shutdown())
	s.done.Wait()
	return err
}

func (s *DNSServer) handle(w dns.ResponseWriter, req *dns.Msg) {
	m := new(dns.Msg).SetReply(req)
	m.RecursionAvailable = true
	if len(req.Question) != 1 {
		m.Rcode = dns.RcodeFormatError
		_ = w.WriteMsg(m)
		return
	}
	_, overUDP := w.LocalAddr().(*net.UDPAddr)
	wantsAD := req.AuthenticatedData || req.IsEdns0() != nil && req.IsEdns0().Do()
	if !s.reply(m, req.Question[0], overUDP, wantsAD) {
		return
	}
	size := dns.MinMsgSize
	if opt := req.IsEdns0(); opt != nil {
		size = int(opt.UDPSize())
		m.SetEdns0(dns.DefaultMsgSize, false)
	}
	if overUDP {
		m.Truncate(size)
	}
	_ = w.WriteMsg(m)
}

// reply fills in m and says whether to send it at all.
func (s *DNSServer) reply(m *dns.Msg, q dns.Question, overUDP, wantsAD bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked[dns.CanonicalName(q.Name)+" "+dns.TypeToString[q.Qtype]]++
	switch s.zone.fault(q) {
	case FaultDrop:
		return false
	case FaultServfail:
		m.Rcode = dns.RcodeServerFailure
	case FaultRefused:
		m.Rcode = dns.RcodeRefused
	case FaultNXDomain:
		s.zone.finish(m, "nonexistent.invalid.", false)
	case FaultTruncate:
		if overUDP {
			m.Truncated = true
			return true
		}
		s.zone.answer(m, q)
	default:
		s.zone.answer(m, q)
	}
	m.AuthenticatedData = wantsAD && m.Rcode != dns.RcodeServerFailure && m.Rcode != dns.RcodeRefused && s.zone.vouches(m, q)
	return true
}

// listenBoth takes the same port for UDP and TCP. The one that the kernel picked for the first
// may be taken for the second, hence the tries.
func listenBoth(addr string) (net.PacketConn, net.Listener, error) {
	var last error
	for range 20 {
		listener, err := net.Listen("tcp", addr)
		if err != nil {
			return nil, nil, fmt.Errorf("relaytest: %w", err)
		}
		packets, err := net.ListenPacket("udp", listener.Addr().String())
		if err == nil {
			return packets, listener, nil
		}
		last = errors.Join(err, listener.Close())
	}
	return nil, nil, fmt.Errorf("relaytest: %w", last)
}
