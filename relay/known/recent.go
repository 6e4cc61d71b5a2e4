package known

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"relayd/relay"
)

// Recent names at most n domains that were noted on the day of since or later, the latest first.
func (m *Memory) Recent(n int, since time.Time) []relay.Domain {
	m.mu.Lock()
	defer m.mu.Unlock()
	day := since.UTC().Format(dayFormat)
	var all []relay.Domain
	for d := range maps.Keys(m.last) {
		if m.last[d] >= day {
			all = append(all, d)
		}
	}
	slices.SortFunc(all, func(a, b relay.Domain) int { return cmp.Or(cmp.Compare(m.last[b], m.last[a]), cmp.Compare(a, b)) })
	return all[:min(n, len(all))]
}
