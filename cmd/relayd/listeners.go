package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/coreos/go-systemd/v22/activation"

	"relayd/config"
)

// listener is one open socket and the service behind it.
type listener struct {
	service string // smtp, submission, submissions, pop3, pop3s, metrics, http, https, device, device2, ...
	net.Listener
}

// services are the names a socket unit may give its sockets by FileDescriptorName=, and the
// config's lists of addresses.
func services(l config.Listen) []struct {
	name  string
	addrs []string
} {
	all := []struct {
		name  string
		addrs []string
	}{
		{"smtp", l.SMTP}, {"submission", l.Submission}, {"submissions", l.Submissions},
		{"pop3", l.POP3}, {"pop3s", l.POP3S}, {"metrics", l.Metrics}, {"http", l.HTTP}, {"https", l.HTTPS},
	}
	for _, d := range l.Devices {
		all = append(all, struct {
			name  string
			addrs []string
		}{d.Service, d.Addresses})
	}
	return all
}

// listen opens every listener of the config. Sockets that a service manager passed, named after
// the services, take the place of the addresses of theirs: so that relayd never needs the
// privilege to open port 25, and the kernel holds the port over a restart.
func listen(ctx context.Context, l config.Listen) (open []listener, err error) {
	defer func() {
		if err != nil {
			for _, o := range open {
				o.Close()
			}
			open = nil
		}
	}()
	passed, err := activation.ListenersWithNames()
	if err != nil {
		return nil, fmt.Errorf("sockets of the service manager: %w", err)
	}
	for _, s := range services(l) {
		if sockets := passed[s.name]; len(sockets) > 0 {
			for _, socket := range sockets {
				open = append(open, listener{s.name, socket})
			}
			continue
		}
		for _, addr := range s.addrs {
			socket, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
			if err != nil {
				return open, fmt.Errorf("listen for %s: %w%s", s.name, err, listenHint(err))
			}
			open = append(open, listener{s.name, socket})
		}
	}
	return open, nil
}

func listenHint(err error) string {
	switch text := err.Error(); {
	case strings.Contains(text, "permission denied"):
		return "\nhint: ports below 1024 need CAP_NET_BIND_SERVICE or sockets passed by systemd; see the README"
	case strings.Contains(text, "address already in use"):
		return fmt.Sprintf("\nhint: another program listens there, perhaps another relayd than this one (pid %d); `ss -ltnp` shows it", os.Getpid())
	}
	return ""
}

// addresses are the listeners as words, service=address, for the log and the service manager.
// The control socket is not one of them: it is always at the same place.
func addresses(open []listener) string {
	var words []string
	for _, o := range open {
		if o.service != controlService {
			words = append(words, o.service+"="+o.Addr().String())
		}
	}
	return strings.Join(words, " ")
}
