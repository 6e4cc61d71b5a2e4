package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"relayd/config"
	"relayd/delivery/mtasts"
	"relayd/relay"
	"relayd/relay/certs"
	"relayd/relay/records"
)

// ownPolicy is the MTA-STS policy of a domain of ours; false where none is to be served.
func (h *house) ownPolicy(d relay.Domain) (relay.STSPolicy, bool) {
	cfg := h.config()
	domain := cfg.Domains[d]
	return mtasts.Own(domain.STS, append([]relay.Domain{cfg.Hostname}, domain.STSHosts...)...), domain.STS != ""
}

// policyHosts are the names that need a certificate for their policies.
func policyHosts(cfg *config.Config) (names []relay.Domain) {
	for _, d := range slices.Sorted(maps.Keys(cfg.Domains)) {
		if cfg.Domains[d].STS != "" {
			names = append(names, mtasts.PolicyHost(d))
		}
	}
	return names
}

// servedPolicy is the policy as relayctl dns judges it.
func (h *house) servedPolicy(d relay.Domain) records.STS {
	p, ok := h.ownPolicy(d)
	if !ok {
		return records.STS{}
	}
	s := records.STS{ID: mtasts.RecordID(p), STSPolicy: p}
	host := string(mtasts.PolicyHost(d))
	_, parent, _ := strings.Cut(host, ".")
	covers := func(st certs.Status) bool {
		return st.From != certs.FromSelfSigned && !st.NotAfter.IsZero() && (slices.Contains(st.Names, host) || slices.Contains(st.Names, "*."+parent))
	}
	switch {
	case !slices.ContainsFunc(h.listeners, func(l listener) bool { return l.service == "https" }):
		s.Problem = "nothing listens for https"
	case !slices.ContainsFunc(h.certs.Status(), covers):
		s.Problem = fmt.Sprintf("%s has no certificate of an authority", host)
	}
	return s
}
