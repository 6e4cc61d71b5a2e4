package admin

import (
	"cmp"
	"log/slog"
	"slices"
	"strings"
	"sync"
)

// UserStats counts for one user of ours, over all services.
type UserStats struct {
	User        string `json:"user"`
	Connections int64  `json:"connections"` // ever: sessions that logged in
	Now         int64  `json:"now"`
	Sent        int64  `json:"sent"`      // letters accepted from this login
	Delivered   int64  `json:"delivered"` // letters into this mailbox
	Fetched     int64  `json:"fetched"`   // letters collected by POP3
	BytesIn     int64  `json:"bytes_in"`  // octets of those sent
	BytesOut    int64  `json:"bytes_out"` // octets of those collected
}

// maxPeople bounds the users that are counted one by one. Nobody gets here without a mailbox.
const maxPeople = 10_000

// people counts by user, from the log. Prometheus does not get it: a label for each user is too
// many, and who writes how much is nobody's business but the operator's.
type people struct {
	mu     sync.Mutex
	byName map[string]*UserStats
}

// see takes a record of the log.
func (p *people) see(r slog.Record) {
	key := "user"
	switch r.Message {
	case "delivered":
		key = "mailbox"
	case "accepted", "fetched", "logged in", "logged out":
	default:
		return
	}
	name, size := "", int64(0)
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case key:
			name = strings.ToLower(a.Value.String())
		case "size":
			if v := a.Value.Resolve(); v.Kind() == slog.KindInt64 {
				size = v.Int64()
			}
		}
		return true
	})
	if name != "" {
		p.count(name, r.Message, size)
	}
}

func (p *people) count(name, event string, size int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	u := p.byName[name]
	if u == nil {
		if len(p.byName) >= maxPeople {
			return
		}
		if p.byName == nil {
			p.byName = map[string]*UserStats{}
		}
		u = &UserStats{User: name}
		p.byName[name] = u
	}
	switch event {
	case "accepted":
		u.Sent, u.BytesIn = u.Sent+1, u.BytesIn+size
	case "delivered":
		u.Delivered++
	case "fetched":
		u.Fetched, u.BytesOut = u.Fetched+1, u.BytesOut+size
	case "logged in":
		u.Connections, u.Now = u.Connections+1, u.Now+1
	case "logged out":
		u.Now--
	}
}

func (p *people) stats() []UserStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := []UserStats{}
	for _, u := range p.byName {
		list = append(list, *u)
	}
	slices.SortFunc(list, func(a, b UserStats) int { return cmp.Compare(a.User, b.User) })
	return list
}
