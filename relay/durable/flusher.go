package durable

import (
	"context"
	"errors"
	"fmt"
	"math"
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

	carried int // in how many directories the fsync of a file makes its names durable

	// slow is set while syncfs is not worth it: before Linux 5.8 it hides write errors, and on a
	// file system that another program is filling it waits for all of that program's data too.
	never bool
	slow  atomic.Int64 // unix nanoseconds until which to fsync file by file
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
	f := &Flusher{root: root, never: !syncfsReportsErrors(), carried: carriedNames(root)}
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
	if len(batch) == 1 && len(batch[0].Files) == 1 && len(batch[0].Dirs) <= f.carried {
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

// carriedNames says in how many directories the fsync of a file makes its names durable with it: in all
// where the journal is a single sequence of transactions, which fsync writes up to the file's last
// change. A rename or link changes the file too (its ctime), and the directory in the same transaction;
// a directory that was made earlier stands in an earlier one. ext4 without a journal flushes the
// directory that a file was put in last, and only that.
func carriedNames(root *os.File) int {
	var fs unix.Statfs_t
	var file unix.Stat_t
	if unix.Fstatfs(int(root.Fd()), &fs) != nil || unix.Fstat(int(root.Fd()), &file) != nil {
		return 0
	}
	switch fs.Type {
	case unix.XFS_SUPER_MAGIC:
		return math.MaxInt
	case unix.EXT4_SUPER_MAGIC: // which ext2 and ext3 have too
		return carriedByExt4("/sys", file.Dev)
	}
	return 0
}

// carriedByExt4 asks whether the ext4 on a device has a journal; where sysfs does not tell, it may be
// another driver's.
func carriedByExt4(sys string, dev uint64) int {
	device, err := os.Readlink(filepath.Join(sys, "dev", "block", fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev))))
	if err != nil {
		return 0
	}
	task, err := os.ReadFile(filepath.Join(sys, "fs", "ext4", filepath.Base(device), "journal_task"))
	switch {
	case err != nil:
		return 0
	case strings.TrimSpace(string(task)) == "<none>":
		return 1
	}
	return math.MaxInt
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
