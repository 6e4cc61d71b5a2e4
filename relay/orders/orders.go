// Package orders keeps what the operator ordered until further notice: what is paused, and whose
// new mail is held. relay/admin writes it down; cmd/relayd asks it on the way of every letter. An
// order is durable before it counts, and outlives every restart.
package orders

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"relayd/relay"
	"relayd/relay/durable"
)

// What can be paused.
const (
	Sending = "sending" // to one domain, or to all
	Inbound = "inbound" // letters that come in by SMTP; our own reports and local programs go on
	POP3    = "pop3"    // new logins; sessions go on
)

// Pause is one thing that rests until it is resumed.
type Pause struct {
	What   string    `json:"what"`
	Domain string    `json:"domain,omitempty"` // of Sending: lower case, * and ? allowed; empty: to all
	Since  time.Time `json:"since"`
	Reason string    `json:"reason,omitempty"` // the operator's note
}

// String says what rests: "sending to partner.example".
func (p Pause) String() string {
	switch {
	case p.What == Inbound:
		return "taking mail in"
	case p.What == POP3:
		return "collecting by POP3"
	case p.Domain == "":
		return "sending"
	}
	return "sending to " + p.Domain
}

func (p Pause) same(q Pause) bool { return p.What == q.What && p.Domain == q.Domain }

// Errors a caller can branch on.
var (
	// ErrBad: the order cannot be meant; the text says why.
	ErrBad = errors.New("bad order")
	// ErrFull: there are too many orders.
	ErrFull = errors.New("there are too many orders of this kind")
)

// The bounds of a Book.
const (
	maxOrders = 1000
	maxText   = 320     // octets of a pattern; as long as an address can be
	maxFile   = 4 << 20 // octets
)

// state is the whole book. It never changes: who orders makes a new one.
type state struct {
	Pauses []Pause `json:"pauses,omitempty"`
	Rules  []Rule  `json:"rules,omitempty"`
}

// Book is all orders. Safe for many goroutines; asking costs no lock.
type Book struct {
	path    string
	now     atomic.Pointer[state]
	writing sync.Mutex
}

// Open reads the file at path; without one there are no orders. One that is damaged is set aside,
// with an error in the log, and sending rests: what had been stopped must not start by itself.
func Open(path string, log *slog.Logger) (*Book, error) {
	b := &Book{path: path}
	s, err := read(path)
	if errors.Is(err, errDamaged) {
		log.Error("the operator's orders are damaged: sending is paused until relayctl queue resume --all",
			"room", "orders", "file", path, "err", err, "kept", path+".damaged")
		s = &state{Pauses: []Pause{{What: Sending, Since: time.Now().UTC().Truncate(time.Second), Reason: "the file of orders was damaged: see " + path + ".damaged"}}}
		if err = os.Rename(path, path+".damaged"); err == nil {
			err = b.write(s)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("orders: %w", err)
	}
	b.now.Store(s)
	return b, nil
}

var errDamaged = errors.New("the file is damaged")

// Read returns the pauses and rules of the file at path, for somebody who only looks.
func Read(path string) ([]Pause, []Rule, error) {
	s, err := read(path)
	if err != nil {
		return nil, nil, err
	}
	return s.Pauses, s.Rules, nil
}

func read(path string) (*state, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &state{}, nil
	}
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%w: %d octets", errDamaged, info.Size())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	s := &state{}
	if err := json.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("%w: %v", errDamaged, err)
	}
	return s, nil
}

func (b *Book) write(s *state) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return durable.Replace(b.path, append(data, '\n'))
}

// change puts a new state in force once it is on the disk; a nil one changes nothing.
func (b *Book) change(next func(s state) (*state, error)) error {
	b.writing.Lock()
	defer b.writing.Unlock()
	s, err := next(*b.now.Load())
	if err != nil || s == nil {
		return err
	}
	if err := b.write(s); err != nil {
		return fmt.Errorf("orders: %w", err)
	}
	b.now.Store(s)
	return nil
}

// Check brings an order to pause or to resume into its form; ErrBad when it has none.
func (p Pause) Check() (Pause, error) {
	p.Domain = strings.ToLower(p.Domain)
	switch {
	case p.What != Sending && p.What != Inbound && p.What != POP3:
		return p, fmt.Errorf("%w: %.40q cannot be paused", ErrBad, p.What)
	case p.What != Sending && p.Domain != "":
		return p, fmt.Errorf("%w: a domain goes with sending alone", ErrBad)
	case len(p.Reason) > maxText || len(p.Domain) > maxText:
		return p, fmt.Errorf("%w: longer than %d octets", ErrBad, maxText)
	}
	if p.Domain != "" && !strings.ContainsAny(p.Domain, "*?") {
		d, err := relay.ParseDomain(p.Domain)
		if err != nil {
			return p, fmt.Errorf("%w: %.80q is not a domain: %v", ErrBad, p.Domain, err)
		}
		p.Domain = string(d)
	}
	return p, nil
}

// Pause makes something rest. It says whether that is new; the time and the reason of one that
// rested before stay.
func (b *Book) Pause(p Pause) (was bool, err error) {
	if p, err = p.Check(); err != nil {
		return false, err
	}
	err = b.change(func(s state) (*state, error) {
		switch {
		case slices.ContainsFunc(s.Pauses, p.same):
			was = true
			return nil, nil
		case len(s.Pauses) >= maxOrders:
			return nil, ErrFull
		}
		s.Pauses = append(slices.Clip(s.Pauses), p)
		return &s, nil
	})
	return was, err
}

// Resume ends the pause of the same What and Domain, and says whether there was one.
func (b *Book) Resume(p Pause) (was bool, err error) {
	if p, err = p.Check(); err != nil {
		return false, err
	}
	err = b.change(func(s state) (*state, error) {
		if was = slices.ContainsFunc(s.Pauses, p.same); !was {
			return nil, nil
		}
		s.Pauses = slices.DeleteFunc(slices.Clone(s.Pauses), p.same)
		return &s, nil
	})
	return was, err
}

// Pauses are all that are in force, in the order they were given; not to be changed.
func (b *Book) Pauses() []Pause { return b.now.Load().Pauses }

// Rests says whether Inbound or POP3 is paused.
func (b *Book) Rests(what string) bool {
	return slices.ContainsFunc(b.Pauses(), func(p Pause) bool { return p.What == what })
}

// Paused says whether sending to a domain is.
func (b *Book) Paused(d relay.Domain) bool { return Find(b.Pauses(), d) != nil }

// Find is the pause that keeps mail for a domain from being sent; nil: none does.
func Find(pauses []Pause, d relay.Domain) *Pause {
	for i, p := range pauses {
		if p.What == Sending && (p.Domain == "" || relay.MatchText(p.Domain, string(d), false)) {
			return &pauses[i]
		}
	}
	return nil
}
