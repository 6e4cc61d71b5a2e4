// Package autoconfig says how mail programs reach us: which of our listeners a person's program
// should use to collect and to send, as a text for people, as Thunderbird's autoconfig file, as SRV
// records and as a POP URL. cmd/relayd serves the file, relayctl prints all of them; both hand it
// the listeners there are, so that nothing is promised that nobody answers.
package autoconfig

import (
	"net"
	"net/netip"
	"strconv"

	"relayd/relay"
)

// Listener is one of ours, as configured or as it is.
type Listener struct {
	Service string // smtp, submission, submissions, pop3, pop3s; others are ignored
	Address string // HOST:PORT; an empty HOST is every interface
}

// Server is one place for a mail program to connect to.
type Server struct {
	Service string `json:"service"` // pop3s, pop3, submissions or submission
	Host    string `json:"host"`
	Port    int    `json:"port"`
	TLS     string `json:"tls"` // implicit: from the first byte; starttls: after STLS or STARTTLS
	// Local says that it answers on this machine only. Host is its address then.
	Local bool `json:"local,omitzero"`
}

// The values of Server.TLS.
const (
	Implicit = "implicit"
	StartTLS = "starttls"
)

// Settings is what a mail program of some domains needs to know.
type Settings struct {
	Hostname relay.Domain
	Domains  []relay.Domain
	Incoming []Server // the best first: TLS from the first byte (RFC 8314 §3)
	Outgoing []Server
}

// New chooses among listeners: one for each service, that of this machine alone where there is no
// other.
func New(hostname relay.Domain, domains []relay.Domain, listeners []Listener) Settings {
	s := Settings{Hostname: hostname, Domains: domains}
	add := func(list *[]Server, service, tls string) {
		if server, ok := choose(hostname, service, listeners); ok {
			server.TLS = tls
			*list = append(*list, server)
		}
	}
	add(&s.Incoming, "pop3s", Implicit)
	add(&s.Incoming, "pop3", StartTLS)
	add(&s.Outgoing, "submissions", Implicit)
	add(&s.Outgoing, "submission", StartTLS)
	return s
}

func choose(hostname relay.Domain, service string, listeners []Listener) (best Server, found bool) {
	for _, l := range listeners {
		host, digits, err := net.SplitHostPort(l.Address)
		port, bad := strconv.Atoi(digits)
		if l.Service != service || err != nil || bad != nil || port == 0 {
			continue
		}
		server := Server{Service: service, Host: string(hostname), Port: port}
		if ip, err := netip.ParseAddr(host); host == "localhost" || err == nil && ip.IsLoopback() {
			server.Host, server.Local = host, true
		}
		if !found || best.Local && !server.Local {
			best, found = server, true
		}
	}
	return best, found
}

// of finds the server of a service.
func (s Settings) of(service string) (Server, bool) {
	for _, list := range [][]Server{s.Incoming, s.Outgoing} {
		for _, server := range list {
			if server.Service == service {
				return server, true
			}
		}
	}
	return Server{}, false
}
