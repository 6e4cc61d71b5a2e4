package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"

	"relayd/relay"
)

// Errors a caller can branch on.
var (
	// ErrInUse: another process has the queue open.
	ErrInUse = errors.New("another process is using the queue")
	// ErrDamaged: the database file, or the body asked for, is not as it was written.
	ErrDamaged = errors.New("damaged")
	// ErrNotFound: there is no such item, or no longer.
	ErrNotFound = errors.New("not in the queue")
	// ErrTooFar: no attempt can be put off for so long.
	ErrTooFar = errors.New("further off than 30 days")
	// ErrClosed: the Queue has been closed.
	ErrClosed = errors.New("the queue is closed")
)

var (
	itemsBucket   = []byte("items")   // "id/domain" to record; in the order of age, because IDs are
	corruptBucket = []byte("corrupt") // the same for records set aside: the reason, LF, the record
)

// store is the database and the body files for reading; Queue and View share it.
type store struct {
	layout
	db *bbolt.DB
}

func boltOptions(readOnly bool) *bbolt.Options {
	o := &bbolt.Options{
		Timeout: 200 * time.Millisecond, ReadOnly: readOnly,
		FreelistType: bbolt.FreelistMapType, NoFreelistSync: true, NoStatistics: true,
	}
	if !readOnly {
		o.Timeout = 2 * time.Second // somebody may be reading with the daemon down
		// Address space only. A larger file would be mapped anew while every reader waits.
		o.InitialMmapSize = 256 << 20
	}
	return o
}

// openDB opens a database file that scan has read, and says in one sentence what is wrong when it
// cannot.
func openDB(path string, readOnly bool) (db *bbolt.DB, err error) {
	// bbolt panics over what it cannot read.
	defer func() {
		if p := recover(); p != nil {
			err = damagedDB(path, fmt.Errorf("%v", p))
		}
	}()
	db, err = bbolt.Open(path, 0o600, boltOptions(readOnly))
	var pathErr *os.PathError
	switch {
	case err == nil:
		return db, nil
	case errors.Is(err, berrors.ErrTimeout):
		return nil, fmt.Errorf("queue: %s: %w", path, ErrInUse)
	case errors.As(err, &pathErr):
		return nil, fmt.Errorf("queue: %w", err)
	}
	return nil, damagedDB(path, err)
}

// unmapPages takes the first size octets of the database out of our memory again: bbolt looks for
// free pages by touching every page in use, once, when it opens a file. What is needed comes back
// from the page cache. The kernel refusing costs nothing but memory.
func unmapPages(db *bbolt.DB, size int64) {
	unix.Syscall(unix.SYS_MADVISE, db.Info().Data, uintptr(size), unix.MADV_DONTNEED)
}

func damagedDB(path string, cause error) error {
	return fmt.Errorf("queue: the database %s is %w (%v); when relayd starts it sets that file aside, whole, "+
		"and rebuilds the queue from the letters beside it", path, ErrDamaged, cause)
}

// scan reads a whole database file before anybody relies on it, and hands every record to each.
// begin, if not nil, is told once, before the first, how many there should be: a damaged file may
// lie, but never by more than it has room for. complete is false when the newest transaction may
// be missing.
func scan(path string, begin func(items int), each func(key, value []byte)) (complete bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return false, fmt.Errorf("queue: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return false, fmt.Errorf("queue: %w", err)
	}
	n := uint64(0)
	b, sequence, err := scanFile(f, map[string]leafFunc{
		string(corruptBucket): func(uint32, []byte, []byte) error { return nil },
		string(itemsBucket): func(_ uint32, k, v []byte) error {
			n++
			each(k, v)
			return nil
		},
	}, func(name string, sequence uint64) {
		if begin != nil && name == string(itemsBucket) {
			begin(int(min(sequence, uint64(info.Size()/minRecord))))
		}
	})
	if err == nil && len(sequence) != 2 {
		err = errors.New("a bucket is missing")
	}
	if err == nil && n != sequence[string(itemsBucket)] {
		err = fmt.Errorf("it shows %d items of %d", n, sequence[string(itemsBucket)])
	}
	if err != nil {
		return false, damagedDB(path, err)
	}
	return !b.oneMeta, nil
}

