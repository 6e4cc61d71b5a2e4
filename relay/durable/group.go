package durable

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

// Group runs one commit for everybody who waits at the same moment. It has no goroutine of its
// own and adds no delay: whoever arrives while nothing runs commits at once; those who arrive
// during a commit are committed together by the next, which the first of them runs. Whoever is in
// no hurry waits for somebody who is.
type Group[T any] struct {
	commit func([]T) error
	limit  int

	mu      sync.Mutex
	waiting []*waiter[T]
	patient []*waiter[T] // ride along with the next commit
	running bool
}

type waiter[T any] struct {
	item T
	turn chan turn
}

// turn is what a waiter is woken with: the outcome of its commit, or the lead of the next one.
type turn struct {
	lead bool
	err  error
}

// NewGroup makes a Group whose commit gets at most limit items at once, those of Do in order of
// arrival before those of DoWithin. commit returns nil when all of them are safe; its error, or a
// panic, fails all of them alike.
func NewGroup[T any](limit int, commit func([]T) error) *Group[T] {
	return &Group[T]{commit: commit, limit: limit}
}

// Do returns when item has been committed. It watches ctx only before the item is in line: a
// caller that left later would not know whether its item is safe.
func (g *Group[T]) Do(ctx context.Context, item T) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w := &waiter[T]{item: item, turn: make(chan turn, 1)}
	g.mu.Lock()
	return g.stand(w)
}

// DoWithin is Do for an item whose commit may wait so long for somebody else's: a busy disk is
// spared a flush, and an idle one makes it after patience.
func (g *Group[T]) DoWithin(ctx context.Context, item T, patience time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w := &waiter[T]{item: item, turn: make(chan turn, 1)}
	g.mu.Lock()
	g.patient = append(g.patient, w)
	g.mu.Unlock()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case t := <-w.turn:
		return t.err
	case <-timer.C:
	}
	g.mu.Lock()
	if i := slices.Index(g.patient, w); i >= 0 {
		g.patient = slices.Delete(g.patient, i, i+1)
		return g.stand(w)
	}
	g.mu.Unlock() // somebody has just taken it along
	return (<-w.turn).err
}

// stand puts w in line and returns when it has been committed. It is entered with the lock held.
func (g *Group[T]) stand(w *waiter[T]) error {
	g.waiting = append(g.waiting, w)
	if g.running {
		g.mu.Unlock()
		if t := <-w.turn; !t.lead {
			return t.err
		}
		g.mu.Lock()
	}
	g.running = true
	return g.lead()
}

// lead commits the batch whose first member is the caller, wakes the others and hands the lead
// on. It is entered with the lock held.
func (g *Group[T]) lead() error {
	n := min(len(g.waiting), g.limit)
	along := min(len(g.patient), g.limit-n)
	batch := slices.Concat(g.waiting[:n], g.patient[:along])
	g.waiting, g.patient = g.waiting[n:], g.patient[along:]
	g.mu.Unlock()

	items := make([]T, len(batch))
	for i, w := range batch {
		items[i] = w.item
	}
	err := g.try(items)

	g.mu.Lock()
	if len(g.waiting) > 0 {
		g.waiting[0].turn <- turn{lead: true}
	} else {
		g.waiting, g.running = nil, false
	}
	if len(g.patient) == 0 {
		g.patient = nil
	}
	g.mu.Unlock()
	for _, w := range batch[1:] {
		w.turn <- turn{err: err}
	}
	return err
}

// try makes an error of a panic: whoever recovers from it further up, as sessions do, would leave
// everybody else waiting for ever.
func (g *Group[T]) try(items []T) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("durable: panic in a commit: %v\n%s", p, debug.Stack())
		}
	}()
	return g.commit(items)
}
