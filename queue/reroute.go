package queue

import (
	"context"
)

// Reroute sends items another way from their next attempt on: Envelope.Via becomes via, which is not
// looked at here. An attempt under way goes on. Items that go that way already are not counted.
func (q *Queue) Reroute(ctx context.Context, f Filter, via string) (int, error) {
	return q.changeItems(ctx, "route", f, func(it *Item) bool {
		was := it.Via
		it.Via = via
		return was != via
	})
}
