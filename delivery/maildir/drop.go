package maildir

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"relayd/relay"
	"relayd/relay/durable"
)

// What Maildrop and Open may answer; they are relay's, so that pop3 knows them too.
var (
	ErrInUse = relay.ErrInUse
	ErrGone  = relay.ErrGone
)

// Drop is one mailbox as a POP3 session sees it: a snapshot taken by Maildrop. It belongs to one
// goroutine; letters that are delivered or removed meanwhile do not change its numbers.
type Drop struct {
	store    *Store
	box      *box
	lock     *os.File // nil where the maildir does not exist yet
	letters  []letter
	messages []relay.Message
	client   netip.Addr // who reads
	notes    []byte     // for the fetch log
	junk     bool       // the letters in junkDir are shown too
	closed   bool
}

type letter struct {
	name
	sub  string // "new" or "cur", perhaps in junkDir; empty once removed
	time int64  // of delivery, in unix seconds
	seen bool   // fetched in this session
}

// RemoveError says which letters Remove could not remove.
type RemoveError struct {
	Numbers []int // as Messages numbers them, from 1
	Err     error // why, joined
}

func (e *RemoveError) Error() string {
	return fmt.Sprintf("maildir: remove: %d messages stay: %v", len(e.Numbers), e.Err)
}

func (e *RemoveError) Unwrap() error { return e.Err }

// NotRemoved is Numbers, for callers that do not import this package.
func (e *RemoveError) NotRemoved() []int { return e.Numbers }

// Maildrop opens a mailbox for one session, ErrInUse if there is one already, in this process or
// another. A mailbox that never got a letter is empty. It reads the names of the letters and
// nothing else, but for letters without W= in their name, which it reads once to learn their
// size. Close it.
func (s *Store) Maildrop(ctx context.Context, mailbox relay.Address) (*Drop, error) {
	b := s.box(mailbox)
	d := &Drop{store: s, box: b, junk: s.showsJunk != nil && s.showsJunk(mailbox)}
	if err := d.acquire(); err != nil {
		return nil, fmt.Errorf("maildir: open %s: %w", mailbox, err)
	}
	err := s.sweepBox(b)
	if err == nil && d.junk {
		err = s.sweepBox(s.folder(mailbox, junkDir))
	}
	if err == nil {
		err = d.list(ctx)
	}
	if err != nil {
		d.release()
		return nil, fmt.Errorf("maildir: open %s: %w", mailbox, err)
	}
	return d, nil
}

// acquire takes the mailbox for this session. The lock is on the directory itself: it needs no
// room on a full disk, leaves no file behind, and the kernel drops it when the process dies.
func (d *Drop) acquire() error {
	d.box.mu.Lock()
	defer d.box.mu.Unlock()
	if d.box.reading {
		return ErrInUse
	}
	dir, err := os.Open(d.box.dir)
	if errors.Is(err, fs.ErrNotExist) {
		d.box.reading = true
		return nil
	}
	if err != nil {
		return err
	}
	switch err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		dir.Close()
		return ErrInUse
	case err != nil:
		// Network file systems may not lock directories. Sessions of this process still exclude
		// each other, and that is all sessions there are as a rule.
		d.store.log.Debug("cannot lock the maildir", "dir", d.box.dir, "err", err)
	}
	d.box.reading, d.lock = true, dir
	return nil
}

func (d *Drop) release() {
	d.box.mu.Lock()
	defer d.box.mu.Unlock()
	d.box.reading = false
	if d.lock != nil {
		// Before the closing: a child that somebody is forking has the directory open until its exec.
		unix.Flock(int(d.lock.Fd()), unix.LOCK_UN)
		d.lock.Close()
		d.lock = nil
	}
}

// list takes the snapshot, ordered by time of delivery.
func (d *Drop) list(ctx context.Context) error {
	found, err := d.scan()
	if err != nil {
		return err
	}
	// Of a letter seen in both places the one in cur/ comes last: it stays.
	slices.SortFunc(found, func(a, b letter) int {
		if c := cmp.Compare(a.time, b.time); c != 0 {
			return c
		}
		return cmp.Or(strings.Compare(a.base, b.base), strings.Compare(b.sub, a.sub))
	})
	d.letters = make([]letter, 0, len(found))
	d.messages = make([]relay.Message, 0, len(found))
	for i, l := range found {
		if i+1 < len(found) && found[i+1].base == l.base {
			continue
		}
		if err := d.add(ctx, l); err != nil {
			return err
		}
	}
	d.separate()
	return nil
}

// add appends one letter to the snapshot, measuring it if its name does not say its size.
func (d *Drop) add(ctx context.Context, l letter) error {
	octets, ok := l.field("W")
	if _, both := l.field("S"); !ok || !both {
		if err := ctx.Err(); err != nil {
			return err
		}
		var err error
		octets, err = measure(d.path(l))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ELOOP) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	d.letters = append(d.letters, l)
	d.messages = append(d.messages, relay.Message{ID: l.id(), UID: l.uid(), Size: octets})
	return nil
}

