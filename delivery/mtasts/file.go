package mtasts

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"relayd/relay"
	"relayd/relay/durable"
)

// maxFile bounds what is read of the file.
const maxFile = 64 << 20

// line is an entry in the file.
type line struct {
	Domain  relay.Domain  `json:"domain"`
	ID      string        `json:"id"`
	Mode    relay.STSMode `json:"mode"`
	MX      []string      `json:"mx,omitempty"`
	Fetched time.Time     `json:"fetched"`
	MaxAge  int64         `json:"max_age"` // seconds
}

// state is the file: the policies that still hold.
func (s *Store) state() ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	var b bytes.Buffer
	out := json.NewEncoder(&b)
	for _, d := range slices.Sorted(maps.Keys(s.entries)) {
		e := s.entries[d]
		if !e.holds(now) {
			continue
		}
		if err := out.Encode(line{d, e.id, e.Mode, e.MX, e.fetched.UTC(), int64(e.Age / time.Second)}); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}

func (s *Store) read() {
	now := time.Now()
	err := durable.ReadLines(s.o.Path, maxFile, durable.MaxLine, func(text []byte) {
		if d, e, ok := readLine(text); ok && e.holds(now) && len(s.entries) < maxEntries {
			s.entries[d] = e
		}
	})
	if err != nil {
		s.log.Warn("not all policies fetched before can be read", "file", s.o.Path, "err", err)
	}
}

func readLine(text []byte) (relay.Domain, entry, bool) {
	var l line
	if json.Unmarshal(text, &l) != nil {
		return "", entry{}, false
	}
	d, err := relay.ParseDomain(string(l.Domain))
	age := time.Duration(min(max(l.MaxAge, 0), int64(maxAge/time.Second))) * time.Second
	return d, entry{policy{relay.STSPolicy{Mode: l.Mode, MX: l.MX, Age: age}}, l.ID, l.Fetched}, err == nil
}
