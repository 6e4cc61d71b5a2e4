package gate

import "slices"

// Report is how the gate is, for the operator.
type Report struct {
	Mode  Mode
	Rules []Count
	Lists []ListState // in the order of the config
	// How many clients and senders are known by an accepted letter, how many have been asked to come
	// again and have not yet.
	Known, Waiting int
}

// Count is how often a rule has refused since the start, and how often it would have.
type Count struct {
	Rule              Rule
	Refused, Observed int64
}

// ListState is one list.
type ListState struct {
	List
	Hits    int64  // clients its zone lists, since the start
	Ignored string // why; empty: it is not
}

// Report says how things are.
func (g *Gate) Report() Report {
	rules := g.rules.Load()
	r := Report{Mode: rules.Mode}
	for _, rule := range AllRules() {
		c := g.counts[rule]
		r.Rules = append(r.Rules, Count{rule, c.refused.Load(), c.observed.Load()})
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, l := range rules.Lists {
		s := ListState{List: l}
		s.Answers = slices.Clone(l.Answers)
		if z := g.zones[l.Zone]; z != nil {
			s.Ignored = z.state()
			z.mu.Lock()
			s.Hits = z.hits
			z.mu.Unlock()
		}
		r.Lists = append(r.Lists, s)
	}
	r.Known, r.Waiting = g.memory.sizes()
	return r
}
