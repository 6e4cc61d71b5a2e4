package queue

import (
	"slices"
	"strings"
	"time"

	"relayd/relay"
)

// Item is one letter to one domain. delivery gets it from Take and answers with Settle.
type Item struct {
	relay.Envelope                // Rcpts are those of Domain that are still pending
	Domain         relay.Domain   `json:"domain"`
	Attempts       int            `json:"attempts"`           // attempts begun, the present one included
	Next           time.Time      `json:"next"`               // when it is due (again)
	Held           bool           `json:"held"`               // an operator, or Hold, keeps it from being taken
	Scheduled      bool           `json:"scheduled,omitzero"` // an operator or its sender set Next, which may lie further off than a Schedule asks
	Warned         bool           `json:"warned"`             // the sender has been told of the delay
	Told           time.Time      `json:"told"`               // when, the last time; zero of those warned by older versions
	Last           []relay.Result `json:"last"`               // the newest result of each pending recipient that has one
	Done           []relay.Result `json:"done"`               // final results, of recipients no longer pending

	// Taken is when Take handed it out, with the monotonic clock; zero where it did not. The other times
	// are told by the wall clock as it went then.
	Taken time.Time `json:"-"`
}

// Now is the time by the clock that tells the times of it, which somebody may have set since it was taken.
func (it *Item) Now() time.Time {
	if it.Taken.IsZero() {
		return time.Now()
	}
	return it.Taken.Add(time.Since(it.Taken))
}

// Key is the name of the item.
func (it *Item) Key() Key { return Key{it.ID, it.Domain} }

// Key names one item.
type Key struct {
	ID     relay.ID
	Domain relay.Domain
}

// String is "id/domain".
func (k Key) String() string { return string(k.ID) + "/" + string(k.Domain) }

// ParseKey reads what String wrote.
func ParseKey(s string) (Key, error) {
	id, domain, _ := strings.Cut(s, "/")
	gotID, err := relay.ParseID(id)
	if err != nil {
		return Key{}, err
	}
	gotDomain, err := relay.ParseDomain(domain)
	if err != nil {
		return Key{}, err
	}
	return Key{gotID, gotDomain}, nil
}

// MarshalText is String.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (k *Key) UnmarshalText(b []byte) (err error) {
	*k, err = ParseKey(string(b))
	return err
}

// maxReply bounds the words of a remote that a record keeps. delivery/mx bounds them much lower;
// a record must stay small whatever it lets through.
const maxReply = 8 << 10

// settle enters results and says whether recipients are left. A result for somebody who is not
// pending is ignored: a duplicate answer must not undo a final one.
func (it *Item) settle(results []relay.Result) bool {
	for _, r := range results {
		pending := func(rc relay.Recipient) bool { return rc.Addr == r.Rcpt }
		if !slices.ContainsFunc(it.Rcpts, pending) {
			continue
		}
		if len(r.Reply.Text) > maxReply {
			r.Reply.Text = strings.ToValidUTF8(r.Reply.Text[:maxReply], "")
		}
		it.Last = slices.DeleteFunc(it.Last, func(l relay.Result) bool { return l.Rcpt == r.Rcpt })
		switch r.Outcome {
		case relay.Delivered, relay.Failed:
			it.Rcpts = slices.DeleteFunc(it.Rcpts, pending)
			it.Done = append(it.Done, r)
		default:
			it.Last = append(it.Last, r)
		}
	}
	if !it.Held {
		it.Hold = "" // whoever holds it next has another reason
	}
	return len(it.Rcpts) > 0
}

// split makes the items of a letter, one for each domain, in the order the domains are named.
func split(env relay.Envelope) []*Item {
	var items []*Item
	byDomain := map[relay.Domain]*Item{}
	for _, rc := range env.Rcpts {
		it := byDomain[rc.Addr.Domain]
		if it == nil {
			it = &Item{Envelope: env, Domain: rc.Addr.Domain, Next: env.Born(), Held: env.Hold != "", Scheduled: env.Release.After(env.Accepted)}
			it.Rcpts = nil
			byDomain[rc.Addr.Domain] = it
			items = append(items, it)
		}
		it.Rcpts = append(it.Rcpts, rc)
	}
	return items
}
