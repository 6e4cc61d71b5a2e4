package main

import (
	"maps"
	"slices"

	"relayd/relay/autoconfig"
)

// clientSettings is what mail programs need to know, by today's config and the listeners there are.
func (h *house) clientSettings() autoconfig.Settings {
	cfg := h.config()
	var list []autoconfig.Listener
	for _, l := range h.listeners {
		list = append(list, autoconfig.Listener{Service: l.service, Address: l.Addr().String()})
	}
	return autoconfig.New(cfg.Hostname, slices.Sorted(maps.Keys(cfg.Domains)), list)
}
