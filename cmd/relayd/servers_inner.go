package main

import (
	"context"
	"errors"
	"fmt"
	"net"

	"relayd/config"
	"relayd/delivery/mx"
	"relayd/relay"
	"relayd/relay/intake"
)

// innerRoutes are the routes to the servers that keep domains of ours. They come before all others: such
// mail never leaves by a smarthost.
func innerRoutes(cfg *config.Config) (out []mx.Route, err error) {
	for d, domain := range cfg.Domains {
		s := domain.Server
		if s == (config.Server{}) {
			continue
		}
		// Its certificate proves nothing: the line is the operator's own.
		r := mx.Route{To: string(d), LMTP: s.LMTP, Socket: s.Socket, TLS: mx.TLSMay}
		if s.Socket == "" {
			to, err := mx.ParseRoute(string(d), net.JoinHostPort(s.Host, fmt.Sprint(s.Port)))
			if err != nil {
				return nil, err
			}
			r.Via, r.Port = to.Via, to.Port
		}
		out = append(out, r)
	}
	return out, nil
}

// isInner says whether another server of ours keeps the mail of a domain.
func (h *house) isInner(d relay.Domain) bool { return h.config().Domains[d].Server != config.Server{} }

// isHere says whether mail for an address is kept in the maildirs here.
func (h *house) isHere(a relay.Address) bool { return h.isLocal(a) && !h.isInner(a.Domain) }

// isBackup says whether we take mail for a domain only until its own servers do.
func (h *house) isBackup(d relay.Domain) bool {
	_, ok := h.config().RelayDomains[d]
	return ok
}

func knownOf(k config.Known) intake.Known {
	names := make(map[string]bool, len(k.Recipients))
	for _, name := range k.Recipients {
		names[name] = true
	}
	return intake.Known{Names: names, Ask: k.Ask}
}

// ask is the callout.Caller. It is set up before the client that makes the calls.
func (h *house) ask(ctx context.Context, rcpt relay.Address) (bool, error) {
	if h.client == nil {
		return false, errors.New("not started yet")
	}
	return h.client.Ask(ctx, rcpt)
}
