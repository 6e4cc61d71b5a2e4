package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"relayd/relay"
)

// chunk is how many items one operator's verb changes in one transaction: 20,000 at once would
// keep sessions that wait for their 250 waiting for it too.
const chunk = 500

// verb changes the state of one item; false leaves it alone.
type verb func(h *header) bool

// Retry makes items due now. Held ones stay held and are not counted.
func (q *Queue) Retry(ctx context.Context, f Filter) (int, error) {
	return q.change(ctx, "retry", f, func(h *header) bool {
		h.next, h.scheduled = time.Now().UnixNano(), false
		return !h.held
	})
}

// Hold keeps items from being taken until they are released. An attempt under way goes on.
func (q *Queue) Hold(ctx context.Context, f Filter) (int, error) {
	return q.change(ctx, "hold", f, func(h *header) bool {
		was := h.held
		h.held = true
		return !was
	})
}

// Release ends a Hold; the items are due at once.
func (q *Queue) Release(ctx context.Context, f Filter) (int, error) {
	return q.change(ctx, "release", f, func(h *header) bool {
		was := h.held
		h.held, h.next, h.scheduled = false, time.Now().UnixNano(), false
		return was
	})
}

// Reschedule sets when items are tried next, MaxScheduled from now at most; from then on their
// Schedule goes on as ever. Held ones are not changed: a release makes them due at once.
func (q *Queue) Reschedule(ctx context.Context, f Filter, at time.Time) (int, error) {
	if time.Until(at) > MaxScheduled {
		return 0, fmt.Errorf("queue: schedule: %w: %v", ErrTooFar, at)
	}
	return q.change(ctx, "schedule", f, func(h *header) bool {
		h.next, h.scheduled = at.UnixNano(), true
		return !h.held
	})
}

// Hasten makes the items of one domain, or of all for the empty one, that wait for their next attempt
// due now, the oldest first, because the domain has been seen to work. What an operator has scheduled
// waits on. Only memory knows: after a crash they wait as their records say. It returns
// how many there were.
func (q *Queue) Hasten(domain relay.Domain) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.clock.at(time.Now())
	var later []*entry
	if domain != "" {
		if d := q.index.dests[domain]; d != nil {
			later = d.later(now)
		}
	} else {
		for _, d := range q.index.dests {
			later = append(later, d.later(now)...)
		}
	}
	slices.SortFunc(later, func(a, b *entry) int { return cmp.Compare(a.letter.id, b.letter.id) })
	for i, e := range later {
		e.due = now - int64(len(later)-i)
		q.index.place(e)
	}
	if len(later) > 0 {
		q.ring()
	}
	return len(later)
}

// later are the items that wait and are not due at now.
func (d *dest) later(now int64) (list []*entry) {
	for _, e := range d.waiting.list {
		if !e.taken && !e.scheduled && e.due > now {
			list = append(list, e)
		}
	}
	return list
}

// Drop removes items without telling anybody.
func (q *Queue) Drop(ctx context.Context, f Filter) (int, error) {
	return q.change(ctx, "drop", f, nil)
}

// change does a verb, or removes where there is none, to all items f matches, in transactions of
// at most chunk items. It returns how many it changed, also with an error.
func (q *Queue) change(ctx context.Context, name string, f Filter, do verb) (int, error) {
	return q.changeAll(ctx, name, f, change{verb: do})
}

// changeItems is change for what is not in the header of a record.
func (q *Queue) changeItems(ctx context.Context, name string, f Filter, edit func(*Item) bool) (int, error) {
	return q.changeAll(ctx, name, f, change{verb: func(*header) bool { return true }, edit: edit})
}

func (q *Queue) changeAll(ctx context.Context, name string, f Filter, what change) (int, error) {
	keys, err := q.matching(ctx, f)
	if err != nil {
		return 0, fmt.Errorf("queue: %s: %w", name, err)
	}
	total := 0
	for len(keys) > 0 {
		n := min(chunk, len(keys))
		c := &change{q: q, keys: keys[:n], verb: what.verb, edit: what.edit}
		if err := q.do(ctx, &op{c.apply, c.publish}); err != nil {
			return total, fmt.Errorf("queue: %s: %w", name, err)
		}
		total += len(c.done)
		q.removeBodies(c.bodies...)
		if what.verb == nil {
			q.dropTranscripts(c.done...)
			q.narrow(ctx, c)
			// A file that came back after a power cut would be taken for a young letter.
			if err := syncDir(q.bodies()); err != nil {
				return total, fmt.Errorf("queue: %s: %w", name, err)
			}
		}
		keys = keys[n:]
	}
	if total > 0 && what.verb != nil {
		q.ring()
	}
	return total, nil
}

func (q *Queue) matching(ctx context.Context, f Filter) ([]Key, error) {
	var keys []Key
	for it, err := range q.List(ctx, f) {
		switch {
		case err == nil:
			keys = append(keys, it.Key())
		case !errors.Is(err, errRecord):
			return nil, err
		}
	}
	return keys, nil
}

// change is one chunk inside a transaction.
type change struct {
	q      *Queue
	keys   []Key
	verb   verb             // nil: remove
	edit   func(*Item) bool // what is beyond the header; nil: nothing. false leaves the item alone
	done   []Key
	heads  []header
	bodies []relay.ID // no longer needed
}

func (c *change) apply(tx *tx) error {
	for _, k := range c.keys {
		if err := c.q.record(tx, k.ID); err != nil {
			return err
		}
		old := tx.get(k)
		if old == nil {
			continue
		}
		h, err := decodeHeader(k.String(), old)
		if err != nil {
			continue
		}
		h.attempts, h.next = c.q.unrecorded(k, h.attempts, h.next)
		if c.verb == nil {
			err = tx.delete(k)
		} else if !c.verb(&h) {
			continue
		} else if c.edit != nil {
			var changed bool
			if changed, err = c.rewrite(tx, k, old, h); err == nil && !changed {
				continue
			}
		} else {
			err = tx.patch(k, old, h)
		}
		if err != nil {
			return err
		}
		c.done, c.heads = append(c.done, k), append(c.heads, h)
	}
	return nil
}

// rewrite edits an item beyond its header, which is h.
func (c *change) rewrite(tx *tx, k Key, old []byte, h header) (bool, error) {
	it, _, err := decode(k, old)
	if err != nil || !c.edit(&it) {
		return false, nil // what is damaged the next attempt mends
	}
	it.Attempts, it.Next = int(h.attempts), time.Unix(0, h.next).UTC()
	record, err := encode(&it, h.sum)
	if err != nil {
		return false, err
	}
	return true, tx.put(k, record)
}

func (c *change) publish(x *index) {
	now, longest := time.Now(), c.q.schedule.Longest()
	for i, k := range c.done {
		e := x.get(k)
		switch {
		case e == nil:
		case c.verb == nil:
			if x.remove(k) {
				c.bodies = append(c.bodies, k.ID)
			}
		default:
			h := c.heads[i]
			e.begun = 0
			x.mark(e, h.held, e.taken)
			e.scheduled = h.scheduled
			switch next := wait(time.Unix(0, h.next), now, h.longest(longest)); {
			case next == 0:
				e.next = c.q.clock.at(now)
			case h.scheduled:
				e.next = c.q.clock.at(now) + int64(next)
			}
			if !e.taken {
				e.due = e.next
			}
			x.place(e)
		}
	}
}
