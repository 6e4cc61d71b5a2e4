package queue

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"relayd/relay"
)

// loaded is what Open found on the disk.
type loaded struct {
	names    []string         // of the body files
	bad      map[string]error // raw keys of records that cannot be read, and why
	complete bool             // the newest transaction is not missing
}

// load lists the bodies and fills the index from the records, both at the same time: they are
// most of what a start takes. Where there is no database, or a damaged one, it makes one from the
// bodies first.
func (q *Queue) load() (loaded, error) {
	var l loaded
	var listErr error
	listed := make(chan struct{})
	go func() {
		defer close(listed)
		l.names, listErr = q.names()
	}()
	_, err := os.Stat(q.layout.db())
	if err == nil {
		l.bad, l.complete, err = q.loadIndex()
	}
	<-listed
	if listErr != nil {
		return l, fmt.Errorf("queue: %w", listErr)
	}
	switch {
	case err == nil:
		return l, nil
	case errors.Is(err, fs.ErrNotExist):
		err = q.rebuild(l.names)
	case errors.Is(err, ErrDamaged):
		err = q.replaceDB(l.names, err)
	}
	if err == nil {
		l.bad, l.complete, err = q.loadIndex()
	}
	return l, err
}

// loadBatch is how many records go from the reader of pages to the maker of the index at once.
const loadBatch = 256

// rawRecords are records that were read and not entered yet.
type rawRecords struct {
	keys  []byte // one behind the other
	heads []rawRecord
}

type rawRecord struct {
	keyLen int
	header header
	err    error
}

func (r *rawRecords) add(key, value []byte) {
	h, err := decodeHeader(key, value)
	r.keys = append(r.keys, key...)
	r.heads = append(r.heads, rawRecord{len(key), h, err})
}

// loadIndex makes the index from the records and returns those that cannot be read. One goroutine
// reads and checks pages while another enters what they hold.
func (q *Queue) loadIndex() (bad map[string]error, complete bool, err error) {
	bad = map[string]error{}
	items, full, empty := make(chan int, 1), make(chan *rawRecords, 2), make(chan *rawRecords, 4)
	go func() {
		defer close(full)
		b := new(rawRecords)
		defer close(items)
		complete, err = scan(q.layout.db(), func(n int) { items <- n }, func(key, value []byte) {
			if b.add(key, value); len(b.heads) < loadBatch {
				return
			}
			full <- b
			select {
			case b = <-empty:
				b.keys, b.heads = b.keys[:0], b.heads[:0]
			default:
				b = new(rawRecords)
			}
		})
		full <- b
	}()
	q.index = newIndex(<-items)
	now, longest := time.Now(), q.schedule.Longest()
	for b := range full {
		q.enterRaw(b, bad, func(id relay.ID, h header) int64 { return int64(wait(q.dueAtOpening(id, h), now, h.longest(longest))) })
		select {
		case empty <- b:
		default:
		}
	}
	return bad, complete, err
}

func (q *Queue) enterRaw(b *rawRecords, bad map[string]error, due func(relay.ID, header) int64) {
	keys := b.keys
	for _, r := range b.heads {
		raw := keys[:r.keyLen]
		keys = keys[r.keyLen:]
		k, err := q.index.key(raw)
		if err != nil {
			bad[string(raw)] = fmt.Errorf("%w: %v", errRecord, err)
			continue
		}
		if r.err != nil {
			bad[string(raw)] = r.err
			continue
		}
		q.index.add(k, r.header, due(k.ID, r.header))
	}
}

// match compares the letters of the index with the body files: bodies that no letter has, and
// letters that have no body.
func (x *index) match(names []string) (orphans []string, missing []relay.ID) {
	for _, name := range names {
		if x.letters[relay.ID(name)] == nil {
			orphans = append(orphans, name)
		}
	}
	if len(names)-len(orphans) == len(x.letters) {
		return orphans, nil
	}
	have := make(map[relay.ID]bool, len(names))
	for _, name := range names {
		have[relay.ID(name)] = true
	}
	for id := range x.letters {
		if !have[id] {
			missing = append(missing, id)
		}
	}
	return orphans, missing
}
