package queue

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"

	"relayd/relay"
)

// reconcile brings records and body files together after a crash: what has no body, or cannot be
// read, is set aside; a body without a record was never promised, or is settled, and goes.
func (q *Queue) reconcile(names []string, bad map[string]error, complete bool) error {
	have := make(map[relay.ID]bool, len(names))
	for _, name := range names {
		have[relay.ID(name)] = true
	}
	for id, l := range q.index.letters {
		if !have[id] {
			for _, e := range l.entries {
				bad[e.key().String()] = fmt.Errorf("%w: there is no file %s", errBody, q.body(id))
			}
		}
	}
	if err := q.setAside(bad); err != nil {
		return err
	}
	var orphans []string
	for _, name := range names {
		id := relay.ID(name)
		if q.index.letters[id] != nil {
			continue
		}
		if !complete {
			if err := q.readmit(name); err != nil {
				return err
			}
			continue
		}
		// A damaged record may not even know its ID: while there is one, any orphan may be its body.
		if len(bad) > 0 {
			if err := q.keepCorrupt(id); err != nil {
				q.log.Error("cannot keep the body of a damaged letter", "file", name, "err", err)
				continue
			}
		}
		orphans = append(orphans, name)
	}
	if len(orphans) > 0 {
		q.sweeping.Go(func() { q.sweep(orphans) })
	}
	return nil
}

// readmit enters a letter whose record may have been in a transaction that is lost: it may have
// been promised. What is not whole stays in corrupt/.
func (q *Queue) readmit(name string) error {
	var items []*Item
	err := q.do(context.Background(), &op{
		apply: func(t *tx) (err error) {
			items, err = q.rebuildLetter(t, name)
			return err
		},
		publish: func(x *index) {
			for _, it := range items {
				x.add(it.Key(), header{size: it.Size}, q.clock.in(0))
			}
		},
	})
	if err != nil {
		return fmt.Errorf("queue: readmit %s: %w", name, err)
	}
	q.log.Warn("a letter without a record was taken in again, because the database had lost its newest change",
		"id", name, "items", len(items))
	return nil
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

// setAside moves records to the corrupt bucket, gives their bodies a second name in corrupt/ and
// says so. Everything else keeps flowing.
func (q *Queue) setAside(bad map[string]error) error {
	if len(bad) == 0 {
		return nil
	}
	var bodies []relay.ID
	for key, reason := range bad {
		k, err := ParseKey(key)
		if err == nil {
			err = q.keepCorrupt(k.ID)
		}
		q.log.Error("a letter in the queue is damaged and was set aside; its sender is not told",
			"id", string(k.ID), "key", key, "err", reason, "kept", q.corrupt(), "keep_err", err)
	}
	err := q.do(context.Background(), &op{
		apply: func(t *tx) error {
			for key, reason := range bad {
				if err := t.setAside([]byte(key), reason); err != nil {
					return err
				}
			}
			return nil
		},
		publish: func(x *index) {
			for key := range bad {
				if k, err := ParseKey(key); err == nil && x.remove(k) && q.isKept(k.ID) {
					bodies = append(bodies, k.ID)
				}
			}
		},
	})
	if err != nil {
		return fmt.Errorf("queue: set aside: %w", err)
	}
	q.removeBodies(bodies...)
	return nil
}

func (q *Queue) setItemAside(k Key, reason error) {
	if err := q.setAside(map[string]error{k.String(): reason}); err != nil {
		q.log.Error("a damaged record could not be set aside", "key", k.String(), "err", err)
	}
}

// setLetterAside sets all items of a letter aside.
func (q *Queue) setLetterAside(id relay.ID, reason error) error {
	bad := map[string]error{}
	q.mu.Lock()
	if l := q.index.letters[id]; l != nil {
		for _, e := range l.entries {
			bad[e.key().String()] = reason
		}
	}
	q.mu.Unlock()
	if len(bad) == 0 {
		return fmt.Errorf("queue: body %s: %w", id, ErrNotFound) // settled or dropped meanwhile
	}
	return errors.Join(fmt.Errorf("queue: letter %s is %w: %w", id, ErrDamaged, reason), q.setAside(bad))
}

// rebuild makes a database where there is none: an empty one on the first start, otherwise one
// with every letter whose body file is whole, each recipient pending.
func (q *Queue) rebuild(names []string) error {
	if len(names) > 0 {
		q.log.Error("the queue's database is missing; rebuilding it from the letters, some may be delivered twice",
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
	env, sum, err := readTrailer(q.body(id))
	if err == nil && env.ID != id {
		err = fmt.Errorf("%w: it is that of %q", errBody, env.ID)
	}
	if errors.Is(err, errBody) {
		q.log.Error("a letter without its envelope cannot be rebuilt", "id", id, "err", err, "kept", q.corrupt())
		return nil, q.keepCorrupt(id)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	items := split(env)
	for _, it := range items {
		it.Next = time.Now()
		record, err := encode(it, sum)
		if err == nil {
			err = t.add(it.Key(), record)
		}
		if err != nil {
			return nil, err
		}
	}
	return items, nil
}
