package main

import (
	"context"
	"slices"
	"time"

	"relayd/delivery/mx"
	"relayd/relay"
)

// How our own line is tried.
const (
	reachDomains = 5 // that are asked at the same time
	reachSince   = 60 * 24 * time.Hour
	reachTimeout = time.Minute
)

// reach says whether our line works, by calling the mail hosts of domains that have taken mail lately and
// do not fail. What the DNS said before does not count. Where there are none, the failures are all there is
// to go by.
func (h *house) reach(ctx context.Context, failing []relay.Domain) (reached bool) {
	domains := h.known.Recent(reachDomains+len(failing), time.Now().Add(-reachSince))
	domains = slices.DeleteFunc(domains, func(d relay.Domain) bool { return slices.Contains(failing, d) })
	domains = domains[:min(len(domains), reachDomains)]
	cfg := h.config()
	client := mx.New(mx.Config{
		Hostname: cfg.Hostname, Resolver: h.fresh, Port: int(cfg.Outbound.Port), AllowLoopback: cfg.Outbound.AllowLoopback,
		SelfName: h.isSelfName, SelfAddr: h.isSelfAddr, LocalAddr: h.localAddr, Log: h.log,
	})
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	answers := make(chan bool, len(domains))
	for _, d := range domains {
		go func() { answers <- client.Reaches(ctx, d) }()
	}
	for range domains {
		if <-answers { // one is enough; the others end with ctx, at once
			reached = true
			cancel()
		}
	}
	return reached
}
