package queue

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"relayd/relay"
)

// Filter chooses items. Every field that is set must match; the zero Filter matches every item,
// also for Drop, so whoever asks an operator makes sure first. A list that is empty but not nil
// names nothing.
//
// To, From and Domain are compared without regard to case. With a * (any characters) or a ? (any
// one character) they must match the whole address or domain; without, To and From match when
// they occur in the address, and Domain when it is the domain. To matches any pending recipient,
// by its address or as RCPT TO said it. From "<>" is the null sender of reports.
type Filter struct {
	IDs       []relay.ID
	Keys      []Key // items named one by one; with IDs, either list may name the item
	To        string
	From      string
	Domain    string
	User      string        // who logged in to send it, exactly
	OlderThan time.Duration // accepted at least so long ago
	Held      *bool
}

// matcher is a Filter made ready.
type matcher struct {
	Filter
	named  []string // IDs of IDs and Keys, sorted
	keys   map[Key]bool
	ids    map[relay.ID]bool
	before relay.ID // OlderThan as an ID: only smaller ones match
}

func (f Filter) compile(now time.Time) *matcher {
	m := &matcher{Filter: f, keys: map[Key]bool{}, ids: map[relay.ID]bool{}}
	m.To, m.From, m.Domain = strings.ToLower(f.To), strings.ToLower(f.From), strings.ToLower(f.Domain)
	if d, err := relay.ParseDomain(f.Domain); err == nil {
		m.Domain = strings.ToLower(string(d))
	}
	for _, id := range f.IDs {
		m.ids[id] = true
		m.named = append(m.named, string(id))
	}
	for _, k := range f.Keys {
		m.keys[k] = true
		m.named = append(m.named, string(k.ID))
	}
	slices.Sort(m.named)
	m.named = slices.Compact(m.named)
	return m.olderThan(now)
}

func (m *matcher) olderThan(now time.Time) *matcher {
	if m.OlderThan > 0 {
		// The first ten characters of an ID are its time; one millisecond later is the first that
		// is too young.
		m.before = relay.NewID(now.Add(-m.OlderThan + time.Millisecond))[:10]
	}
	return m
}

// start is the first key that may match; nil when none can.
func (m *matcher) start() []byte {
	if len(m.named) > 0 {
		return []byte(m.named[0])
	}
	if m.IDs != nil || m.Keys != nil {
		return nil
	}
	return []byte{}
}

// skipTo is the first key at or after next that may match; nil when none can.
func (m *matcher) skipTo(next []byte) []byte {
	if next == nil || m.before != "" && string(next) >= string(m.before) {
		return nil
	}
	if len(m.named) == 0 {
		return next
	}
	id, _, _ := strings.Cut(string(next), "/")
	at, _ := slices.BinarySearch(m.named, id)
	if at == len(m.named) {
		return nil
	}
	return []byte(max(m.named[at], string(next)))
}

// key says whether the item of a raw key may match.
func (m *matcher) key(raw []byte) bool {
	id, domain, _ := strings.Cut(string(raw), "/")
	switch {
	case len(m.named) > 0 && !m.ids[relay.ID(id)] && !m.keys[Key{relay.ID(id), relay.Domain(domain)}]:
		return false
	case m.before != "" && id >= string(m.before):
		return false
	}
	return m.Domain == "" || relay.MatchText(m.Domain, domain, false)
}

// item decodes a record and says whether it matches.
func (m *matcher) item(rec record) (Item, bool, error) {
	broken := Item{Envelope: relay.Envelope{ID: rec.key.ID}, Domain: rec.key.Domain}
	if rec.err != nil {
		return broken, false, fmt.Errorf("queue: list: %w: %v", errRecord, rec.err)
	}
	it, _, err := decode(rec.key, rec.value)
	if err != nil {
		return broken, false, fmt.Errorf("queue: list %s: %w", rec.key, err)
	}
	return it, m.matches(&it), nil
}

func (m *matcher) matches(it *Item) bool {
	if m.Held != nil && *m.Held != it.Held {
		return false
	}
	if m.User != "" && !strings.EqualFold(m.User, it.Origin.User) {
		return false
	}
	if m.From != "" && !relay.MatchText(m.From, cmp.Or(it.From.String(), "<>"), true) {
		return false
	}
	return m.To == "" || slices.ContainsFunc(it.Rcpts, func(rc relay.Recipient) bool {
		return relay.MatchText(m.To, rc.Addr.String(), true) || rc.Orig != "" && relay.MatchText(m.To, rc.Orig, true)
	})
}
