package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"go.etcd.io/bbolt"

	"relayd/relay"
)

// Fault is one thing that is wrong with a queue, or worth knowing.
type Fault struct {
	Kind   string       `json:"kind"`             // one of the Fault constants
	ID     relay.ID     `json:"id,omitempty"`     // of the letter, if it is about one
	Domain relay.Domain `json:"domain,omitempty"` // of the item, if it is about one
	Text   string       `json:"text"`
	Repair string       `json:"repair,omitempty"` // what Repair does about it; empty: nothing
	Note   bool         `json:"note"`             // nothing is wrong now: what a crash left, what was set aside before

	key    string // of the damaged record
	reason error
}

// The kinds of Fault.
const (
	FaultDatabase = "database" // pages, counts, or no database at all
	FaultRecord   = "record"   // of an item
	FaultBody     = "body"     // missing, or not as it was accepted
	FaultTrailer  = "trailer"  // of a body that is whole itself: a lost database could not be rebuilt from it
	FaultIndex    = "index"    // what a running queue remembers differs from the records
	FaultOrphan   = "orphan"   // a body that no item needs
	FaultYoung    = "young"    // a letter whose record a crash prevented; the next start writes it
	FaultAside    = "aside"    // something damaged that was set aside before
)

// Report is what Inspect found.
type Report struct {
	Letters int     `json:"letters"`
	Items   int     `json:"items"`
	Faults  []Fault `json:"faults"`
	Omitted int     `json:"omitted"` // faults beyond the first thousand
}

const maxFaults = 1000

