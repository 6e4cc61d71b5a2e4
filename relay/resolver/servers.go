package resolver

import (
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	resolvConf  = "/etc/resolv.conf"
	recheck     = 5 * time.Second // how often resolv.conf is looked at, at most
	maxServers  = 8
	defaultPort = 53
)

// serverList is whom to ask, and who answered last. It follows resolv.conf when no servers were
// given: a mail server may start before the network is up and outlive many leases.
type serverList struct {
	file string // "" when the servers were given

	mu      sync.Mutex
	list    []netip.AddrPort
	first   int
	looked  time.Time
	changed time.Time
}

func newServerList(given []netip.AddrPort) *serverList {
	if len(given) > 0 {
		return &serverList{list: slices.Clone(given[:min(len(given), maxServers)])}
	}
	return &serverList{file: resolvConf, list: fallbackServers()}
}

// get returns the servers and the index of the one to ask first. The list must not be changed.
func (s *serverList) get(now time.Time) (list []netip.AddrPort, first int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file != "" && (s.looked.IsZero() || now.Sub(s.looked).Abs() >= recheck) {
		s.looked = now
		s.reread()
	}
	return s.list, s.first
}

// prefer makes server, which has just answered, the first to be asked.
func (s *serverList) prefer(server netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.list, server); i >= 0 {
		s.first = i
	}
}

// reread keeps the old servers while the file cannot be read: it is often replaced in a moment.
func (s *serverList) reread() {
	info, err := os.Stat(s.file)
	if err != nil || info.ModTime().Equal(s.changed) {
		return
	}
	conf, err := dns.ClientConfigFromFile(s.file)
	if err != nil {
		return
	}
	s.changed = info.ModTime()
	s.list, s.first = parseServers(conf.Servers), 0
}

func parseServers(names []string) []netip.AddrPort {
	var list []netip.AddrPort
	for _, name := range names {
		addr, err := netip.ParseAddr(name)
		if err == nil && len(list) < maxServers {
			list = append(list, netip.AddrPortFrom(addr, defaultPort))
		}
	}
	if len(list) == 0 {
		return fallbackServers()
	}
	return list
}

// fallbackServers is what resolv.conf(5) says an empty file means.
func fallbackServers() []netip.AddrPort {
	return []netip.AddrPort{
		netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), defaultPort),
		netip.AddrPortFrom(netip.IPv6Loopback(), defaultPort),
	}
}
