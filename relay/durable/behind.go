package durable

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Behind has the kernel write a long letter while it is still coming in. Without it a letter of a
// gigabyte lies in memory whole until the next flush, which is everybody's: 900 MB held up a commit
// for five seconds here. It promises nothing; only Flush does.
type Behind struct {
	size    int64 // written to the file
	started int64 // handed to the disk
}

// window is how much is handed to the disk at once. Up to two of them are under way.
const window = 4 << 20

// Wrote counts n octets more at the end of f. An error means that octets written before are lost,
// and the letter with them: the kernel tells it once for each descriptor, so Flush would not.
func (b *Behind) Wrote(f *os.File, n int) error {
	b.size += int64(n)
	if b.size-b.started < window {
		return nil
	}
	err := syncRange(f, b.started, b.size-b.started, unix.SYNC_FILE_RANGE_WRITE)
	if b.started > 0 {
		// Waiting for what was handed over before keeps a fast client from filling the memory.
		const wait = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
		err = errors.Join(err, syncRange(f, 0, b.started, wait))
	}
	b.started = b.size
	return err
}

// syncRange is sync_file_range(2). A file system or kernel that does not know it is no error.
func syncRange(f *os.File, from, n int64, flags int) error {
	for {
		switch err := unix.SyncFileRange(int(f.Fd()), from, n, flags); err {
		case unix.EINTR:
		case unix.ENOSYS, unix.EINVAL, unix.EOPNOTSUPP:
			return nil
		default:
			return os.NewSyscallError("sync_file_range", err)
		}
	}
}
