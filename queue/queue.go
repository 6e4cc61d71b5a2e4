package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"relayd/relay"
	"relayd/relay/durable"
)

// Options are what Open needs beside the directory.
type Options struct {
	Schedule Schedule         // zero: DefaultSchedule
	Flush    *durable.Flusher // of the file system the directory is on; nil: one of our own
	Log      *slog.Logger     // nil: nothing is logged

	// Hold says why a new item is held from the start, though its envelope asks for no hold; empty:
	// it is not. It must not wait. nil: none is.
	Hold func(it *Item) string

	// Lost says how much of the time from born to now does not count, because nothing could be sent. It
	// must not wait. nil: none of it.
	Lost func(born, now time.Time) time.Duration

	// Step is told what is done of a commit, a Take and a Settle; tests crash there, nil elsewhere.
	Step func(name string)
}

// Queue keeps the letters. It implements relay.Stager. All methods may be called at once.
type Queue struct {
	store
	log    *slog.Logger
	flush  *durable.Flusher
	group  *durable.Group[*op]
	clock  clock
	wake   bell
	ageing bell // there are young letters
	lock   *os.File
	spares *spares
	step   func(name string)
	hold   func(it *Item) string
	lost   func(born, now time.Time) time.Duration

	ownFlush bool
	crashed  bool // the process that had the queue before us died
	cautious bool // ours cannot say so: see first.go

	mu       sync.Mutex // guards what follows; never held while waiting for the disk
	index    *index
	young    map[relay.ID]*young
	schedule Schedule

	reserve    reserve      // guarded by committing
	narrowing  sync.Mutex   // one trailer at a time is written anew for a Drop
	committing sync.Mutex   // from the begin of a transaction until the index shows it
	life       sync.RWMutex // read: somebody uses the database; written: it is being closed
	closed     bool
	stop       chan struct{}
	sweeping   sync.WaitGroup
	growing    sync.WaitGroup
}

// Open opens the queue in dir, which it makes if need be, for this process alone: ErrInUse says
// that another one has it. A damaged database is set aside whole; then, as when it is not there
// while letters are, it is rebuilt from them. Damaged records are set aside and made anew from
// their letters. All of it is logged. The caller closes the Queue.
func Open(dir string, o Options) (*Queue, error) {
	q := &Queue{
		store: store{layout: layout{dir}},
		log:   o.Log, flush: o.Flush, schedule: o.Schedule, step: o.Step, hold: o.Hold, lost: o.Lost,
		clock: newClock(time.Now()), wake: make(bell, 1), ageing: make(bell, 1), stop: make(chan struct{}),
		young: map[relay.ID]*young{},
	}
	if q.log == nil {
		q.log = slog.New(slog.DiscardHandler)
	}
	if q.lost == nil {
		q.lost = func(time.Time, time.Time) time.Duration { return 0 }
	}
	if q.step == nil {
		q.step = func(string) {}
	}
	q.group = durable.NewGroup(maxGroup, q.commit)
	if err := q.start(); err != nil {
		q.release()
		return nil, err
	}
	return q, nil
}

func (q *Queue) start() error {
	if err := q.makeDirs(); err != nil {
		return fmt.Errorf("queue: %w", err)
	}
	if err := q.takeLock(); err != nil {
		return err
	}
	if q.flush == nil {
		f, err := durable.NewFlusher(q.dir)
		if err != nil {
			return err
		}
		q.flush, q.ownFlush = f, true
	}
	var err error
	if q.spares, err = findSpares(q.layout.spares()); err != nil {
		return fmt.Errorf("queue: %w", err)
	}
	q.noteOpening()
	l, err := q.load()
	if err != nil {
		return err
	}
	if q.store.db, err = openDB(q.layout.db(), false); err != nil {
		return err
	}
	if q.reserve.file, err = os.OpenFile(q.layout.db(), os.O_RDWR, 0); err != nil {
		return fmt.Errorf("queue: %w", err)
	}
	err = q.store.db.View(func(btx *bbolt.Tx) error {
		q.reserve.keep(btx.Size())
		unmapPages(q.store.db, btx.Size())
		return nil
	})
	if err != nil {
		return fmt.Errorf("queue: %w", err)
	}
	if err := q.reconcile(l); err != nil {
		return err
	}
	q.growing.Go(q.age)
	q.growing.Go(func() { q.spares.trim(q.stop) })
	return nil
}

