// Package callout remembers who has a mailbox at servers that keep domains for us, or whose backup we
// are. relay/intake asks at RCPT; what is not known is asked of the server itself, through a Caller,
// which delivery/mx is. What a server said outlives restarts, because a backup is asked for just when
// its server does not answer.
package callout

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"relayd/relay"
	"relayd/relay/durable"
)

// How long an answer counts.
const (
	freshYes = 24 * time.Hour      // without being asked again
	staleYes = 31 * 24 * time.Hour // while the server cannot be asked
	freshNo  = time.Hour           // somebody may have been added
	noTime   = time.Minute         // that it could not be asked
)

// Bounds.
const (
	maxAnswers = 20_000           // remembered; the oldest makes room
	maxCalls   = 16               // under way
	patience   = 20 * time.Second // of one RCPT command
	maxFile    = maxAnswers * 400
)

// Caller asks a server whether it takes mail for rcpt; an error when it does not say.
type Caller func(ctx context.Context, rcpt relay.Address) (exists bool, err error)

// Memory is what the servers said. Safe for many goroutines.
type Memory struct {
	call   Caller
	calls  chan struct{}
	log    *slog.Logger
	keeper *durable.Keeper

	mu      sync.Mutex
	answers map[relay.Address]answer
	asking  map[relay.Address]*question
}

type answer struct {
	exists bool
	at     time.Time
	err    error // it could not be asked
	failed time.Time
}

// question is one call, which several clients may wait for.
type question struct {
	done   chan struct{}
	answer answer
}

// Open reads the file at path. One that is missing or cannot be read is an empty memory.
func Open(path string, call Caller, log *slog.Logger) *Memory {
	m := &Memory{call: call, calls: make(chan struct{}, maxCalls), log: log.With("room", "callout"),
		answers: map[relay.Address]answer{}, asking: map[relay.Address]*question{}}
	m.keeper = durable.NewKeeper(path, m.state, m.log)
	if err := m.read(path); err != nil {
		m.log.Warn("what other servers said of their mailboxes cannot be read", "file", path, "err", err)
	}
	return m
}

func (m *Memory) read(path string) error {
	return durable.ReadLines(path, maxFile, durable.MaxLine, func(text []byte) {
		stamp, addr, _ := strings.Cut(string(text), " ")
		at, err := time.Parse(time.RFC3339, stamp)
		a, aerr := relay.ParseAddress(addr, true)
		if err == nil && aerr == nil && len(m.answers) < maxAnswers {
			m.answers[a] = answer{exists: true, at: at}
		}
	})
}

// Ask implements relay/intake's Asker: from memory while that is fresh, then from the server, and
// when that cannot be asked from an older memory of a yes.
func (m *Memory) Ask(ctx context.Context, rcpt relay.Address) (bool, error) {
	m.mu.Lock()
	old := m.answers[rcpt]
	now := time.Now()
	if old.exists && now.Sub(old.at) < freshYes || !old.at.IsZero() && !old.exists && now.Sub(old.at) < freshNo {
		m.mu.Unlock()
		return old.exists, nil
	}
	if old.err != nil && now.Sub(old.failed) < noTime {
		m.mu.Unlock()
		return old.otherwise(now)
	}
	q := m.asking[rcpt]
	if q == nil {
		q = &question{done: make(chan struct{})}
		m.asking[rcpt] = q
		m.mu.Unlock()
		m.ask(ctx, rcpt, q)
	} else {
		m.mu.Unlock()
	}
	select {
	case <-q.done:
		if q.answer.err == nil {
			return q.answer.exists, nil
		}
		return q.answer.otherwise(now)
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// otherwise is the answer while the server cannot be asked.
func (a answer) otherwise(now time.Time) (bool, error) {
	if a.exists && now.Sub(a.at) < staleYes {
		return true, nil
	}
	return false, a.err
}

// ask calls the server and keeps what that came to.
func (m *Memory) ask(ctx context.Context, rcpt relay.Address, q *question) {
	exists, err := m.dial(ctx, rcpt)
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	defer close(q.done)
	delete(m.asking, rcpt)
	a := m.answers[rcpt]
	if err == nil {
		a = answer{exists: exists, at: now}
	} else {
		a.err, a.failed = err, now
	}
	if q.answer = a; ctx.Err() != nil {
		return // the client hung up, which says nothing about the server
	}
	if _, have := m.answers[rcpt]; !have && len(m.answers) >= maxAnswers {
		m.forget()
	}
	m.answers[rcpt] = a
	if err == nil && exists {
		m.keeper.Changed()
	}
}

func (m *Memory) dial(ctx context.Context, rcpt relay.Address) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case m.calls <- struct{}{}:
		defer func() { <-m.calls }()
	case <-ctx.Done():
		return false, fmt.Errorf("callout: %s: too many are being asked about: %w", rcpt, ctx.Err())
	}
	exists, err := m.call(ctx, rcpt)
	if err != nil {
		return false, fmt.Errorf("callout: %s: %w", rcpt, err)
	}
	return exists, nil
}

// forget makes room for one: an address that does not exist, or else the oldest. Callers hold mu.
func (m *Memory) forget() {
	var oldest relay.Address
	var worst answer
	for a, have := range m.answers {
		if oldest.IsNull() || worst.exists && !have.exists || worst.exists == have.exists && have.at.Before(worst.at) {
			oldest, worst = a, have
		}
	}
	delete(m.answers, oldest)
}

// state is the file: those that exist, the newest first.
func (m *Memory) state() ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	names := slices.SortedFunc(maps.Keys(m.answers), func(a, b relay.Address) int {
		return cmp.Or(m.answers[b].at.Compare(m.answers[a].at), cmp.Compare(a.String(), b.String()))
	})
	var b bytes.Buffer
	for _, a := range names {
		if have := m.answers[a]; have.exists && time.Since(have.at) < staleYes {
			fmt.Fprintf(&b, "%s %s\n", have.at.UTC().Format(time.RFC3339), a)
		}
	}
	return b.Bytes(), nil
}

// Run writes the file now and then until ctx ends.
func (m *Memory) Run(ctx context.Context) { m.keeper.Run(ctx) }

// Close writes what Run has not.
func (m *Memory) Close() error { return m.keeper.Close() }
