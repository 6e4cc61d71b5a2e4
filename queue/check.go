package queue

import (
	"context"
	"errors"
	"fmt"
)

// maxComplaints bounds what Check collects.
const maxComplaints = 100

// checker is one Check. Commits wait, so database and index stand still.
type checker struct {
	q     *Queue
	wrong []error
	items int
}

// Check reads everything and says all that is wrong: pages, records, bodies, and whether the
// index agrees with them. Nothing is committed while it runs.
func (q *Queue) Check(ctx context.Context) error {
	done, err := q.use()
	if err != nil {
		return err
	}
	defer done()
	q.committing.Lock()
	defer q.committing.Unlock()
	c := &checker{q: q}
	return c.run(ctx)
}

func (c *checker) run(ctx context.Context) error {
	if err := c.pages(); err != nil {
		return fmt.Errorf("queue: check: %w", err)
	}
	for start := []byte{}; start != nil && len(c.wrong) < maxComplaints; {
		if err := ctx.Err(); err != nil {
			return err
		}
		recs, next, err := c.q.page(start, func([]byte) bool { return true })
		if err != nil {
			return fmt.Errorf("queue: check: %w", err)
		}
		for _, rec := range recs {
			c.record(rec)
		}
		start = next
	}
	c.index()
	if len(c.wrong) > 0 {
		return fmt.Errorf("queue: check: %w", errors.Join(c.wrong...))
	}
	return nil
}

func (c *checker) complain(format string, args ...any) {
	if len(c.wrong) < maxComplaints {
		c.wrong = append(c.wrong, fmt.Errorf(format, args...))
	}
}

// pages has bbolt check its pages; a transaction for writing keeps them still.
func (c *checker) pages() error {
	btx, err := c.q.store.db.Begin(true)
	if err != nil {
		return err
	}
	for err := range btx.Check() {
		c.complain("database: %w", err)
	}
	return btx.Rollback()
}

func (c *checker) record(rec record) {
	c.items++
	it, h, err := decode(rec.key, rec.value)
	if err = errors.Join(rec.err, err); err != nil {
		c.complain("record %s: %w", rec.key, err)
		return
	}
	if len(it.Rcpts) == 0 {
		c.complain("item %s has no recipients left", rec.key)
	}
	c.q.mu.Lock()
	e := c.q.index.get(rec.key)
	switch {
	case e == nil:
		c.complain("item %s is not in the index", rec.key)
	case e.held != h.held || e.letter.size != h.size || e.gone:
		c.complain("item %s: the index says held %v, size %d, gone %v; the record %v, %d",
			rec.key, e.held, e.letter.size, e.gone, h.held, h.size)
	}
	c.q.mu.Unlock()
	b, err := openBody(c.q.body(it.ID), h.size, h.sum)
	if err != nil {
		c.complain("body %s: %w", it.ID, err)
		return
	}
	b.Close()
}

// index checks the index against itself: counts, and everybody in the right ranking.
func (c *checker) index() {
	c.q.mu.Lock()
	defer c.q.mu.Unlock()
	x := c.q.index
	if x.items != c.items {
		c.complain("the index has %d items, the database %d", x.items, c.items)
	}
	items, held, taken, octets := 0, 0, 0, int64(0)
	for id, l := range x.letters {
		octets += l.size
		for _, e := range l.entries {
			items++
			if e.held {
				held++
			}
			if e.taken {
				taken++
			}
			waits := !e.held || e.taken
			if in := e.at != out && e.dest.waiting.list[e.at] == e; in != waits {
				c.complain("item %s/%s: waits %v, but ranked %v", id, e.dest.domain, waits, in)
			}
		}
	}
	if items != x.items || held != x.held || taken != x.taken || octets != x.octets {
		c.complain("the index counts %d items, %d held, %d taken, %d octets; it has %d, %d, %d, %d",
			x.items, x.held, x.taken, x.octets, items, held, taken, octets)
	}
	for domain, d := range x.dests {
		ranked := d.at != out && x.due.list[d.at] == d
		if waits := len(d.waiting.list) > 0; ranked != waits && !d.aside {
			c.complain("domain %s: waits %v, but ranked %v", domain, waits, ranked)
		}
	}
}
