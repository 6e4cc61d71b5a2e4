package queue

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"relayd/relay"
)

// reconcile brings records and body files together after a crash or damage. A body without a
// record is young, or was never promised, or is settled; after an end in order none is young, and
// unless records are lost they go. A record without a
// body stays: the next attempt finds that out and tells the sender.
func (q *Queue) reconcile(l loaded) error {
	bodies, missing := q.index.match(l.names)
	for _, id := range missing {
		q.log.Error("the text of a letter is missing; its sender will be told", "id", id, "file", q.body(id))
	}
	lost, err := q.mendAll(l.bad)
	if err != nil {
		return err
	}
	var orphans []string
	for _, name := range bodies {
		if q.index.letters[relay.ID(name)] != nil {
			continue // mended
		}
		// A lost record may not even know its ID: while there is one, any orphan may be its body.
		if lost || !l.complete {
			if err := q.readmit(name); err != nil {
				return err
			}
			continue
		}
		orphans = append(orphans, name)
	}
	if q.crashed {
		q.sweeping.Go(q.sweepTranscripts)
	}
	if q.crashed && len(orphans) > 0 {
		if orphans, err = q.adopt(orphans); err != nil {
			return err
		}
	}
	if len(orphans) > 0 {
		q.sweeping.Go(func() { q.sweep(orphans) })
	}
	if !l.complete {
		return q.healMeta()
	}
	return nil
}

// healMeta commits a transaction that changes nothing: bbolt writes its meta pages in turn, and
// the next one is the damaged one.
func (q *Queue) healMeta() error {
	q.committing.Lock()
	defer q.committing.Unlock()
	if err := q.store.db.Update(func(*bbolt.Tx) error { return nil }); err != nil {
		return fmt.Errorf("queue: write a meta page: %w", err)
	}
	return nil
}

// readmit enters a letter whose record may be lost: it may have been promised. What is not whole
// stays in corrupt/.
func (q *Queue) readmit(name string) error {
	var items []*Item
	err := q.do(context.Background(), &op{
		apply: func(t *tx) (err error) {
			items, err = q.rebuildLetter(t, name)
			return err
		},
		publish: func(x *index) { q.enterAll(x, items) },
	})
	if err != nil {
		return fmt.Errorf("queue: readmit %s: %w", name, err)
	}
	if len(items) == 0 {
		return nil
	}
	q.log.Warn("a letter without a record was taken in again, because the database is damaged",
		"id", name, "items", len(items))
	return nil
}

// enterAll shows items in the index.
func (q *Queue) enterAll(x *index, items []*Item) {
	for _, it := range items {
		q.enter(x, it)
	}
}

// enter shows an item that is new to the index.
func (q *Queue) enter(x *index, it *Item) *entry {
	h := header{size: it.Size, held: it.Held, scheduled: it.Scheduled}
	now := time.Now()
	w := wait(it.Next, now, h.longest(q.schedule.Longest()))
	e := x.add(it.Key(), h, q.clock.at(now)+int64(w))
	e.ahead = q.clock.ahead(now)
	return e
}

// sweep removes the files that were there without a record when the queue was opened, and no
// others: those that came later belong to sessions.
func (q *Queue) sweep(orphans []string) {
	removed := 0
	for _, name := range orphans {
		select {
		case <-q.stop:
			return
		default:
		}
		if err := os.Remove(filepath.Join(q.bodies(), name)); err != nil {
			q.log.Warn("cannot remove a body that no letter needs", "file", name, "err", err)
			continue
		}
		removed++
	}
	q.log.Info("removed bodies that a crash left behind; no accepted letter needed them", "count", removed)
}

// mendAll mends the damaged records that Open found. lost says that one of them could not be: then
// nobody knows which letter it was for.
func (q *Queue) mendAll(bad map[string]error) (lost bool, err error) {
	if len(bad) == 0 {
		return false, nil
	}
	var all []*Item
	err = q.do(context.Background(), &op{
		apply: func(t *tx) error {
			for key, reason := range bad {
				items, err := q.mend(t, key, reason)
				if err != nil {
					return err
				}
				all, lost = append(all, items...), lost || len(items) == 0
			}
			return nil
		},
		publish: func(x *index) { q.enterAll(x, all) },
	})
	if err != nil {
		return lost, fmt.Errorf("queue: mend: %w", err)
	}
	return lost, nil
}

// mend moves a damaged record to the corrupt ones and puts a new one in its place, from the
// trailer of the letter: every recipient of the domain is pending again. A key that is damaged
// too names no domain of the letter; then those without a record are entered. It returns the new
// items, none when the letter is damaged as well.
func (q *Queue) mend(t *tx, key string, reason error) ([]*Item, error) {
	if err := t.setAside([]byte(key), reason); err != nil {
		return nil, err
	}
	k, err := ParseKey(key)
	var items []*Item
	var sum uint32
	if err == nil {
		items, sum, err = q.itemsOf(k.ID)
	}
	if err != nil {
		var kept error
		if k.ID != "" {
			kept = q.keepCorrupt(k.ID)
		}
		q.log.Error("a damaged record was set aside, and its letter cannot say whom it was for; its sender is not told",
			"id", k.ID, "key", key, "err", reason, "letter_err", err, "keep_err", kept)
		return nil, nil
	}
	if i := slices.IndexFunc(items, func(it *Item) bool { return it.Domain == k.Domain }); i >= 0 {
		items = items[i : i+1]
		items[0].Held = q.isHeld(k)
	} else {
		items = slices.DeleteFunc(items, func(it *Item) bool { return t.get(it.Key()) != nil })
	}
	q.log.Error("a damaged record was set aside and made anew from its letter; who had the letter may get it twice",
		"id", k.ID, "key", key, "err", reason)
	return items, t.addAll(items, sum)
}

