package queue

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"time"

	"relayd/relay"
)

// Most letters leave within moments of their coming. Their record would be committed only to be
// deleted by the next commit, at five times the cost of everything else a relay does. So a letter that may leave at
// once is promised by its body file alone, which carries the envelope in its trailer and is
// durable, with its name, before the 250. Such a letter is young. Its record is written when it
// is a second old, when its first attempt leaves somebody pending, or when an operator asks for
// anything: all records of the letter in one transaction, so that a body without a record is a
// young letter, whole. Adoption at the next Open is what a crash costs it (recover.go); a queue
// that was closed in order has none.
//
// Who is settled while young is settled in memory. What a crash makes of that is a duplicate: of a
// kill -9, if it falls between the settling and the unlink; of a power cut, if the unlink has not
// been flushed by anybody's later flush. Postfix removes its queue files in the same way.

const (
	youth    = time.Second // after which a letter gets its record
	manyAre  = 2048        // young letters at once: they get their records now
	maxYoung = 4096        // and beyond so many, a letter is recorded before its 250
)

// young is one letter without a record.
type young struct {
	items     []*Item // not settled yet, as Stage made them
	sum       uint32  // of the body
	since     time.Time
	recording bool // a transaction under way writes the records
}

// admit takes a letter in without a record, and shows it in the index; false when it must have one
// first. The body is on the disk.
func (q *Queue) admit(items []*Item, sum uint32) bool {
	done, err := q.use()
	if err != nil {
		return false
	}
	defer done()
	now := time.Now()
	notNow := func(it *Item) bool { return it.Held || it.Next.After(now) }
	if q.cautious || slices.ContainsFunc(items, notNow) {
		return false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.young) >= maxYoung {
		return false
	}
	q.young[items[0].ID] = &young{items: items, sum: sum, since: now}
	q.publishNew(q.index, items)
	if n := len(q.young); n == 1 || n == manyAre {
		q.ageing.ring()
	}
	return true
}

// publishNew shows a letter that has just been taken in. It is called with the lock held.
func (q *Queue) publishNew(x *index, items []*Item) {
	for _, it := range items {
		q.enter(x, it).fresh = true
	}
}

// age writes the records of letters that are no longer young, until the queue is closed.
func (q *Queue) age() {
	for {
		select {
		case <-q.stop:
			return
		case <-q.ageing:
		}
		t := time.NewTimer(youth)
		select {
		case <-q.stop:
		case <-q.ageing: // there are many
		case <-t.C:
		}
		t.Stop()
		if err := q.recordYoung(context.Background(), q.older); err != nil && !errors.Is(err, ErrClosed) {
			q.log.Error("letters stay without a record, and will be taken in from their files if relayd dies now", "err", err)
		}
		q.mu.Lock()
		if len(q.young) > 0 {
			q.ageing.ring()
		}
		q.mu.Unlock()
	}
}

// older is what gets its record now: the older half of those that are there, and all of many. It is called with
// the lock held.
func (q *Queue) older(y *young) bool {
	return len(q.young) >= manyAre || time.Since(y.since) >= youth/2
}

func anyYoung(*young) bool { return true }

// recordYoung writes the records of the young letters that which wants.
func (q *Queue) recordYoung(ctx context.Context, which func(*young) bool) error {
	q.mu.Lock()
	var ids []relay.ID
	for id, y := range q.young {
		if which(y) {
			ids = append(ids, id)
		}
	}
	q.mu.Unlock()
	for part := range slices.Chunk(ids, chunk) {
		if err := q.do(ctx, &op{apply: func(t *tx) error { return q.recordAll(t, part) }}); err != nil {
			return fmt.Errorf("queue: record: %w", err)
		}
	}
	return nil
}

func (q *Queue) recordAll(t *tx, ids []relay.ID) error {
	for _, id := range ids {
		if err := q.record(t, id); err != nil {
			return err
		}
	}
	return nil
}

// record writes the records of a letter, if it has none yet.
func (q *Queue) record(t *tx, id relay.ID) error {
	q.mu.Lock()
	y := q.young[id]
	if y == nil || y.recording {
		q.mu.Unlock()
		return nil
	}
	y.recording = true // from now on nobody else changes it
	q.mu.Unlock()
	t.recorded = append(t.recorded, id)
	return t.addAll(y.items, y.sum)
}

// recorded ends what record began, when the transaction is over: the letters have their records,
// or are as young as before. It is called with the lock held.
func (q *Queue) recorded(ids []relay.ID, visible bool) {
	for _, id := range ids {
		if visible {
			delete(q.young, id)
		} else if y := q.young[id]; y != nil {
			y.recording = false
		}
	}
}

