package queue

import (
	"context"
	"slices"

	"relayd/relay"
)

// narrow writes the trailers anew of letters that c has dropped for some of their domains. When the
// last of the others is settled, a crash may leave the body without a record, and the next Open takes
// it in for everybody it names: who was dropped must not be among them. A disk that has no room must
// not keep anybody from dropping, so that an error is only logged.
func (q *Queue) narrow(ctx context.Context, c *change) {
	var done relay.ID
	for _, k := range c.done {
		if k.ID == done || slices.Contains(c.bodies, k.ID) {
			continue
		}
		done = k.ID
		if err := q.narrowTrailer(ctx, k.ID); err != nil {
			q.log.Warn("the end of a letter still names who was dropped; a crash at its last delivery would bring them back",
				"id", k.ID, "err", err)
		}
	}
}

// narrowTrailer leaves in the trailer of a letter who still waits, and all else as it was.
func (q *Queue) narrowTrailer(ctx context.Context, id relay.ID) error {
	done, err := q.use()
	if err != nil {
		return err
	}
	defer done()
	q.narrowing.Lock() // two Drops of one letter: the later one has the last word
	defer q.narrowing.Unlock()
	items, err := q.store.Get(ctx, id)
	if err != nil {
		return ignoreNotFound(err)
	}
	env, sum, err := q.readTrailer(id)
	if err != nil {
		return ignoreNotFound(err)
	}
	env.Rcpts = nil
	for _, it := range items {
		env.Rcpts = append(env.Rcpts, it.Rcpts...)
	}
	return q.rewriteBody(id, env, env.Size, sum)
}
