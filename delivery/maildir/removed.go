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
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"relayd/relay"
)

// removedDir lies beside new/ and cur/ and keeps what Remove took out of them, one directory for
// each call. Its name has no leading dot, so it is no Maildir++ folder: Dovecot and mutt show
// nothing of it, Maildir++ quota does not count it, and it is always on the file system of the
// letters, so that moving one there is a rename.
const removedDir = "removed"

// sweepEvery is how often letters whose time is up are looked for.
const sweepEvery = time.Hour

// batch is where one call of Remove puts letters. Its directory is named
//
//	<unix seconds>.<id>,C=<address of the client>
//
// and the letters in it have their old names, so that nothing is written for each of them.
type batch struct {
	drop *Drop
	dir  string
	made bool
	lost int   // letters that had to be removed for good
	why  error // and why
}

func (d *Drop) newBatch() *batch {
	now := time.Now()
	return &batch{drop: d, dir: filepath.Join(d.box.dir, removedDir, batchName(now, relay.NewID(now), d.client))}
}

func batchName(now time.Time, id relay.ID, client netip.Addr) string {
	name := strconv.FormatInt(now.Unix(), 10) + "." + string(id)
	if client.IsValid() {
		name += ",C=" + client.Unmap().WithZone("").String()
	}
	return name
}

// parseBatch reads the time and the client from the name of a batch.
func parseBatch(name string) (at time.Time, client netip.Addr, ok bool) {
	head, addr, _ := strings.Cut(name, ",C=")
	digits, id, _ := strings.Cut(head, ".")
	seconds, err := strconv.ParseInt(digits, 10, 64)
	if _, bad := relay.ParseID(id); err != nil || bad != nil {
		return time.Time{}, netip.Addr{}, false
	}
	client, _ = netip.ParseAddr(addr)
	return time.Unix(seconds, 0), client, true
}

// take removes the letter at path from sight: at every moment it has a name, in its old place or
// in the batch.
func (b *batch) take(path string) error {
	if b.drop.store.keep <= 0 {
		return os.Remove(path)
	}
	err := b.move(path)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EXDEV) {
		// Where no letter can be kept the owner must still be able to make room.
		b.lost, b.why = b.lost+1, err
		return os.Remove(path)
	}
	return err
}

// move renames into the batch, which it makes when there is none. A missing letter is
// fs.ErrNotExist, a missing batch is not: the letter would count as gone.
func (b *batch) move(path string) error {
	to := filepath.Join(b.dir, filepath.Base(path))
	for try := 0; ; try++ {
		if err := b.make(); err != nil {
			return err
		}
		err := renameNew(path, to)
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if _, gone := os.Lstat(b.dir); gone == nil {
			return err
		}
		if b.made = false; try > 0 {
			return fmt.Errorf("%s goes away again and again", b.dir)
		}
	}
}

func (b *batch) make() error {
	if b.made {
		return nil
	}
	if err := os.Mkdir(filepath.Dir(b.dir), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	err := os.Mkdir(b.dir, 0o700)
	b.made = err == nil
	return err
}

// dirs are the directories whose names have to reach the disk.
func (b *batch) dirs() []string {
	if !b.made {
		return nil
	}
	return []string{b.dir, filepath.Dir(b.dir), b.drop.box.dir}
}

func (b *batch) close() {
	if b.lost > 0 {
		b.drop.store.log.Warn("removed letters for good that should have been kept", "mailbox", b.drop.box.addr, "count", b.lost, "err", b.why)
	}
	if b.made {
		os.Remove(b.dir) // succeeds if every letter turned out to be gone
	}
}

// Removed is a letter that a reader removed and that is still kept.
type Removed struct {
	relay.Message
	At     time.Time  // when it was removed
	Client netip.Addr // by whom; the zero Addr if nobody knows

	path string
	name name
}

// ListRemoved lists the letters of a mailbox under root that Remove has put aside, those removed
// last at the end. It may run beside a Store of another process.
func ListRemoved(root string, mailbox relay.Address) ([]Removed, error) {
	var list []Removed
	dir := filepath.Join(Dir(root, mailbox), removedDir)
	for _, sub := range subdirs(dir) {
		at, client, ok := parseBatch(sub)
		if !ok {
			continue
		}
		err := eachFile(filepath.Join(dir, sub), func(path string, info fs.FileInfo) error {
			n := parseName(info.Name())
			size, ok := n.field("W")
			if !ok {
				size = info.Size()
			}
			list = append(list, Removed{relay.Message{ID: n.id(), UID: n.uid(), Size: size}, at, client, path, n})
			return nil
		})
		// The folder may be swept away while it is read.
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("maildir: list removed letters of %s: %w", mailbox, err)
		}
	}
	slices.SortFunc(list, func(a, b Removed) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.name.seconds(), b.name.seconds()), strings.Compare(a.path, b.path))
	})
	return list, nil
}

