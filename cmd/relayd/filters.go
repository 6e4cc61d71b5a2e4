package main

import (
	"relayd/config"
	"relayd/relay"
	"relayd/relay/admin"
	"relayd/relay/filter"
)

// filterPrograms is [filter] as relay/filter wants it.
func filterPrograms(cfg *config.Config) (all []filter.Config) {
	kinds := map[string]filter.Kind{
		config.FilterRspamd: filter.Rspamd, config.FilterClamd: filter.Clamd, config.FilterMilter: filter.Milter,
	}
	for _, f := range cfg.Filters {
		all = append(all, filter.Config{Kind: kinds[f.Kind], Name: f.Name, Address: f.Address, Timeout: f.Timeout,
			Defer: f.Defer, MaxSize: f.MaxSize, Ours: f.Submissions})
	}
	return all
}

// junkScores are the users' own thresholds.
func junkScores(cfg *config.Config) func(relay.Address) (float64, bool) {
	return func(mailbox relay.Address) (float64, bool) {
		score := cfg.Users[mailbox].JunkScore
		if score == nil {
			return 0, false
		}
		return *score, true
	}
}

func (h *house) shownFilters() []admin.ContentFilter {
	var all []admin.ContentFilter
	for _, s := range h.filters.States() {
		f := admin.ContentFilter{Name: s.Name, Address: s.Address, WhenDown: "accept", Down: s.Down, Problem: s.Problem, Letters: s.Counts}
		if s.Defer {
			f.WhenDown = "defer"
		}
		all = append(all, f)
	}
	return all
}