// Err is nil when nothing is wrong; otherwise it says all that is.
func (r Report) Err() error {
	var errs []error
	for _, f := range r.Faults {
		if !f.Note {
			errs = append(errs, errors.New(f.Text))
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("queue: check: %w", errors.Join(errs...))
}

// checker is one Inspect.
type checker struct {
	*store
	q      *Queue   // nil: no daemon runs, there is no index
	young  []record // what the next start adopts, when no daemon runs
	report Report
}

// Check says all that is wrong with the queue, and nil if nothing is. See Inspect.
func (q *Queue) Check(ctx context.Context) error {
	r, err := q.Inspect(ctx)
	if err != nil {
		return err
	}
	return r.Err()
}

// Inspect reads everything and says what is wrong: pages, records, bodies, their trailers, and
// whether the index agrees with the records. It changes nothing, but that young letters get their
// records. Commits wait while the database
// file is read, about a millisecond for a thousand items, and not while bodies are.
func (q *Queue) Inspect(ctx context.Context) (Report, error) {
	done, err := q.use()
	if err != nil {
		return Report{}, err
	}
	defer done()
	if err := q.recordYoung(ctx, anyYoung); err != nil {
		q.log.Error("a check of the queue lacks its newest letters", "err", err)
	}
	c := &checker{store: &q.store, q: q}
	if err := c.run(ctx); err != nil {
		return Report{}, fmt.Errorf("queue: check: %w", err)
	}
	return c.report, nil
}

// Inspect reads the queue in dir as Queue.Inspect does, while no daemon runs: ErrInUse otherwise.
// Damage is no error but what the Report is about. An error with fs.ErrNotExist: there is no queue.
func Inspect(ctx context.Context, dir string) (Report, error) {
	v, err := OpenReadOnly(dir)
	if err == nil {
		defer v.Close()
		c := &checker{store: &v.store, young: v.young}
		if err := c.run(ctx); err != nil {
			return Report{}, fmt.Errorf("queue: check: %w", err)
		}
		return c.report, nil
	}
	c := &checker{store: &store{layout: layout{dir}}}
	names, listErr := c.names()
	missing := errors.Is(err, fs.ErrNotExist)
	if listErr != nil || missing && len(names) == 0 || !missing && !errors.Is(err, ErrDamaged) {
		return Report{}, err
	}
	return c.report, c.withoutDatabase(ctx, err, names)
}

func (c *checker) run(ctx context.Context) error {
	if err := c.database(); err != nil {
		return err
	}
	if err := c.letters(ctx); err != nil {
		return err
	}
	if err := c.setAsideBefore(); err != nil {
		return err
	}
	return c.orphans()
}

func (c *checker) complain(f Fault, format string, args ...any) {
	if len(c.report.Faults) >= maxFaults {
		c.report.Omitted++
		return
	}
	f.Text = fmt.Sprintf(format, args...)
	c.report.Faults = append(c.report.Faults, f)
}

// withoutDatabase looks for what can be rebuilt.
func (c *checker) withoutDatabase(ctx context.Context, reason error, names []string) error {
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		items, _, err := c.itemsOf(relay.ID(name))
		if err != nil {
			c.complain(Fault{Kind: FaultBody, ID: relay.ID(name)}, "letter %s cannot be rebuilt: %v", name, err)
			continue
		}
		c.report.Letters++
		c.report.Items += len(items)
	}
	c.complain(Fault{Kind: FaultDatabase, Repair: fmt.Sprintf("sets it aside and rebuilds it from the %d letters "+
		"that are whole; some may be delivered twice, none is on hold", c.report.Letters)}, "%v", reason)
	return nil
}

// database reads the pages, the head of each record, and the index, while no commit can change
// them.
func (c *checker) database() error {
	if c.q != nil {
		c.q.committing.Lock()
		defer c.q.committing.Unlock()
	}
	complete, err := scan(c.layout.db(), nil, c.record)
	switch {
	case errors.Is(err, ErrDamaged):
		c.complain(Fault{Kind: FaultDatabase}, "%v", err)
	case err != nil:
		return err
	case !complete:
		c.complain(Fault{Kind: FaultDatabase, Repair: "takes letters without a record in again"},
			"one of the two meta pages of the database is damaged: its newest change may be lost")
	}
	if c.q == nil {
		return nil
	}
	// What bbolt itself keeps in memory: its free pages.
	btx, err := c.db.Begin(true)
	if err != nil {
		return err
	}
	for err := range btx.Check() {
		c.complain(Fault{Kind: FaultDatabase}, "database: %v", err)
	}
	c.index()
	return btx.Rollback()
}

const mendsRecord = "makes the record anew from the letter; who had the letter may get it twice"

// record checks the record of a raw key without reading its JSON.
func (c *checker) record(key, value []byte) {
	c.report.Items++
	k, err := ParseKey(string(key))
	if err != nil {
		err = fmt.Errorf("%w: %w", errRecord, err)
		c.complain(Fault{Kind: FaultRecord, Repair: mendsRecord, key: string(key), reason: err}, "record %q: %v", key, err)
		return
	}
	f := Fault{Kind: FaultRecord, ID: k.ID, Domain: k.Domain, Repair: mendsRecord, key: string(key)}
	h, err := decodeHeader(key, value)
	if err != nil {
		f.reason = err
		c.complain(f, "item %s: %v", k, err)
		return
	}
	if c.q == nil {
		return
	}
	c.q.mu.Lock()
	defer c.q.mu.Unlock()
	f.Kind, f.Repair = FaultIndex, mendsIndex
	switch e := c.q.index.get(k); {
	case e == nil:
		c.complain(f, "item %s is not in the index", k)
	case e.held != h.held || e.letter.size != h.size || e.gone:
		c.complain(f, "item %s: the index says held %v, size %d, gone %v; the record %v, %d",
			k, e.held, e.letter.size, e.gone, h.held, h.size)
	}
}

// letters reads every record whole, and every body with its trailer.
func (c *checker) letters(ctx context.Context) error {
	var last relay.ID
	for start := []byte{}; start != nil; {
		if err := ctx.Err(); err != nil {
			return err
		}
		recs, next, err := c.page(start, func([]byte) bool { return true })
		if err != nil {
			return err
		}
		for _, rec := range recs {
			if rec.err != nil {
				continue // record has said so
			}
			h, ok := c.item(rec)
			if ok && rec.key.ID != last {
				last = rec.key.ID
				c.report.Letters++
				c.letter(last, h)
			}
		}
		start = next
	}
	return nil
}

// item checks the JSON of a record, which its checksum has vouched for.
func (c *checker) item(rec record) (h header, ok bool) {
	it, h, err := decode(rec.key, rec.value)
	if _, headErr := decodeHeader(rec.key.String(), rec.value); headErr != nil {
		return h, false // record has said so
	}
	f := Fault{Kind: FaultRecord, ID: rec.key.ID, Domain: rec.key.Domain, key: rec.key.String(), reason: err}
	switch {
	case err != nil:
		f.Repair = mendsRecord
		c.complain(f, "item %s: %v", rec.key, err)
		return h, false
	case len(it.Rcpts) == 0:
		c.complain(f, "item %s has no recipients left", rec.key)
	}
	return h, true
}

// letter checks a body against its records. What is wrong is looked at again while nobody commits:
// the letter may have left the queue, and a body goes after its records.
func (c *checker) letter(id relay.ID, h header) {
	kind, err := c.compare(id, h)
	if err == nil {
		return
	}
	if c.q != nil {
		c.q.committing.Lock()
		defer c.q.committing.Unlock()
		if h, err = c.header(id); err != nil {
			return
		}
		if kind, err = c.compare(id, h); err == nil {
			return
		}
	}
	f := Fault{Kind: kind, ID: id}
	if kind == FaultTrailer {
		f.Repair = "writes the trailer anew from the records"
		c.complain(f, "letter %s: the text is whole, but what follows it is not: %v", id, err)
		return
	}
	c.complain(f, "letter %s: %v; its sender is told at the next attempt", id, err)
}

// compare reads a body file, and says which part of it is not what the records say.
func (l layout) compare(id relay.ID, h header) (kind string, err error) {
	env, sum, err := l.readTrailer(id)
	if err == nil && (env.Size != h.size || sum != h.sum) {
		err = fmt.Errorf("%w: it is that of another letter", errBody)
	}
	if err == nil {
		return "", nil
	}
	b, bodyErr := openBody(l.body(id), h.size, h.sum)
	if bodyErr != nil {
		return FaultBody, bodyErr
	}
	return FaultTrailer, errors.Join(err, b.Close())
}

// setAsideBefore lists what is kept of earlier damage.
func (c *checker) setAsideBefore() error {
	err := c.db.View(func(btx *bbolt.Tx) error {
		return btx.Bucket(corruptBucket).ForEach(func(key, kept []byte) error {
			reason, _, _ := bytes.Cut(kept, []byte("\n"))
			c.complain(Fault{Kind: FaultAside, Note: true}, "the record %q was set aside before: %s", key, reason)
			return nil
		})
	})
	if err != nil {
		return err
	}
	files, err := os.ReadDir(c.corrupt())
	if len(files) > 0 {
		c.complain(Fault{Kind: FaultAside, Note: true}, "%s keeps what was damaged and set aside before, "+
			"files: %d; remove them when nobody misses anything", c.corrupt(), len(files))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// orphanAge is how old a body without a record is that no session can be writing any more.
const orphanAge = 6 * time.Hour

// orphans counts the bodies that no item needs. They are no fault: every crash may leave some.
func (c *checker) orphans() error {
	names, err := c.names()
	if err != nil {
		return err
	}
	n := 0
	young := map[relay.ID]bool{}
	for _, rec := range c.young {
		young[rec.key.ID] = true
	}
	for _, name := range names {
		if _, err := c.header(relay.ID(name)); !errors.Is(err, ErrNotFound) || young[relay.ID(name)] {
			continue
		}
		info, err := os.Lstat(c.body(relay.ID(name)))
		if err == nil && (c.q == nil || time.Since(info.ModTime()) > orphanAge) {
			n++
		}
	}
	if len(young) > 0 {
		c.report.Letters, c.report.Items = c.report.Letters+len(young), c.report.Items+len(c.young)
		c.complain(Fault{Kind: FaultYoung, Note: true},
			"letters that were younger than a second when relayd died: %d; the next start takes them in", len(young))
	}
	if n > 0 {
		c.complain(Fault{Kind: FaultOrphan, Note: true},
			"body files that belong to no item, as a crash leaves them: %d; the next start of relayd removes them", n)
	}
	return nil
}
