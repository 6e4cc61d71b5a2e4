package maildir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"relayd/relay"
	"relayd/relay/durable"
)

// Store is all maildirs under one root. It is safe for concurrent use.
type Store struct {
	root  string
	dev   uint64 // the file system of root, which flush covers
	host  string // hostname, fit for file names
	flush *durable.Flusher
	log   *slog.Logger
	step  func(name string) // see SetStep
	keep  time.Duration     // see WithUndelete

	tell     func(ctx context.Context, e Emptying) error // see WithAlarm
	suspects chan suspect

	torn bool // letters of before the last boot may be torn
	stop context.CancelFunc
	work sync.WaitGroup // the sweep after the start
	loop sync.WaitGroup // what runs until Close

	mu    sync.Mutex
	boxes map[place]*box

	showsJunk func(mailbox relay.Address) bool // see WithJunk
}

// place is a mailbox, or a folder of it.
type place struct {
	mailbox relay.Address
	folder  string // ".Junk"; empty: the mailbox itself
}

// box is one mailbox.
type box struct {
	addr relay.Address
	dir  string
	over []string // of a folder, the directories above it up to the root's

	mu      sync.Mutex
	ready   bool     // its directories exist, as far as we know
	foreign bool     // on another file system than the root
	parents []string // directories in which a name may not be durable yet
	made    int      // how often they were made
	reading bool     // a Drop is open
	swept   bool     // torn letters have been moved aside
}

// Open makes the store at root, which it creates. hostname ends up in file names. flush must cover
// the file system of root. Litter in tmp/ older than 36 hours is removed in the background; Close
// waits for that.
func Open(root, hostname string, flush *durable.Flusher, log *slog.Logger, options ...Option) (*Store, error) {
	if err := makeRoot(root); err != nil {
		return nil, fmt.Errorf("maildir: open %s: %w", root, err)
	}
	dev, err := device(root)
	if err != nil {
		return nil, fmt.Errorf("maildir: open %s: %w", root, err)
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &Store{
		root: root, dev: dev, host: hostPart(hostname), flush: flush, log: log.With("room", "maildir"), step: func(string) {},
		stop: stop, boxes: map[place]*box{},
	}
	for _, o := range options {
		o(s)
	}
	boot := bootID()
	s.torn = boot == "" || boot != lastBoot(root)
	s.work.Go(func() { s.sweep(ctx, boot) })
	s.loop.Go(func() { s.sweepRemoved(ctx) })
	if s.tell != nil {
		s.loop.Go(func() { s.watch(ctx) })
	}
	return s, nil
}

// Option changes what Open makes.
type Option func(*Store)

// WithUndelete keeps what Remove removes for a time, so that Undelete can bring it back. Without it,
// or with 0, letters are removed for good, and those kept before go too.
func WithUndelete(keep time.Duration) Option { return func(s *Store) { s.keep = keep } }

// SetStep has f told what is done of a commit; tests crash there. It comes before the first Stage.
func (s *Store) SetStep(f func(name string)) { s.step = f }

// Close stops the sweep and waits for it. Letters that are staged stay valid.
func (s *Store) Close() error {
	s.stop()
	s.work.Wait()
	s.loop.Wait()
	return nil
}

func (s *Store) box(mailbox relay.Address) *box { return s.folder(mailbox, "") }

// folder is a Maildir++ folder of a mailbox, or with "" the mailbox itself.
func (s *Store) folder(mailbox relay.Address, name string) *box {
	addr := relay.Address{Local: fold(mailbox.Local), Domain: relay.Domain(fold(string(mailbox.Domain)))}
	s.mu.Lock()
	defer s.mu.Unlock()
	key := place{addr, name}
	b := s.boxes[key]
	if b == nil {
		dir := Dir(s.root, addr)
		b = &box{addr: mailbox, dir: dir}
		if name != "" {
			b.dir, b.over = filepath.Join(dir, name), []string{filepath.Dir(dir)}
		}
		s.boxes[key] = b
	}
	return b
}

// prepare makes sure that the maildir exists. It costs no system call once it has succeeded,
// until forget.
func (s *Store) prepare(b *box) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ready {
		return nil
	}
	for _, sub := range []string{"tmp", "new", "cur"} {
		if err := os.MkdirAll(filepath.Join(b.dir, sub), 0o700); err != nil {
			return err
		}
	}
	if b.over != nil {
		// Maildir++ knows a folder by this file.
		f, err := os.OpenFile(filepath.Join(b.dir, "maildirfolder"), os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		f.Close()
	}
	dev, err := device(filepath.Join(b.dir, "new"))
	if err != nil {
		return err
	}
	// Directories found in place are flushed once too: a process that made them may have died
	// before it could.
	b.ready, b.foreign = true, dev != s.dev
	b.made++
	b.parents = append([]string{b.dir, filepath.Dir(b.dir), s.root}, b.over...)
	return nil
}

// forget is called when the maildir turned out to be missing: an operator removed it.
func (b *box) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ready = false
}

// debt is what a mailbox owes the disk beside its letters: directories in which a name may not be
// durable yet. It is paid once, by whoever flushes first.
type debt struct {
	dirs    []string
	made    int
	foreign bool
}

func (b *box) owes() debt {
	b.mu.Lock()
	defer b.mu.Unlock()
	return debt{dirs: slices.Clone(b.parents), made: b.made, foreign: b.foreign}
}

// paid says that the directories of d are durable. They may have been made anew meanwhile.
func (b *box) paid(d debt) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if d.made == b.made {
		b.parents = nil
	}
}

// retryMissing runs f, and once more with the maildir made anew if it was missing.
func (s *Store) retryMissing(b *box, f func() error) error {
	if err := s.prepare(b); err != nil {
		return err
	}
	err := f()
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	b.forget()
	if err := s.prepare(b); err != nil {
		return err
	}
	return f()
}

// makeRoot creates root and flushes its parent.
func makeRoot(root string) error {
	if _, err := os.Stat(root); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(root, 0o700); err != nil {
		return err
	}
	return syncDir(filepath.Dir(root))
}

func device(dir string) (uint64, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return 0, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() {
		return 0, &fs.PathError{Op: "stat", Path: dir, Err: syscall.ENOTDIR}
	}
	return uint64(st.Dev), nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// failure is what intake hears of an error of ours: the disk is full, or anything else, all of it
// temporary (RFC 3463 §3.4).
func failure(op string, err error) error {
	if err == nil {
		return nil
	}
	reply := relay.Reply{Code: 451, Status: relay.Status{4, 3, 0}, Text: "the message cannot be stored now, try again later"}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		reply = relay.Reply{Code: 452, Status: relay.Status{4, 3, 1}, Text: "insufficient system storage, try again later"}
	}
	return relay.Fail("maildir: "+op, relay.ScopeMessage, reply, err)
}