func (q *Queue) makeDirs() error {
	if err := os.MkdirAll(q.bodies(), 0o700); err != nil {
		return err
	}
	for _, dir := range []string{q.dir, filepath.Dir(filepath.Clean(q.dir))} {
		if err := syncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// takeLock keeps a second daemon out from the first line of Open to the last of Close. bbolt has
// a lock of its own, but Open reads the file before it opens it for writing.
func (q *Queue) takeLock() error {
	f, err := os.OpenFile(q.layout.lock(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("queue: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("queue: %s: %w; only one relayd can run on a data directory", q.dir, ErrInUse)
		}
		return fmt.Errorf("queue: lock %s: %w", f.Name(), err)
	}
	q.lock = f
	return nil
}

// Close waits for what is under way and closes the queue. Bodies that are open stay readable.
func (q *Queue) Close() error {
	q.life.Lock()
	if q.closed {
		q.life.Unlock()
		return nil
	}
	q.closed = true
	close(q.stop)
	q.life.Unlock()
	q.sweeping.Wait()
	q.growing.Wait()
	return errors.Join(q.noteClosing(), q.release())
}

func (q *Queue) release() error {
	var errs []error
	if q.store.db != nil {
		errs = append(errs, q.store.db.Close())
	}
	if q.reserve.file != nil {
		errs = append(errs, q.reserve.file.Close())
	}
	if q.ownFlush {
		errs = append(errs, q.flush.Close())
	}
	if q.lock != nil {
		// Before the closing: a child that somebody is forking has the file open until its exec.
		errs = append(errs, unix.Flock(int(q.lock.Fd()), unix.LOCK_UN), q.lock.Close())
	}
	return errors.Join(errs...)
}

// use keeps the database open until the func it returns is called.
func (q *Queue) use() (func(), error) {
	q.life.RLock()
	if q.closed {
		q.life.RUnlock()
		return nil, ErrClosed
	}
	return q.life.RUnlock, nil
}

// SetSchedule changes the time policy. Items keep the time they wait for now.
func (q *Queue) SetSchedule(s Schedule) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.schedule = s
}

// NextDue is when the next item is due, by the monotonic clock; false when none waits. It may lie
// in the past: due items whose domains Take was told to skip stay due.
func (q *Queue) NextDue() (time.Time, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	at, ok := q.index.firstDue()
	if !ok {
		return time.Time{}, false
	}
	return q.clock.time(at), true
}

// Wake receives when something may have become due before the time NextDue said: new mail, and
// what an operator released or retried. It is never closed.
func (q *Queue) Wake() <-chan struct{} { return q.wake }

func (q *Queue) ring() { q.wake.ring() }

// bell wakes one who waits; rung twice it wakes once.
type bell chan struct{}

func (b bell) ring() {
	select {
	case b <- struct{}{}:
	default:
	}
}

// Stats are counts for status and metrics.
type Stats struct {
	Letters int   // bodies
	Items   int   // one for each domain of a letter
	Held    int   // items kept back by an operator
	Taken   int   // items handed out by Take and not settled
	Octets  int64 // of all bodies
	Domains int
}

// Stats returns them from memory.
func (q *Queue) Stats() Stats {
	q.mu.Lock()
	defer q.mu.Unlock()
	x := q.index
	return Stats{len(x.letters), x.items, x.held, x.taken, x.octets, len(x.dests)}
}

// Body opens the letter as it was accepted, CRLF line ends. It is checked as a whole first: for a
// body that is missing or changed the error is ErrDamaged. What is left of it is kept in corrupt/;
// its items stay, until whoever asked has told the sender and settled them. ErrNotFound when the
// letter is not in the queue. The caller closes it.
func (q *Queue) Body(id relay.ID) (io.ReadSeekCloser, error) {
	done, err := q.use()
	if err != nil {
		return nil, err
	}
	defer done()
	// Before the record is looked at: from then on the file is nobody else's.
	closed := q.spares.open(id)
	b, err := q.openMended(id)
	if err != nil {
		closed()
		return nil, err
	}
	b.closed = closed
	return b, nil
}

func (q *Queue) has(id relay.ID) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.index.letters[id] != nil
}

func (q *Queue) openMended(id relay.ID) (*body, error) {
	b, ok, err := q.openNew(id)
	if !ok {
		b, err = q.store.open(id)
	}
	if errors.Is(err, errRecord) {
		if err = q.mendLetter(id); err == nil {
			b, err = q.store.open(id)
		}
	}
	if errors.Is(err, errBody) {
		if !q.has(id) { // it left the queue, and its file with it, after we had looked for its record
			return nil, fmt.Errorf("queue: body %s: %w", id, ErrNotFound)
		}
		if !q.isKept(id) {
			kept := q.keepCorrupt(id)
			q.log.Error("the text of a letter is damaged", "id", id, "err", err, "kept", q.corrupt(), "keep_err", kept)
		}
		return nil, fmt.Errorf("queue: letter %s is %w: %w", id, ErrDamaged, err)
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

// commit is the one place that writes to the database: everybody who waits shares a transaction.
func (q *Queue) commit(batch []*op) error {
	q.committing.Lock()
	defer q.committing.Unlock()
	btx, err := q.store.db.Begin(true)
	if err != nil {
		return err
	}
	defer func() {
		if p := recover(); p != nil {
			btx.Rollback() // or nobody would ever get another transaction
			panic(p)
		}
	}()
	id := btx.ID()
	q.reserve.keep(btx.Size())
	t := newTx(btx)
	visible := false
	defer func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.recorded(t.recorded, visible)
	}()
	for _, o := range batch {
		if err := o.apply(t); err != nil {
			return errors.Join(err, btx.Rollback())
		}
	}
	if err := t.seal(); err != nil {
		return errors.Join(err, btx.Rollback())
	}
	q.step("queue: applied")
	if !t.dirty {
		err = btx.Rollback()
	} else if err = btx.Commit(); err != nil && !q.visible(id) {
		return err
	}
	visible = true
	q.step("queue: committed")
	// A commit whose very last sync failed is visible all the same, though not promised: the
	// index must show what the database shows.
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, o := range batch {
		if o.publish != nil {
			o.publish(q.index)
		}
	}
	return err
}

func (q *Queue) visible(id int) (yes bool) {
	q.store.db.View(func(btx *bbolt.Tx) error {
		yes = btx.ID() == id
		return nil
	})
	return yes
}

// do has an operation committed with whatever else waits.
func (q *Queue) do(ctx context.Context, o *op) error {
	done, err := q.use()
	if err != nil {
		return err
	}
	defer done()
	return q.group.Do(ctx, o)
}

// settlePatience is how long an attempt's outcome may wait for a commit that is made anyway. A
// crash meanwhile delivers once more what was just delivered, as one a moment earlier would.
const settlePatience = 5 * time.Millisecond

// doSoon is do for what nobody waits for.
func (q *Queue) doSoon(ctx context.Context, o *op) error {
	done, err := q.use()
	if err != nil {
		return err
	}
	defer done()
	return q.group.DoWithin(ctx, o, settlePatience)
}

// removeBodies removes bodies whose last item is gone. One that stays is no harm: the next Open
// finds it without a record and removes it.
func (q *Queue) removeBodies(ids ...relay.ID) {
	for _, id := range ids {
		if err := q.spares.discard(id, q.body(id)); err != nil {
			q.log.Warn("cannot remove a body no longer needed; the next start will", "id", id, "err", err)
		}
	}
}
