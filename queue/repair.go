package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"relayd/relay"
)

// Repaired is what Repair came to: the faults that are gone, and the Report of what is left.
type Repaired struct {
	Mended []Fault `json:"mended"`
	Left   Report  `json:"left"`
}

// Repair mends what Inspect finds and can be mended from what is left: damaged records from their
// letters, trailers from the records, the index with its due times from the records. Letters come
// and go meanwhile. What only Open can do, it leaves: a database whose pages are damaged.
func (q *Queue) Repair(ctx context.Context) (Repaired, error) {
	before, err := q.Inspect(ctx)
	if err != nil {
		return Repaired{}, err
	}
	for _, f := range before.Faults {
		if err := ctx.Err(); err != nil {
			return Repaired{}, err
		}
		if err := q.repairOne(ctx, f); err != nil {
			return Repaired{}, fmt.Errorf("queue: repair: %w", err)
		}
	}
	if slices.ContainsFunc(before.Faults, func(f Fault) bool { return f.Kind == FaultIndex || f.Kind == FaultRecord }) {
		if err := q.reindex(); err != nil {
			return Repaired{}, fmt.Errorf("queue: repair: %w", err)
		}
		q.ring()
	}
	left, err := q.Inspect(ctx)
	r := compareReports(before, left)
	for _, f := range r.Mended {
		q.log.Warn("repaired the queue", "id", f.ID, "fault", f.Text)
	}
	return r, err
}

// Repair repairs the queue in dir while no daemon runs: ErrInUse otherwise. It does all that the
// next start would do too, and so it needs the Options of one: Hold, or letters that it takes in
// escape the orders to hold them.
func Repair(ctx context.Context, dir string, o Options) (Repaired, error) {
	before, err := Inspect(ctx, dir)
	if err != nil {
		return Repaired{}, err
	}
	q, err := Open(dir, o)
	if err != nil {
		return Repaired{}, err
	}
	q.sweeping.Wait()
	r, err := q.Repair(ctx)
	return compareReports(before, r.Left), errors.Join(err, q.Close())
}

// compareReports finds what is in before and not in after.
func compareReports(before, after Report) Repaired {
	r := Repaired{Left: after, Mended: []Fault{}}
	for _, f := range before.Faults {
		same := func(g Fault) bool { return g.Kind == f.Kind && g.Text == f.Text }
		if !slices.ContainsFunc(after.Faults, same) {
			r.Mended = append(r.Mended, f)
		}
	}
	return r
}

func (q *Queue) repairOne(ctx context.Context, f Fault) error {
	switch {
	case f.Kind == FaultRecord && f.key != "" && f.Repair != "":
		return q.repairRecord(ctx, f)
	case f.Kind == FaultTrailer:
		done, err := q.use()
		if err != nil {
			return err
		}
		defer done()
		return q.repairTrailer(ctx, f.ID)
	}
	return nil
}

// repairRecord mends one record, unless somebody has met and mended it since it was found. The
// index follows by reindex.
func (q *Queue) repairRecord(ctx context.Context, f Fault) error {
	return q.do(ctx, &op{
		apply: func(t *tx) error {
			old := t.items.Get([]byte(f.key))
			if old == nil {
				return nil
			}
			if k, err := ParseKey(f.key); err == nil {
				if _, _, err := decode(k, old); err == nil {
					return nil
				}
			}
			_, err := q.mend(t, f.key, f.reason)
			return err
		},
	})
}

// repairTrailer makes the trailer of a body file from the records: it names the recipients that still
// wait.
func (q *Queue) repairTrailer(ctx context.Context, id relay.ID) error {
	items, err := q.Get(ctx, id)
	if err != nil {
		return ignoreNotFound(err)
	}
	h, err := q.header(id)
	if err != nil {
		return ignoreNotFound(err)
	}
	env := items[0].Envelope
	for _, it := range items[1:] {
		env.Rcpts = append(slices.Clone(env.Rcpts), it.Rcpts...)
	}
	return q.rewriteBody(id, env, h.size, h.sum)
}

