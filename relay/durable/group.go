package durable

import (
	"context"
	"sync"
)

// Group runs one commit for everybody who waits at the same moment. It has no goroutine of its
// own and adds no delay: whoever arrives while nothing runs commits at once; those who arrive
// during a commit are committed together by the next, which the first of them runs.
type Group[T any] struct {
	commit func([]T) error
	limit  int

	mu      sync.Mutex
	waiting []waiter[T]
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

// NewGroup makes a Group whose commit gets at most limit items at once, in order of arrival.
// commit returns nil when all of them are safe; its error fails all of them alike.
func NewGroup[T any](limit int, commit func([]T) error) *Group[T] {
	return &Group[T]{commit: commit, limit: limit}
}

// Do returns when item has been committed. It watches ctx only before the item is in line: a
// caller that left later would not know whether its item is safe.
func (g *Group[T]) Do(ctx context.Context, item T) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w := waiter[T]{item: item, turn: make(chan turn, 1)}
	g.mu.Lock()
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
	batch := g.waiting[:n:n]
	g.waiting = g.waiting[n:]
	g.mu.Unlock()

	items := make([]T, n)
	for i, w := range batch {
		items[i] = w.item
	}
	err := g.commit(items)

	g.mu.Lock()
	if len(g.waiting) > 0 {
		g.waiting[0].turn <- turn{lead: true}
	} else {
		g.waiting, g.running = nil, false
	}
	g.mu.Unlock()
	for _, w := range batch[1:] {
		w.turn <- turn{err: err}
	}
	return err
}
