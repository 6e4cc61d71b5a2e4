package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"relayd/config"
	"relayd/delivery/maildir"
	"relayd/pop3"
	"relayd/relay"
	"relayd/relay/orders"
	"relayd/relay/smtpd"
)

// smtpServers makes one server for each SMTP service; they count their connections together.
func (h *house) smtpServers(cfg *config.Config, dns relay.Resolver) map[string]*smtpd.Server {
	gate := smtpd.NewGate()
	servers := map[string]*smtpd.Server{}
	for _, service := range []string{"smtp", "submission", "submissions"} {
		c := h.smtpConfig(cfg, service)
		c.Hostname, c.Service, c.Accept, c.Resolver, c.Gate, c.Log = cfg.Hostname, service, h.intake, dns, gate, h.log
		c.ImplicitTLS = service == "submissions"
		if service == "smtp" {
			c.Screen = h.gate
		} else {
			c.Auth = h.users
		}
		servers[service] = smtpd.New(c)
	}
	h.devices = smtpd.NewDevices()
	h.deviceServers(cfg, smtpd.Config{Hostname: cfg.Hostname, Accept: h.intake, Resolver: dns, Gate: gate, Log: h.log}, servers)
	return servers
}

// smtpConfig is the part of the SMTP servers' configuration that a reload changes.
func (h *house) smtpConfig(cfg *config.Config, service string) smtpd.Config {
	l := cfg.Limits
	c := smtpd.Config{
		TLS: h.certs.ServerConfig(), BareNewline: cfg.SMTP.BareNewline, Trusted: h.trusted,
		Limits: smtpd.Limits{
			CommandLine: l.CommandLine, MessageSize: l.MessageSize, Recipients: l.Recipients, Errors: l.Errors,
			Connections: l.Connections, ConnectionsPerAddress: l.ConnectionsPerAddress,
			CommandTimeout: l.CommandTimeout, DataTimeout: l.DataTimeout, SessionTimeout: l.SessionTimeout, MinRate: l.MinRate,
		},
	}
	if service == "submission" {
		c.Profile.PlaintextFrom = h.plaintextSubmission
	}
	return c
}

func (h *house) popServers(cfg *config.Config, mail *maildir.Store) map[string]*pop3.Server {
	servers := map[string]*pop3.Server{}
	delay := pop3.NewLoginDelay(cfg.POP3.LoginDelay)
	for _, service := range []string{"pop3", "pop3s"} {
		servers[service] = pop3.New(pop3.Config{
			Hostname: cfg.Hostname, Auth: h.users, TLS: h.certs.ServerConfig(), Log: h.log,
			Open: func(ctx context.Context, mailbox relay.Address, client netip.Addr) (pop3.Maildrop, error) {
				if h.orders.Rests(orders.POP3) {
					return nil, relay.Refuse("pop3: open", 451, "4.3.2", "collecting mail is paused")
				}
				drop, err := mail.Maildrop(ctx, mailbox)
				if err != nil {
					return nil, err
				}
				drop.SetClient(client)
				return drop, nil
			},
			PlaintextOK: h.plaintextPOP3, Delay: delay, Language: cfg.POP3.Language,
			Limits: pop3.Limits{
				Connections: cfg.Limits.POP3Connections, PerAddress: cfg.Limits.POP3PerAddress, IdleTimeout: cfg.POP3.IdleTimeout,
			},
		})
	}
	return servers
}

// plaintextSubmission says from where a password may cross the line unencrypted to submission.
func (h *house) plaintextSubmission(client netip.Addr) bool {
	return h.config().Submission.PlaintextAuth && h.trusted(client)
}

// plaintextPOP3 says so of POP3. Nobody can listen on a line that does not leave this machine.
func (h *house) plaintextPOP3(client netip.Addr) bool {
	return client.Unmap().IsLoopback() || h.config().POP3.PlaintextAuth && h.trusted(client)
}

// ours says whether behind a client may be many people of ours.
func (h *house) ours(client netip.Addr) bool { return client.Unmap().IsLoopback() || h.trusted(client) }

// isSelfName says whether a mail exchanger is us by its name.
func (h *house) isSelfName(name relay.Domain) bool {
	cfg := h.config()
	_, ours := cfg.Domains[name]
	return name == cfg.Hostname || ours
}

// isSelfAddr says whether a mail exchanger is us by its address: one of our SMTP listeners
// answers there.
func (h *house) isSelfAddr(addr netip.AddrPort) bool {
	for _, l := range h.listeners {
		if l.service != "smtp" {
			continue
		}
		own, ok := l.Addr().(*net.TCPAddr)
		if !ok || own.Port != int(addr.Port()) {
			continue
		}
		if ip := own.AddrPort().Addr().Unmap(); ip == addr.Addr().Unmap() || ip.IsUnspecified() && isInterface(addr.Addr()) {
			return true
		}
	}
	return false
}

// isInterface says whether an address is one of this machine's.
func isInterface(addr netip.Addr) bool {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, a := range all {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr().Unmap() == addr.Unmap() {
			return true
		}
	}
	return addr.IsUnspecified()
}

// localAddr chooses our end of an outgoing connection: what the config says, or the address of
// the SMTP listener where that is a particular one, so that the world sees the address whose PTR
// record names us.
func (h *house) localAddr(remote netip.Addr) netip.Addr {
	cfg := h.config()
	is4 := remote.Unmap().Is4()
	if set := cfg.Outbound.SourceIPv6; !is4 && set.IsValid() {
		return set
	}
	if set := cfg.Outbound.SourceIPv4; is4 && set.IsValid() {
		return set
	}
	for _, l := range h.listeners {
		own, ok := l.Addr().(*net.TCPAddr)
		if l.service != "smtp" || !ok {
			continue
		}
		ip := own.AddrPort().Addr().Unmap()
		if ip.Is4() == is4 && !ip.IsUnspecified() && ip.IsLoopback() == remote.IsLoopback() {
			return ip
		}
	}
	return netip.Addr{}
}

// sourceAddr is where a connection to remote would come from: what localAddr says, or what the kernel would
// choose; zero where there is no way to it.
func (h *house) sourceAddr(remote netip.Addr) netip.Addr {
	if own := h.localAddr(remote); own.IsValid() {
		return own
	}
	// Nothing is sent by connecting a datagram socket.
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(remote, 9)))
	if err != nil {
		return netip.Addr{}
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap().WithZone("")
}

// serveOne runs the service behind one listener until it is told to stop.
func (h *house) serveOne(ctx context.Context, l listener) error {
	switch l.service {
	case controlService:
		return h.admin.Serve(ctx, l)
	case "metrics":
		return h.admin.ServeMetrics(ctx, l)
	}
	counted := h.metrics.Listener(l.service, l.Listener)
	switch l.service {
	case "http":
		return h.certs.ServeHTTP(ctx, counted)
	case "https":
		return h.certs.ServeHTTPS(ctx, counted)
	}
	if s, ok := h.smtp[l.service]; ok {
		return s.Serve(ctx, counted)
	}
	if s, ok := h.pop3[l.service]; ok {
		return s.Serve(ctx, counted, l.service == "pop3s")
	}
	return fmt.Errorf("no service is called %s", l.service)
}
