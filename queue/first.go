package queue

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"relayd/relay"
)

// Most letters leave at their first attempt, moments after they came. Their Take writes nothing:
// the next commit that concerns them is their end. What it would have guarded against is a crash
// in the middle of the attempt, and that is guarded against when the queue is opened: unless the
// last process ended in order, an item without an attempt waits as if it had just had its first.
// An attempt in a later process is written like every other, so that a letter whose attempt kills
// us does so at growing intervals.

// unclean is there while a queue is open, and stays where a process died.
func (l layout) unclean() string { return filepath.Join(l.dir, "unclean") }

// noteOpening sees whether the last process died, and makes sure that our own death will be known. If
// that cannot be written, no first attempt goes unrecorded.
func (q *Queue) noteOpening() {
	_, err := os.Lstat(q.layout.unclean())
	q.crashed = !errors.Is(err, fs.ErrNotExist) // in doubt it did
	if !q.crashed {
		var f *os.File
		if f, err = os.OpenFile(q.layout.unclean(), os.O_WRONLY|os.O_CREATE, 0o600); err == nil {
			err = errors.Join(f.Sync(), f.Close(), syncDir(q.dir))
		}
	}
	if q.cautious = err != nil; q.cautious {
		q.log.Warn("every attempt is recorded before it is made, which is slower", "err", err)
	}
}

// noteClosing records the first attempts that are still under way and the letters without a record,
// and then that nothing is unrecorded. It is called when nobody uses the queue any more.
func (q *Queue) noteClosing() error {
	q.mu.Lock()
	var begun []Key
	young := slices.Collect(maps.Keys(q.young))
	for _, l := range q.index.letters {
		for _, e := range l.entries {
			if e.begun != 0 {
				begun = append(begun, e.key())
			}
		}
	}
	q.mu.Unlock()
	if len(begun)+len(young) > 0 {
		record := &op{apply: func(t *tx) error { return errors.Join(q.recordAll(t, young), q.recordFirsts(t, begun)) }}
		if err := q.commit([]*op{record}); err != nil {
			return fmt.Errorf("queue: close: %w", err)
		}
	}
	if q.cautious {
		return nil
	}
	return os.Remove(q.layout.unclean())
}

func (q *Queue) recordFirsts(t *tx, keys []Key) error {
	for _, k := range keys {
		_, h, old, err := q.read(t, k)
		switch {
		case errors.Is(err, ErrNotFound) || errors.Is(err, ErrDamaged):
		case err != nil:
			return err
		default:
			if err := t.patch(k, old, h); err != nil {
				return err
			}
		}
	}
	return nil
}

// dueAtOpening is when an item is due by its record, found at the opening of the queue.
func (q *Queue) dueAtOpening(id relay.ID, h header) time.Time {
	next := time.Unix(0, h.next)
	if q.crashed && h.attempts == 0 && !(h.scheduled && next.After(time.Now())) {
		next, _ = q.schedule.Next(next, 1, next, id)
	}
	return next
}

// isFirst says whether e may be taken without a record. It is called with the lock held.
func (q *Queue) isFirst(e *entry) bool { return e.fresh && !q.cautious }

// begin begins the first attempts at picked items. Those whose record is not plain to read are
// handed back in rest, to be taken like any other.
func (q *Queue) begin(now time.Time, picked []*entry) (items []Item, rest []*entry, err error) {
	done, err := q.use()
	if err != nil {
		return nil, nil, err
	}
	defer done()
	items, begun, picked := q.takeYoung(picked)
	if len(picked) > 0 {
		err = q.store.db.View(func(btx *bbolt.Tx) error {
			records := btx.Bucket(itemsBucket)
			for _, e := range picked {
				k := e.key()
				it, _, err := decode(k, records.Get([]byte(k.String())))
				if err != nil || it.Held || it.Attempts != 0 {
					rest = append(rest, e)
					continue
				}
				items, begun = append(items, it), append(begun, e)
			}
			return nil
		})
	}
	if err != nil {
		return nil, nil, err
	}
	lost := make([]time.Duration, len(items)) // asked for without our lock
	for i := range items {
		q.clock.retell(&items[i], begun[i].ahead, now)
		lost[i] = q.lost(items[i].Born(), now)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, e := range begun {
		it := &items[i]
		it.Attempts, it.Taken = 1, now
		it.Next, _ = q.schedule.Of(it, now, lost[i])
		e.fresh, e.begun, e.scheduled = false, nanos(it.Next), false
		it.Scheduled = false
		e.next = q.clock.at(now) + int64(it.Next.Sub(now))
		it.Next = it.Next.UTC().Round(0)
	}
	return items, rest, nil
}

// takeYoung finds the items that have no record; rest are the others.
func (q *Queue) takeYoung(picked []*entry) (items []Item, begun, rest []*entry) {
	for _, e := range picked {
		if it, ok := q.youngItem(e.key()); ok {
			items, begun = append(items, it), append(begun, e)
		} else {
			rest = append(rest, e)
		}
	}
	return items, begun, rest
}

// unrecorded is what the record of k should say of attempts and next, and does not while the first
// attempt is under way.
func (q *Queue) unrecorded(k Key, attempts uint32, next int64) (uint32, int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if e := q.index.get(k); e != nil && e.begun != 0 && attempts == 0 {
		return 1, e.begun
	}
	return attempts, next
}

// overlay shows it on an item that was read, and tells its times by the clock as it goes now.
func (q *Queue) overlay(it *Item) {
	attempts, next := q.unrecorded(it.Key(), uint32(it.Attempts), nanos(it.Next))
	it.Attempts, it.Next = int(attempts), time.Unix(0, next).UTC()
	q.retell(it, time.Now())
}

// Get returns the items of one letter by domain; ErrNotFound when there are none.
func (q *Queue) Get(ctx context.Context, id relay.ID) (items []Item, err error) {
	if items = q.youngItems(id); items == nil {
		items, err = q.store.Get(ctx, id)
	}
	for i := range items {
		q.overlay(&items[i])
	}
	return items, err
}

// List yields the items f matches, the oldest first. It holds no lock while the caller looks at
// one, so items that come or go meanwhile may or may not be seen. An item that cannot be read is
// yielded as an error, with its ID and Domain, and the list goes on; any other error ends it.
func (q *Queue) List(ctx context.Context, f Filter) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		show := func(it Item, err error) bool {
			if err == nil {
				q.overlay(&it)
			}
			return yield(it, err)
		}
		failed := q.recordYoung(ctx, anyYoung)
		for it, err := range q.store.List(ctx, f) {
			if !show(it, err) {
				return
			}
		}
		if failed != nil {
			f.among(q.youngRecords())(show)
		}
	}
}
