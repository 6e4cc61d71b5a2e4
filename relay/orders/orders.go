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
	"sync"
	"sync/atomic"
	"time"

	"relayd/relay/durable"
)

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

// order is a Pause or a Rule.
type order[T any] interface {
	Check() (T, error)
	same(T) bool
}

// add puts o in force in its list of a state, and says whether one that is the same was there: then that stays.
func add[T order[T]](b *Book, list func(*state) *[]T, o T) (was bool, err error) {
	if o, err = o.Check(); err != nil {
		return false, err
	}
	err = b.change(func(s state) (*state, error) {
		l := list(&s)
		switch {
		case slices.ContainsFunc(*l, o.same):
			was = true
			return nil, nil
		case len(*l) >= maxOrders:
			return nil, ErrFull
		}
		*l = append(slices.Clip(*l), o)
		return &s, nil
	})
	return was, err
}

// remove ends the one that is the same as o, and says whether there was one.
func remove[T order[T]](b *Book, list func(*state) *[]T, o T) (was bool, err error) {
	if o, err = o.Check(); err != nil {
		return false, err
	}
	err = b.change(func(s state) (*state, error) {
		l := list(&s)
		if was = slices.ContainsFunc(*l, o.same); !was {
			return nil, nil
		}
		*l = slices.DeleteFunc(slices.Clone(*l), o.same)
		return &s, nil
	})
	return was, err
}