// minRecord is less than any item takes in the database file, in octets.
const minRecord = 128

// createDB makes an empty database under its temporary name, lets fill write to it, and renames
// it: relayd.db is always whole, or not there.
func (l layout) createDB(fill func(db *bbolt.DB) error) error {
	os.Remove(l.newDB())
	db, err := bbolt.Open(l.newDB(), 0o600, boltOptions(false))
	if err != nil {
		return fmt.Errorf("queue: create: %w", err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{itemsBucket, corruptBucket} {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = fill(db)
	}
	if err = errors.Join(err, db.Close()); err == nil {
		err = errors.Join(os.Rename(l.newDB(), l.db()), syncDir(l.dir))
	}
	if err != nil {
		return fmt.Errorf("queue: create: %w", err)
	}
	return nil
}

// pageSize is how many records one read transaction looks at. Nothing is handed out inside one:
// a slow consumer would keep the database from growing, and one that calls back would lock up.
const pageSize = 256

type record struct {
	key   Key
	value []byte
	err   error // the key is not one
}

// page reads the records from start on that keep wants, and the key to go on from; nil at the end.
func (s *store) page(start []byte, keep func(key []byte) bool) (recs []record, next []byte, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(itemsBucket).Cursor()
		k, v := c.Seek(start)
		for n := 0; k != nil; k, v = c.Next() {
			if n++; n > pageSize {
				next = bytes.Clone(k)
				return nil
			}
			if keep(k) {
				key, err := ParseKey(string(k))
				recs = append(recs, record{key, bytes.Clone(v), err})
			}
		}
		return nil
	})
	return recs, next, err
}

// header reads what the records of a letter say of its body, which is the same in all of them.
func (s *store) header(id relay.ID) (h header, err error) {
	err = s.each(id, func(key Key, v []byte) (err error) {
		h, err = decodeHeader(key.String(), v)
		return err
	})
	return h, err
}

// each hands over the records of one letter; ErrNotFound when there are none.
func (s *store) each(id relay.ID, f func(key Key, value []byte) error) error {
	found := false
	err := s.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(itemsBucket).Cursor()
		prefix := []byte(id + "/")
		for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
			found = true
			key, err := ParseKey(string(k))
			if err != nil {
				return fmt.Errorf("queue: record %q: %w", k, err)
			}
			if err := f(key, v); err != nil {
				return fmt.Errorf("queue: record %s: %w", key, err)
			}
		}
		return nil
	})
	if err == nil && !found {
		err = fmt.Errorf("queue: %s: %w", id, ErrNotFound)
	}
	return err
}

// Get returns the items of one letter by domain; ErrNotFound when there are none.
func (s *store) Get(ctx context.Context, id relay.ID) ([]Item, error) {
	var items []Item
	err := s.each(id, func(key Key, v []byte) error {
		it, _, err := decode(key, v)
		items = append(items, it)
		return err
	})
	if err != nil {
		return nil, err
	}
	return items, nil
}

// List yields the items f matches, the oldest first. It holds no lock while the caller looks at
// one, so items that come or go meanwhile may or may not be seen. An item that cannot be read is
// yielded as an error, with its ID and Domain, and the list goes on; any other error ends it.
func (s *store) List(ctx context.Context, f Filter) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		m := f.compile(time.Now())
		for start := m.start(); start != nil; {
			if err := ctx.Err(); err != nil {
				yield(Item{}, err)
				return
			}
			recs, next, err := s.page(start, m.key)
			if err != nil {
				yield(Item{}, fmt.Errorf("queue: list: %w", err))
				return
			}
			for _, rec := range recs {
				it, ok, err := m.item(rec)
				if (ok || err != nil) && !yield(it, err) {
					return
				}
			}
			start = m.skipTo(next)
		}
	}
}

// open opens a body after checking it against its records.
func (s *store) open(id relay.ID) (*body, error) {
	h, err := s.header(id)
	if err != nil {
		return nil, err
	}
	b, err := openBody(s.body(id), h.size, h.sum)
	if err != nil {
		return nil, fmt.Errorf("queue: body %s: %w", id, err)
	}
	return b, nil
}