// settleYoung is Settle for an item without a record that no recipient needs any more; false when
// it is not one.
func (q *Queue) settleYoung(k Key, results []relay.Result) (last, ok bool) {
	done, err := q.use()
	if err != nil {
		return false, false
	}
	defer done()
	q.mu.Lock()
	defer q.mu.Unlock()
	y := q.young[k.ID]
	if y == nil || y.recording {
		return false, false
	}
	i := y.find(k.Domain)
	if i < 0 {
		return false, false
	}
	if it := y.items[i].copy(); it.settle(results) {
		return false, false
	}
	if y.items = slices.Delete(y.items, i, i+1); len(y.items) == 0 {
		delete(q.young, k.ID)
	}
	return q.index.remove(k), true
}

// disown forgets a letter without a record whose 250 is not given after all; false when it is not
// one.
func (q *Queue) disown(id relay.ID) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	y := q.young[id]
	if y == nil || y.recording {
		return false
	}
	for _, it := range y.items {
		q.index.remove(it.Key())
	}
	delete(q.young, id)
	return true
}

func (y *young) find(d relay.Domain) int {
	return slices.IndexFunc(y.items, func(it *Item) bool { return it.Domain == d })
}

func (y *young) header() header {
	return header{size: y.items[0].Size, sum: y.sum}
}

// copy is an item that shares nothing with it that anybody changes.
func (it *Item) copy() Item {
	c := *it
	c.Rcpts = slices.Clone(it.Rcpts)
	c.Accepted, c.Next = it.Accepted.Round(0), it.Next.UTC().Round(0)
	return c
}

// youngItem is the item of k, if it has no record.
func (q *Queue) youngItem(k Key) (Item, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if y := q.young[k.ID]; y != nil {
		if i := y.find(k.Domain); i >= 0 {
			return y.items[i].copy(), true
		}
	}
	return Item{}, false
}

// youngItems are all items of a letter without a record, by domain.
func (q *Queue) youngItems(id relay.ID) (items []Item) {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.index.letters[id]
	y := q.young[id]
	if y == nil || l == nil {
		return nil
	}
	for _, e := range l.entries {
		if i := y.find(e.dest.domain); i >= 0 {
			items = append(items, y.items[i].copy())
		}
	}
	return items
}

// youngRecords are the records of the young letters, for a list when the disk takes none. It is made
// after the database was read, so that an item may be listed twice, and none is missed.
func (q *Queue) youngRecords() (recs []record) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(q.young)) {
		y := q.young[id]
		for _, it := range y.items {
			value, err := encode(it, y.sum)
			recs = append(recs, record{it.Key(), value, err})
		}
	}
	return recs
}

// openNew opens the body of a letter without a record; false when it is not one.
func (q *Queue) openNew(id relay.ID) (b *body, ok bool, err error) {
	q.mu.Lock()
	y := q.young[id]
	var h header
	if y != nil {
		h = y.header()
	}
	q.mu.Unlock()
	if y == nil {
		return nil, false, nil
	}
	b, err = openBody(q.body(id), h.size, h.sum)
	return b, true, err
}

// adopt takes in the letters that a crash found without a record, and returns the names of the
// body files that are none: nobody was promised what has no end. As after every crash, they wait as
// if their first attempt had failed: it may have been what killed us.
func (q *Queue) adopt(names []string) (rest []string, err error) {
	adopted := 0
	for part := range slices.Chunk(names, chunk) {
		var found []*Item
		err := q.do(context.Background(), &op{
			apply: func(t *tx) error {
				for _, name := range part {
					items, err := q.adoptLetter(t, name)
					if err != nil {
						return err
					}
					if len(items) == 0 {
						rest = append(rest, name)
						continue
					}
					adopted++
					found = append(found, items...)
				}
				return nil
			},
			publish: func(x *index) { q.enterAll(x, found) },
		})
		if err != nil {
			return nil, fmt.Errorf("queue: adopt: %w", err)
		}
	}
	if adopted > 0 {
		q.log.Info("took in letters that were younger than a second when relayd died", "count", adopted)
	}
	return rest, nil
}

// adoptLetter enters one letter by its trailer; no items when it never got its 250.
func (q *Queue) adoptLetter(t *tx, name string) ([]*Item, error) {
	id, err := relay.ParseID(name)
	if err != nil {
		return nil, nil
	}
	items, sum, err := q.itemsOf(id)
	switch {
	case err == nil:
	case errors.Is(err, errUnfinished), errors.Is(err, errReused), errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case !isSpoiled(err):
		// Our rights or our limits, not the letter: the start fails, and the next one has it still.
		return nil, fmt.Errorf("%s: %w", id, err)
	default: // cut off before its flush had ended, or damaged since: nobody can tell
		q.log.Error("a letter that a crash interrupted is damaged; if it was accepted, its sender is not told",
			"id", id, "err", err, "kept", q.corrupt())
		return nil, q.keepCorrupt(id)
	}
	now := time.Now()
	for _, it := range items {
		if !it.Scheduled || !it.Next.After(now) { // one of the future has not been tried
			it.Next, _ = q.schedule.Next(now, 1, now, id)
		}
	}
	q.holdNew(items)
	return items, t.addAll(items, sum)
}
