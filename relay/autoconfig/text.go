package autoconfig

import (
	"fmt"
	"net/url"
	"strings"

	"relayd/relay"
)

// SRV is the records of RFC 6186 and RFC 8314 §5.1 for a zone file, TLS from the first byte
// preferred. A service that the world cannot reach has the target "." (RFC 6186 §3.4). IMAP is left
// out: whether there is any is not ours to say.
func (s Settings) SRV() string {
	var b strings.Builder
	for _, d := range s.Domains {
		for i, service := range []string{"pop3s", "pop3", "submissions", "submission"} {
			name := fmt.Sprintf("_%s._tcp.%s.", service, d)
			if server, ok := s.of(service); ok && !server.Local {
				fmt.Fprintf(&b, "%-36s SRV %2d 1 %d %s.\n", name, i%2*10, server.Port, s.Hostname)
			} else {
				fmt.Fprintf(&b, "%-36s SRV  0 0 0 .\n", name)
			}
		}
	}
	return b.String()
}

// URL is the mailbox of a user as RFC 2384 writes it; empty without POP3. The RFC knows no TLS from
// the first byte; where that is all there is, the scheme is pops, as mutt has it.
func (s Settings) URL(user relay.Address) string {
	server, ok := s.of("pop3")
	scheme, usual := "pop", 110
	if !ok {
		if server, ok = s.of("pop3s"); !ok {
			return ""
		}
		scheme, usual = "pops", 995
	}
	host := server.Host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if server.Port != usual {
		host += fmt.Sprintf(":%d", server.Port)
	}
	// QueryEscape leaves nothing of what RFC 2384 §7 reserves, and a + that means a space would be
	// read as a plus.
	return scheme + "://" + strings.ReplaceAll(url.QueryEscape(user.String()), "+", "%20") + "@" + host
}

// Text tells a person what to type where.
func (s Settings) Text(user relay.Address) string {
	var b strings.Builder
	in, out := best(s.Incoming), best(s.Outgoing)
	name := user.String()
	fmt.Fprintf(&b, "user name: %s, the whole address, for collecting and for sending\n", name)
	fmt.Fprintf(&b, "password:  that of relayctl user add, for both\n\n")
	b.WriteString("Thunderbird (it finds all this itself where the file of --xml is served)\n")
	line(&b, "incoming", in, "POP3", "SSL/TLS", "STARTTLS", ", normal password")
	line(&b, "outgoing", out, "SMTP", "SSL/TLS", "STARTTLS", ", normal password")
	b.WriteString("\nOutlook (manual setup, account type POP)\n")
	if outlook, ok := s.of("pop3s"); ok {
		line(&b, "incoming", &outlook, "POP", "requires an encrypted connection (SSL/TLS)", "", "")
	} else {
		b.WriteString("  incoming: none: Outlook wants TLS from the first byte, and relayd does not listen for pop3s\n")
	}
	line(&b, "outgoing", out, "SMTP", "encryption SSL/TLS", "encryption STARTTLS", ", requires authentication like the incoming server")
	b.WriteString("\nK-9 Mail (POP3)\n")
	line(&b, "incoming", in, "POP3", "security SSL/TLS", "security STARTTLS", ", authentication normal password")
	line(&b, "outgoing", out, "SMTP", "security SSL/TLS", "security STARTTLS", ", authentication normal password")
	if u := s.URL(user); u != "" {
		fmt.Fprintf(&b, "\nPOP URL\n  %s\n", u)
	}
	return b.String()
}

func best(list []Server) *Server {
	if len(list) == 0 {
		return nil
	}
	return &list[0]
}

func line(b *strings.Builder, what string, s *Server, protocol, implicit, starttls, rest string) {
	if s == nil {
		fmt.Fprintf(b, "  %s: none: relayd does not listen for it\n", what)
		return
	}
	security := implicit
	if s.TLS == StartTLS {
		security = starttls
	}
	where := ""
	if s.Local {
		where = " (on this machine only)"
	}
	fmt.Fprintf(b, "  %s: %s, server %s%s, port %d, %s%s\n", what, protocol, s.Host, where, s.Port, security, rest)
}
