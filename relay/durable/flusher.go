package durable

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Write is what one letter put on the disk: the files it wrote, still open, and the directories
// in which it made, renamed or linked a name.
type Write struct {
	Files []*os.File
	Dirs  []string
}

// Flusher makes Writes on one file system durable.
type Flusher struct {
	root  *os.File // an open descriptor, because the kernel reports each syncfs error once for each
	group *Group[Write]

	// slow is set while syncfs is not worth it: before Linux 5.8 it hides write errors, and on a
	// file system that another program is filling it waits for all of that program's data too.
	never bool
	// ordered: one journal commit carries a file's data and every name made before.
	ordered bool
	slow    atomic.Int64 // unix nanoseconds until which to fsync file by file
}

// syncfs slower than patience is given up for backoff in favour of single fsyncs.
const (
	patience = 250 * time.Millisecond
	backoff  = 30 * time.Second
	maxBatch = 1024
	parallel = 64
)

// NewFlusher opens dir, whose file system must hold everything that is later flushed. Close it
// when nobody flushes any more.
func NewFlusher(dir string) (*Flusher, error) {
	root, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("durable: %w", err)
	}
	f := &Flusher{root: root, never: !syncfsReportsErrors(), ordered: isOrdered(root)}
	f.group = NewGroup(maxBatch, f.flush)
	return f, nil
}

// Flush returns nil when w, written before the call, is durable. After an error the letter has
// failed: Linux has dropped the pages it could not write, so a second Flush that succeeds would
// prove nothing (hazards: "an fsync that fails").
func (f *Flusher) Flush(ctx context.Context, w Write) error {
	if err := f.group.Do(ctx, w); err != nil {
		return fmt.Errorf("durable: flush: %w", err)
	}
	return nil
}

// Close releases the descriptor.
func (f *Flusher) Close() error { return f.root.Close() }

func (f *Flusher) flush(batch []Write) error {
	if f.ordered && len(batch) == 1 && len(batch[0].Files) == 1 {
		return batch[0].Files[0].Sync()
	}
	now := time.Now()
	if f.never || now.UnixNano() < f.slow.Load() {
		return flushEach(batch)
	}
	if err := syncfs(f.root); err != nil {
		return err
	}
	if err := f.kept(batch); err != nil {
		return err
	}
	if took := time.Since(now); took > patience {
		f.slow.Store(now.Add(took + backoff).UnixNano())
	}
	return nil
}

func syncfs(dir *os.File) error {
	for {
		err := unix.Syncfs(int(dir.Fd()))
		if !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("syncfs", err)
		}
	}
}

// kept says whether syncfs, which saw no error, has kept the batch. The kernel tells of a failed write
// once: when the flush of those who came before met it, the next one knows nothing of it, though it was
// a file of this batch whose pages are gone. Each descriptor knows of its own. And of a file system that
// an error has made read-only many kernels say that all is well.
func (f *Flusher) kept(batch []Write) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.root.Fd()), &st); err != nil {
		return os.NewSyscallError("fstatfs", err)
	}
	if st.Flags&unix.ST_RDONLY != 0 {
		return os.NewSyscallError("syncfs", unix.EROFS)
	}
	for _, w := range batch {
		for _, file := range w.Files {
			if err := syncRange(file, 0, 0, unix.SYNC_FILE_RANGE_WAIT_BEFORE); err != nil {
				return err
			}
		}
	}
	return nil
}

// flushEach flushes every file, then every directory once, side by side so that the file system's
// journal can carry them together.
func flushEach(batch []Write) error {
	var files, dirs errgroup.Group
	files.SetLimit(parallel)
	dirs.SetLimit(parallel)
	seen := map[string]bool{}
	for _, w := range batch {
		for _, file := range w.Files {
			files.Go(file.Sync)
		}
	}
	if err := files.Wait(); err != nil {
		return err
	}
	for _, w := range batch {
		for _, dir := range w.Dirs {
			if !seen[dir] {
				seen[dir] = true
				dirs.Go(func() error { return syncDir(dir) })
			}
		}
	}
	return dirs.Wait()
}

func syncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// isOrdered says whether the file system is one whose journal is a single sequence of
// transactions, and on which fsync of a file writes that sequence up to the file's last change. A
// rename or link changes the file too (its ctime), and the directory in the same transaction; a
// directory that was made earlier stands in an earlier one. ext4 without a journal, and ext2, are not:
// there fsync leaves out the name that a file was renamed to.
func isOrdered(root *os.File) bool {
	var fs unix.Statfs_t
	var file unix.Stat_t
	if unix.Fstatfs(int(root.Fd()), &fs) != nil || unix.Fstat(int(root.Fd()), &file) != nil {
		return false
	}
	return fs.Type == unix.XFS_SUPER_MAGIC || fs.Type == unix.EXT4_SUPER_MAGIC && hasJournal("/sys", file.Dev)
}

// hasJournal says whether the ext4 on a device has a journal; false where sysfs does not tell.
func hasJournal(sys string, dev uint64) bool {
	device, err := os.Readlink(filepath.Join(sys, "dev", "block", fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev))))
	if err != nil {
		return false
	}
	task, err := os.ReadFile(filepath.Join(sys, "fs", "ext4", filepath.Base(device), "journal_task"))
	return err == nil && strings.TrimSpace(string(task)) != "<none>"
}

// syncfsReportsErrors: since Linux 5.8 syncfs returns write-back errors (syncfs(2)).
func syncfsReportsErrors() bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	var major, minor int
	if n, _ := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor); n != 2 {
		return false
	}
	return major > 5 || major == 5 && minor >= 8
}