// Open returns the octets as they lie on disk; ErrGone if the letter is kept no more.
func (r Removed) Open() (io.ReadCloser, error) {
	f, err := openRegular(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		err = ErrGone
	}
	if err != nil {
		return nil, fmt.Errorf("maildir: open removed letter %s: %w", r.UID, err)
	}
	return f, nil
}

// Undelete puts letters of one mailbox back into its new/ and returns how many are there; they are
// durable when it returns. A letter that is kept no more is left out, with ErrGone in the error.
//
// A letter comes back under a new unique-id. A client remembers the ids of what it has fetched
// (RFC 1939 §7) and would skip the old one without a word; and an id that has been removed is
// never used again.
func Undelete(root string, mailbox relay.Address, list ...Removed) (back int, err error) {
	inbox := filepath.Join(Dir(root, mailbox), "new")
	var errs []error
	batches := map[string]bool{}
	for _, r := range list {
		err := renameNew(r.path, filepath.Join(inbox, r.name.reborn(time.Now())))
		if errors.Is(err, fs.ErrNotExist) && exists(inbox) {
			err = ErrGone
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("maildir: undelete %s: %w", r.UID, err))
			continue
		}
		back++
		batches[filepath.Dir(r.path)] = true
	}
	if back > 0 {
		errs = append(errs, syncDir(inbox))
	}
	for dir := range batches {
		errs = append(errs, syncDir(dir))
		os.Remove(dir) // if it is empty now
	}
	return back, errors.Join(errs...)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// reborn is the name of the same letter with a new unique part. Its time, the ID we accepted it
// under and its sizes stay; its flags do not.
func (n name) reborn(now time.Time) string {
	unique := strconv.FormatInt(n.seconds(), 10)
	if id := n.id(); id != "" {
		unique += ".R" + string(id)
	}
	unique += ".U" + string(relay.NewID(now)) + ".undeleted"
	if _, fields, sized := strings.Cut(n.base, ","); sized {
		unique += "," + fields
	}
	return unique
}

// sweepRemoved removes what has been kept for long enough, now and then every sweepEvery until
// ctx ends.
func (s *Store) sweepRemoved(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		for _, domain := range subdirs(s.root) {
			for _, local := range subdirs(filepath.Join(s.root, domain)) {
				s.expire(ctx, filepath.Join(s.root, domain, local, removedDir))
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// expire sweeps one mailbox. What is no batch of ours is left alone.
func (s *Store) expire(ctx context.Context, dir string) {
	for _, sub := range subdirs(dir) {
		at, _, ok := parseBatch(sub)
		if !ok || time.Since(at) < s.keep {
			continue
		}
		path := filepath.Join(dir, sub)
		err := eachFile(path, func(file string, _ fs.FileInfo) error {
			if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return ctx.Err()
		})
		if err == nil {
			err = os.Remove(path)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.log.Warn("cannot remove letters whose time is up", "dir", path, "err", err)
		}
	}
}
