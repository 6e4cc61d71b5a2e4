package main

import (
	"fmt"
	"path/filepath"

	"relayd/config"
	"relayd/relay"
	"relayd/relay/admin"
	"relayd/relay/gate"
)

// openGate makes the gate; it tests its lists once serve runs it.
func (h *house) openGate(cfg *config.Config) {
	h.gate = gate.Open(gate.Options{
		Path: filepath.Join(cfg.DataDir, "gate"), DNS: h.dns, Log: h.log,
		Wrote: func(d relay.Domain) bool { _, ok := h.known.Last(d); return ok },
	})
	h.later(h.gate.Close)
	h.gate.Set(gateRules(cfg))
}

// gateRules is [gate] as the gate wants it.
func gateRules(cfg *config.Config) gate.Rules {
	modes := map[string]gate.Mode{config.PolicyOff: gate.Off, config.PolicyObserve: gate.Observe, config.PolicyEnforce: gate.Enforce}
	g := cfg.Gate
	home := cfg.DefaultDomain
	if home == "" {
		home = cfg.Hostname
	}
	r := gate.Rules{
		Mode: modes[cfg.Policy.Mode], Pass: g.Pass, GreetWait: g.GreetWait, Connections: g.Connections, Letters: g.Letters,
		NoReverse: g.NoReverse, BadHelo: g.BadHelo, ForgedHelo: g.ForgedHelo, Junk: g.Junk, Reject: g.Reject,
		Greylist: g.Greylist, Postmaster: relay.Postmaster.Local + "@" + string(home),
		Ours: func(d relay.Domain) bool {
			_, ours := cfg.Domains[d]
			return ours || d == cfg.Hostname
		},
	}
	for _, l := range g.Lists {
		r.Lists = append(r.Lists, gate.List{Zone: l.Zone, Weight: l.Weight, Answers: l.Answers})
	}
	return r
}

// gateWarnings says which lists are ignored, and why.
func (h *house) gateWarnings() (list []string) {
	for _, l := range h.gate.Report().Lists {
		if l.Ignored != "" {
			list = append(list, fmt.Sprintf("the list %s is ignored: %s", l.Zone, l.Ignored))
		}
	}
	return list
}

// shownGate shows the gate to relay/admin.
func (h *house) shownGate() admin.Gate {
	r := h.gate.Report()
	g := admin.Gate{Mode: h.config().Policy.Mode, Known: r.Known, Waiting: r.Waiting, Rules: []admin.GateRule{}, Lists: []admin.GateList{}}
	for _, c := range r.Rules {
		g.Rules = append(g.Rules, admin.GateRule{Rule: string(c.Rule), Refused: c.Refused, Observed: c.Observed})
	}
	for _, l := range r.Lists {
		one := admin.GateList{Zone: l.Zone, Weight: l.Weight, Hits: l.Hits, Ignored: l.Ignored}
		for _, a := range l.Answers {
			one.Answers = append(one.Answers, a.String())
		}
		g.Lists = append(g.Lists, one)
	}
	return g
}