func (q *Queue) isHeld(k Key) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	e := q.index.get(k)
	return e != nil && e.held
}

// read is the item of k in a transaction, mended if need be. ErrNotFound when there is none;
// ErrDamaged when it could not be mended: it is gone, and the index must hear of it.
func (q *Queue) read(t *tx, k Key) (it Item, h header, record []byte, err error) {
	if err := q.record(t, k.ID); err != nil {
		return it, h, nil, err
	}
	if record = t.get(k); record == nil {
		return it, h, nil, ErrNotFound
	}
	it, h, reason := decode(k, record)
	if reason == nil {
		h.attempts, h.next = q.unrecorded(k, h.attempts, h.next)
		it.Attempts, it.Next = int(h.attempts), time.Unix(0, h.next).UTC()
		return it, h, record, nil
	}
	if _, err := q.mend(t, k.String(), reason); err != nil {
		return it, h, nil, err
	}
	if record = t.get(k); record == nil {
		return it, h, nil, fmt.Errorf("%w: %w", ErrDamaged, reason)
	}
	it, h, err = decode(k, record)
	return it, h, record, err
}

// mendLetter mends the damaged records of one letter.
func (q *Queue) mendLetter(id relay.ID) error {
	q.mu.Lock()
	var keys []Key
	if l := q.index.letters[id]; l != nil {
		for _, e := range l.entries {
			keys = append(keys, e.key())
		}
	}
	q.mu.Unlock()
	var gone []Key
	err := q.do(context.Background(), &op{
		apply: func(t *tx) error {
			for _, k := range keys {
				_, _, _, err := q.read(t, k)
				switch {
				case errors.Is(err, ErrDamaged):
					gone = append(gone, k)
				case err != nil && !errors.Is(err, ErrNotFound):
					return err
				}
			}
			return nil
		},
		publish: func(x *index) {
			for _, k := range gone {
				x.remove(k)
			}
		},
	})
	if err != nil {
		return fmt.Errorf("queue: mend %s: %w", id, err)
	}
	return nil
}

// replaceDB sets a damaged database aside, whole, and rebuilds it.
func (q *Queue) replaceDB(names []string, reason error) error {
	aside := filepath.Join(q.corrupt(), "relayd.db."+time.Now().UTC().Format("20060102T150405.000"))
	q.log.Error("the queue's database is damaged; it is set aside and rebuilt", "err", reason, "kept", aside)
	if err := os.MkdirAll(q.corrupt(), 0o700); err != nil {
		return fmt.Errorf("queue: %w", err)
	}
	if err := os.Rename(q.layout.db(), aside); err != nil {
		return fmt.Errorf("queue: %w", err)
	}
	return q.rebuild(names)
}

// rebuild makes a database where there is none: an empty one on the first start, otherwise one
// with every letter whose body file is whole, each recipient pending.
func (q *Queue) rebuild(names []string) error {
	if len(names) > 0 {
		q.log.Error("the queue has no database; rebuilding it from the letters: some may be delivered twice, none is on hold",
			"file", q.layout.db(), "letters", len(names))
	}
	letters := 0
	err := q.createDB(func(db *bbolt.DB) error {
		for len(names) > 0 {
			n := min(chunk, len(names))
			err := db.Update(func(btx *bbolt.Tx) error {
				t := newTx(btx)
				for _, name := range names[:n] {
					items, err := q.rebuildLetter(t, name)
					if err != nil {
						return err
					}
					if len(items) > 0 {
						letters++
					}
				}
				return t.seal()
			})
			if err != nil {
				return err
			}
			names = names[n:]
		}
		return nil
	})
	if err == nil && letters > 0 {
		q.log.Warn("rebuilt the queue", "letters", letters)
	}
	return err
}

// rebuildLetter enters one letter by its trailer. A body without a whole one was never promised,
// or is damaged; in doubt it is kept in corrupt/.
func (q *Queue) rebuildLetter(t *tx, name string) ([]*Item, error) {
	id, err := relay.ParseID(name)
	if err != nil {
		return nil, nil
	}
	items, sum, err := q.itemsOf(id)
	if errors.Is(err, errReused) {
		return nil, nil
	}
	if isSpoiled(err) {
		q.log.Error("a letter without its envelope cannot be rebuilt", "id", id, "err", err, "kept", q.corrupt())
		return nil, q.keepCorrupt(id)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	q.holdNew(items)
	return items, t.addAll(items, sum)
}

// itemsOf reads from the trailer of a body what its items were when it came, due now.
func (l layout) itemsOf(id relay.ID) ([]*Item, uint32, error) {
	env, sum, err := l.readTrailer(id)
	if err != nil {
		return nil, 0, err
	}
	items := split(env)
	for _, it := range items {
		it.Next = later(it.Next, time.Now()) // a letter of the future waits on
	}
	return items, sum, nil
}
