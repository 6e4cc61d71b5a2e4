package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"

	"relayd/config"
	"relayd/relay"
	"relayd/relay/admin"
	"relayd/relay/autoconfig"
	"relayd/relay/policy"
	"relayd/relay/records"
)

// checkRecords says which records a domain of ours should have, beside what the DNS answers now.
func (h *house) checkRecords(ctx context.Context, d relay.Domain) ([]records.Line, error) {
	cfg := h.config()
	if _, ours := cfg.Domains[d]; !ours {
		e := &admin.Error{Code: http.StatusNotFound, Message: fmt.Sprintf("%s is not a domain of this server", d)}
		for _, have := range slices.Sorted(maps.Keys(cfg.Domains)) {
			e.Hint += cmp.Or(map[bool]string{true: "its domains: "}[e.Hint == ""], ", ") + string(have)
		}
		return nil, e
	}
	keys, err := h.keys.List(ctx, true)
	if err != nil {
		return nil, err
	}
	o := records.Office{Domain: d, Hostname: cfg.Hostname, Addrs: h.sendingAddrs(), Smarthost: smarthost(cfg, d)}
	o.Autoconfig = slices.ContainsFunc(h.listeners, func(l listener) bool { return l.service == "http" || l.service == "https" })
	o.Services = h.services(d)
	o.STS = h.servedPolicy(d)
	o.SPF = func(ctx context.Context, addr netip.Addr) string {
		return string(policy.SPF(ctx, h.fresh, addr, cfg.Hostname, d))
	}
	for _, k := range keys {
		if k.Domain == d && k.Role != policy.Old {
			o.Keys = append(o.Keys, records.Key{Name: k.RecordName(), Text: k.Record(), Strings: policy.TXTStrings(k.Record()),
				Next: k.Role == policy.Next, Visible: k.Visible, Problem: k.Problem})
		}
	}
	return records.Check(ctx, o, h.fresh), nil
}

// services is where mail programs of a domain find us.
func (h *house) services(d relay.Domain) (found []records.Service) {
	s := h.clientSettings()
	for _, list := range [][]autoconfig.Server{s.Incoming, s.Outgoing} {
		for i, server := range list {
			if server.Local {
				continue
			}
			found = append(found, records.Service{Name: fmt.Sprintf("_%s._tcp.%s", server.Service, d),
				SRV: relay.SRV{Priority: uint16(10 * i), Weight: 1, Port: uint16(server.Port), Target: s.Hostname}})
		}
	}
	return found
}

// sendingAddrs is where our mail leaves from, as far as the config says so.
func (h *house) sendingAddrs() (list []netip.Addr) {
	out := h.config().Outbound
	add := func(a netip.Addr) {
		if a.IsValid() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsPrivate() && !slices.Contains(list, a) {
			list = append(list, a)
		}
	}
	add(out.SourceIPv4)
	add(out.SourceIPv6)
	for _, l := range h.listeners {
		if own, ok := l.Addr().(*net.TCPAddr); ok && l.service == "smtp" {
			add(own.AddrPort().Addr().Unmap())
		}
	}
	return list
}

// smarthost is the host that all mail of a domain leaves through; empty without one.
func smarthost(cfg *config.Config, from relay.Domain) string {
	for _, r := range cfg.Routes {
		always := len(r.Logins)+len(r.MX)+len(r.On)+r.After == 0
		ours := len(r.From) == 0 || slices.Contains(r.From, string(from)) || slices.Contains(r.From, "*")
		if r.Via != "" && always && ours && slices.Contains(r.To, "*") {
			return r.Host
		}
	}
	return ""
}