// rewriteBody writes a body file anew, with env for its trailer; the letter in it has the given size
// and checksum.
func (q *Queue) rewriteBody(id relay.ID, env relay.Envelope, size int64, sum uint32) error {
	b, err := openBody(q.body(id), size, sum)
	if err != nil {
		return ignoreNotFound(err)
	}
	defer b.Close()
	// In bodies/, where the next start removes what a crash leaves of it.
	f, err := os.CreateTemp(q.bodies(), string(id)+".*")
	if err != nil {
		return err
	}
	defer f.Close()
	if err := copyBody(f, b, env); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return q.replaceBody(id, f.Name())
}

func copyBody(f *os.File, b io.Reader, env relay.Envelope) error {
	w := newBodyWriter(f)
	defer w.release()
	if _, err := io.Copy(w, b); err != nil {
		return err
	}
	if err := w.finish(env); err != nil {
		return err
	}
	return f.Sync()
}

// replaceBody renames a new body file over the old one. Whoever reads the old one goes on with it.
// A letter that left the queue meanwhile must not come back: no commit may fall in between.
func (q *Queue) replaceBody(id relay.ID, name string) error {
	q.committing.Lock()
	defer q.committing.Unlock()
	if _, err := q.header(id); err != nil {
		return errors.Join(ignoreNotFound(err), os.Remove(name))
	}
	if err := os.Rename(name, q.body(id)); err != nil {
		return errors.Join(err, os.Remove(name))
	}
	return syncDir(filepath.Clean(q.bodies()))
}

func ignoreNotFound(err error) error {
	if errors.Is(err, ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// reindex makes the index agree with the records, in place: attempts under way hold on to its
// entries.
func (q *Queue) reindex() error {
	done, err := q.use()
	if err != nil {
		return err
	}
	defer done()
	q.committing.Lock()
	defer q.committing.Unlock()
	heads := map[Key]header{}
	err = q.store.db.View(func(btx *bbolt.Tx) error {
		return btx.Bucket(itemsBucket).ForEach(func(raw, value []byte) error {
			k, err := ParseKey(string(raw))
			if err != nil {
				return nil
			}
			if h, err := decodeHeader(raw, value); err == nil {
				heads[k] = h
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, y := range q.young {
		for _, it := range y.items {
			heads[it.Key()] = header{size: it.Size, next: nanos(it.Next)}
		}
	}
	now, longest := time.Now(), q.schedule.Longest()
	q.index.rebuild(heads, func(h header) int64 {
		return q.clock.at(now) + int64(wait(time.Unix(0, h.next), now, h.longest(longest)))
	})
	return nil
}

// rebuild makes the index anew from the records; due is when one is due. Entries that stay keep
// their place in memory and the attempt they are in.
func (x *index) rebuild(heads map[Key]header, due func(header) int64) {
	x.due.list = nil
	for _, d := range x.dests {
		d.waiting.list, d.at = nil, out
	}
	for _, l := range x.letters {
		for _, e := range slices.Clone(l.entries) {
			e.at = out
			h, ok := heads[e.key()]
			if !ok {
				x.remove(e.key())
				continue
			}
			l.size = h.size
			x.mark(e, h.held, e.taken)
			e.scheduled = h.scheduled
			if e.next = due(h); !e.taken {
				e.due = e.next
			}
		}
	}
	for k, h := range heads {
		if x.get(k) == nil {
			x.add(k, h, due(h))
		}
	}
	x.recount()
}

// recount ranks and counts every entry.
func (x *index) recount() {
	x.items, x.held, x.taken, x.octets = 0, 0, 0, 0
	for domain, d := range x.dests {
		if d.items = 0; !d.aside {
			delete(x.dests, domain)
		}
	}
	for _, l := range x.letters {
		x.octets += l.size
		for _, e := range l.entries {
			x.items++
			x.dests[e.dest.domain] = e.dest
			e.dest.items++
			if e.held {
				x.held++
			}
			if e.taken {
				x.taken++
			}
			x.place(e)
		}
	}
}