// scan reads the names in new/ and cur/. new/ comes first: a letter that another program moves to
// cur/ meanwhile is then seen twice rather than not at all.
func (d *Drop) scan() (found []letter, err error) {
	for _, sub := range d.subs() {
		dir, err := os.Open(filepath.Join(d.box.dir, sub))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		entries, err := dir.ReadDir(-1)
		dir.Close()
		if err != nil {
			return nil, err
		}
		found = slices.Grow(found, len(entries))
		for _, e := range entries {
			// A leading dot is a file that some program is still working on.
			if e.Type().IsRegular() && e.Name()[0] != '.' {
				n := parseName(e.Name())
				found = append(found, letter{name: n, sub: sub, time: n.seconds()})
			}
		}
	}
	return found, nil
}

func (d *Drop) path(l letter) string {
	return filepath.Join(d.box.dir, l.sub, l.base+l.info)
}

// SetClient says who reads, for the fetch log and for what is removed; without it neither knows.
func (d *Drop) SetClient(client netip.Addr) { d.client = client.Unmap().WithZone("") }

// Messages returns the snapshot: message n of POP3 is element n-1. The caller must not change it.
func (d *Drop) Messages() []relay.Message { return d.messages }

// Open returns the octets of message n as they lie on disk, LF line ends as a rule. If another
// program has renamed the file meanwhile it is found again; ErrGone if it was removed.
func (d *Drop) Open(n int) (io.ReadCloser, error) {
	l := &d.letters[n-1]
	var f *reader
	err := d.onFile(l, func(path string) (err error) {
		f, err = openRegular(path)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("maildir: open message %d: %w", n, err)
	}
	return f, nil
}

// Seen notes that message n has been fetched. Close then moves it to cur/ with the flag S, unless it
// was removed, so that other readers of the maildir see it as read.
func (d *Drop) Seen(n int) {
	d.letters[n-1].seen = true
	d.note(FetchTaken, n)
}

// Remove removes messages, for good or as WithUndelete says. A message that is gone already counts
// as removed. The error is a *RemoveError that says which stay.
func (d *Drop) Remove(numbers ...int) error {
	var failed RemoveError
	touched := map[string]bool{}
	away := d.newBatch()
	for _, n := range numbers {
		l := &d.letters[n-1]
		err := d.onFile(l, away.take)
		if err != nil && !errors.Is(err, ErrGone) {
			failed.Numbers = append(failed.Numbers, n)
			failed.Err = errors.Join(failed.Err, err)
			continue
		}
		if err == nil {
			touched[l.sub] = true
			d.note(FetchRemoved, n)
		}
		l.sub = ""
	}
	if err := d.flush(touched, away.dirs()...); err != nil {
		// They are gone, but a power cut may bring them back: a duplicate, never a loss.
		d.store.log.Warn("cannot flush removals", "mailbox", d.box.addr, "err", err)
	}
	away.close()
	if failed.Err != nil {
		return &failed
	}
	return nil
}

// flush makes changes in directories durable: those of the maildir named by subs, after others.
func (d *Drop) flush(subs map[string]bool, others ...string) error {
	dirs := others
	for sub := range subs {
		dirs = append(dirs, filepath.Join(d.box.dir, sub))
	}
	if len(dirs) == 0 {
		return nil
	}
	if dev, err := device(d.box.dir); err != nil || dev != d.store.dev {
		for _, dir := range dirs {
			err = errors.Join(err, syncDir(dir))
		}
		return err
	}
	// Not the session's context: the letters are gone already, whatever becomes of the client.
	return d.store.flush.Flush(context.Background(), durable.Write{Dirs: dirs})
}

// Close marks what was fetched as seen and lets the next session in. Calling it twice is harmless.
func (d *Drop) Close() error {
	if d.closed {
		return nil
	}
	d.closed = true
	defer d.release()
	d.writeNotes()
	d.suspect()
	var errs []error
	for i := range d.letters {
		if l := &d.letters[i]; l.seen && l.sub != "" {
			if err := d.markSeen(l); err != nil && !errors.Is(err, ErrGone) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

func (d *Drop) markSeen(l *letter) error {
	return d.onFile(l, func(path string) error {
		to := filepath.Join(d.box.dir, filepath.Dir(l.sub), "cur", l.withSeen())
		if to == path {
			return nil
		}
		return renameNew(path, to)
	})
}

// onFile runs f on the path of a letter. If there is no such file, another program has renamed it:
// the directories are read again, for all letters at once, and f is run on the new path.
func (d *Drop) onFile(l *letter, f func(path string) error) error {
	if l.sub == "" {
		return ErrGone
	}
	err := f(d.path(*l))
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	found, err := d.scan()
	if err != nil {
		return err
	}
	places := make(map[string]letter, len(found))
	for _, now := range found {
		places[now.base] = now
	}
	for i := range d.letters {
		old := &d.letters[i]
		if now, ok := places[old.base]; ok && old.sub != "" {
			old.sub, old.info = now.sub, now.info
		}
	}
	if _, ok := places[l.base]; !ok {
		return ErrGone
	}
	if err := f(d.path(*l)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return ErrGone
}
