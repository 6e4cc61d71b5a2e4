package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"relayd/relay"
)

// forgotten is how long after Take an item that was never settled is due again: longer than any
// attempt may last, so that one item is never in two attempts.
const forgotten = 2 * time.Hour

// Take hands out at most n items that are due at now, no two of one domain before every due
// domain had its turn, the longest due first. Attempts and Next are those of the new attempt, and
// unless it is the first, they are on the disk before Take returns: a crash in the middle of an
// attempt costs a pause and never dials the same host again at once. An item handed out is not handed out again before it
// is settled, or the queue opened anew, or two hours have passed.
//
// skip is asked before each item, without any lock held; false means that this domain's next due
// item is taken, so it may count as it goes. nil skips nothing. When all due items are skipped
// the result is empty and they stay due.
func (q *Queue) Take(ctx context.Context, now time.Time, n int, skip func(relay.Domain) bool) ([]Item, error) {
	first, picked := q.pick(now, n, skip)
	if len(first)+len(picked) == 0 {
		return nil, ctx.Err()
	}
	items, rest, err := q.begin(now, first)
	if err != nil {
		q.giveBack(append(first, picked...))
		return nil, fmt.Errorf("queue: take: %w", err)
	}
	t := &taking{q: q, now: now, picked: append(picked, rest...)}
	if len(t.picked) > 0 {
		if err := q.do(ctx, &op{t.apply, t.publish}); err != nil {
			q.giveBack(t.picked)
			if len(items) == 0 {
				return nil, fmt.Errorf("queue: take: %w", err)
			}
			// What has begun is handed out; the next Take meets the error again.
			t.items = nil // and the others, which nobody has recorded
		}
	}
	q.step("queue: taken")
	return append(items, t.items...), nil
}

// pick reserves due items in the index, and tells those whose first attempt this is from the
// others. A domain under consideration is out of the ranking, so
// that the lock need not be held while skip is asked.
func (q *Queue) pick(now time.Time, n int, skip func(relay.Domain) bool) (first, picked []*entry) {
	at := q.clock.at(now)
	var seen, round []*dest
	defer func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		for _, d := range seen {
			q.index.putBack(d)
		}
	}()
	take := func(d *dest) bool {
		if skip != nil && skip(d.domain) {
			return false
		}
		q.mu.Lock()
		defer q.mu.Unlock()
		e, ok := q.index.pick(d, at, at+int64(forgotten))
		switch {
		case ok && q.isFirst(e):
			first = append(first, e)
		case ok:
			picked = append(picked, e)
		}
		return ok
	}
	for len(first)+len(picked) < n {
		q.mu.Lock()
		d, ok := q.index.setAside(at)
		q.mu.Unlock()
		if !ok {
			break
		}
		seen = append(seen, d)
		if take(d) {
			round = append(round, d)
		}
	}
	for len(first)+len(picked) < n && len(round) > 0 {
		again := round[:0:0]
		for _, d := range round {
			if len(first)+len(picked) < n && q.hasDue(d, at) && take(d) {
				again = append(again, d)
			}
		}
		round = again
	}
	return first, picked
}

func (q *Queue) hasDue(d *dest, at int64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return d.isDue(at)
}

func (q *Queue) giveBack(entries []*entry) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, e := range entries {
		if !e.gone {
			q.index.giveBack(e)
		}
	}
}

// taking is one Take inside a transaction.
type taking struct {
	q      *Queue
	now    time.Time
	picked []*entry
	taken  []*entry // of picked, in the order of items
	items  []Item
	gone   []*entry // of picked: damaged beyond mending
}

func (t *taking) apply(tx *tx) error {
	t.q.mu.Lock()
	schedule := t.q.schedule
	t.q.mu.Unlock()
	for _, e := range t.picked {
		k := e.key()
		it, h, old, err := t.q.read(tx, k)
		switch {
		case errors.Is(err, ErrNotFound): // dropped since it was picked
			continue
		case errors.Is(err, ErrDamaged):
			t.gone = append(t.gone, e)
			continue
		case err != nil:
			return err
		case it.Held: // since it was picked
			continue
		}
		t.q.clock.retell(&it, e.ahead, t.now)
		it.Attempts++
		it.Taken = t.now
		it.Next, _ = schedule.Of(&it, t.now, t.q.lost(it.Born(), t.now))
		h.attempts, h.next = uint32(it.Attempts), nanos(it.Next)
		h.scheduled, it.Scheduled = false, false
		if err := tx.patch(k, old, h); err != nil {
			return err
		}
		t.taken, t.items = append(t.taken, e), append(t.items, it)
	}
	return nil
}

