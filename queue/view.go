package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"slices"
	"time"

	"relayd/relay"
)

// View reads a queue that no daemon runs on. It changes nothing, not even what is damaged. After a
// crash it shows the letters that the next start will take in from their files, as if it had.
type View struct {
	store
	young []record // of the letters without one
}

// OpenReadOnly opens the queue in dir for reading; ErrInUse when a daemon runs, which is then the
// one to ask. While a View is open a daemon cannot start.
func OpenReadOnly(dir string) (*View, error) {
	v := &View{store: store{layout: layout{dir}}}
	// Open first: a daemon that holds the lock may be writing what scan would read.
	db, err := openDB(v.layout.db(), true)
	if err != nil {
		return nil, err
	}
	if _, err := scan(v.layout.db(), nil, func(_, _ []byte) {}); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	v.store.db = db
	if v.young, err = v.store.withoutRecord(); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return v, nil
}

// withoutRecord are the records that the next Open writes of the letters that a crash found young.
func (s *store) withoutRecord() (recs []record, err error) {
	if _, err := os.Lstat(s.unclean()); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	names, err := s.names()
	if err != nil {
		return nil, fmt.Errorf("queue: %w", err)
	}
	slices.Sort(names)
	for _, name := range names {
		id, err := relay.ParseID(name)
		if err != nil {
			continue
		}
		if _, err := s.header(id); !errors.Is(err, ErrNotFound) {
			continue
		}
		items, sum, err := s.itemsOf(id)
		if err != nil {
			continue // Inspect has words for it
		}
		values, err := encodeAll(items, sum)
		if err != nil {
			return nil, err
		}
		for i, it := range items {
			recs = append(recs, record{key: it.Key(), value: values[i]})
		}
	}
	return recs, nil
}

// List is that of a Queue.
func (v *View) List(ctx context.Context, f Filter) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		for it, err := range v.store.List(ctx, f) {
			if !yield(it, err) {
				return
			}
		}
		f.among(v.young)(yield)
	}
}

// among are the items that f matches of those in recs.
func (f Filter) among(recs []record) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		m := f.compile(time.Now())
		for _, rec := range recs {
			if !m.key([]byte(rec.key.String())) {
				continue
			}
			if it, ok, err := m.item(rec); (ok || err != nil) && !yield(it, err) {
				return
			}
		}
	}
}

// Get is that of a Queue.
func (v *View) Get(ctx context.Context, id relay.ID) (items []Item, err error) {
	for _, rec := range v.young {
		if rec.key.ID != id {
			continue
		}
		it, _, err := decode(rec.key, rec.value)
		if err != nil {
			return nil, err
		}
		items = append(items, it)
	}
	if items != nil {
		return items, nil
	}
	return v.store.Get(ctx, id)
}

// Body opens a letter as Queue.Body does.
func (v *View) Body(id relay.ID) (io.ReadSeekCloser, error) {
	b, err := v.open(id)
	if errors.Is(err, errBody) || errors.Is(err, errRecord) {
		return nil, fmt.Errorf("queue: letter %s is %w: %w", id, ErrDamaged, err)
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

func (v *View) open(id relay.ID) (*body, error) {
	i := slices.IndexFunc(v.young, func(rec record) bool { return rec.key.ID == id })
	if i < 0 {
		return v.store.open(id)
	}
	h, err := decodeHeader(v.young[i].key.String(), v.young[i].value)
	if err != nil {
		return nil, err
	}
	return openBody(v.body(id), h.size, h.sum)
}

// Close lets a daemon start.
func (v *View) Close() error { return v.store.db.Close() }