func (t *taking) publish(x *index) {
	isTaken := make(map[*entry]bool, len(t.taken))
	for i, e := range t.taken {
		isTaken[e] = true
		e.fresh, e.begun, e.scheduled = false, 0, false
		e.next = t.q.clock.at(t.now) + int64(t.items[i].Next.Sub(t.now))
		t.items[i].Next = t.items[i].Next.UTC().Round(0)
	}
	for _, e := range t.gone {
		x.remove(e.key())
	}
	for _, e := range t.picked {
		if !isTaken[e] && !e.gone {
			x.giveBack(e)
		}
	}
}

// GiveBack makes an item that Take has handed out, and nobody attempts, due again now. Only memory
// knows; an item that is not handed out stays as it is.
func (q *Queue) GiveBack(k Key) {
	q.mu.Lock()
	defer q.mu.Unlock()
	e := q.index.get(k)
	if e == nil || !e.taken {
		return
	}
	q.index.giveBack(e)
	e.due = q.clock.at(time.Now())
	q.index.place(e)
	q.ring()
}

// Settle enters what an attempt came to. Recipients with a final result leave the item; when none
// is left the item is gone, and with the last item of a letter its body. Otherwise the item is due
// again at its Next. warned says that the sender has now been told of the delay. ErrNotFound:
// the item was dropped or aborted during the attempt; ErrDamaged: its record and its letter are
// damaged, and it is gone.
func (q *Queue) Settle(ctx context.Context, k Key, results []relay.Result, warned bool) error {
	last, ok := q.settleYoung(k, results)
	if !ok {
		var err error
		if last, err = q.settle(ctx, k, results, warned); err != nil {
			return fmt.Errorf("queue: settle %s: %w", k, err)
		}
	}
	q.step("queue: settled")
	if last {
		q.removeBodies(k.ID)
		q.step("queue: body removed")
	}
	return nil
}

// settle is Settle for an item that gets or has a record; last says that it was the last of its
// letter.
func (q *Queue) settle(ctx context.Context, k Key, results []relay.Result, warned bool) (last bool, err error) {
	results = slices.Clone(results)
	s := &settling{q: q, k: k, warned: warned}
	text := takeTranscript(results)
	s.results = results
	if err := q.doSoon(ctx, &op{s.apply, s.publish}); err != nil {
		return false, err
	}
	switch {
	case s.err != nil:
	case !s.over:
		q.keepTranscript(k, Transcript{s.attempts, time.Now().UTC().Round(0), text})
	case s.tried:
		q.dropTranscripts(k)
	}
	return s.last, s.err
}

// settling is one Settle inside a transaction.
type settling struct {
	q       *Queue
	k       Key
	results []relay.Result
	warned  bool

	err      error // of this item alone
	over     bool  // no recipient is left
	attempts int
	tried    bool // an attempt before this one failed
	last     bool // nor is any other item of the letter
}

func (s *settling) apply(tx *tx) error {
	it, h, _, err := s.q.read(tx, s.k)
	switch {
	case errors.Is(err, ErrNotFound) || errors.Is(err, ErrDamaged):
		s.err = err
		return nil
	case err != nil:
		return err
	}
	it.Scheduled = it.Scheduled && it.Next.After(time.Now())
	s.attempts, s.tried = it.Attempts, it.Attempts > 1 || len(it.Last) > 0
	if s.warned {
		it.Warned, it.Told = true, time.Now().UTC().Round(0)
	}
	if s.over = !it.settle(s.results); s.over {
		return tx.delete(s.k)
	}
	record, err := encode(&it, h.sum)
	if err != nil {
		s.err = err
		return nil
	}
	return tx.put(s.k, record)
}

func (s *settling) publish(x *index) {
	e := x.get(s.k)
	switch {
	case e == nil:
	case errors.Is(s.err, ErrDamaged):
		x.remove(s.k)
	case s.err != nil:
	case s.over:
		s.last = x.remove(s.k)
	default:
		e.begun = 0
		x.giveBack(e)
	}
}
