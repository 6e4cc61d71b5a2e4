package queue

import (
	"os"

	"golang.org/x/sys/unix"
)

// reserve keeps blocks of the disk allocated behind the end of the database. bbolt writes every
// change to new pages, so on a full disk even a Drop would fail, and the queue could never make
// room again. New letters do not eat the reserve: their bodies fail first.
type reserve struct {
	file  *os.File
	until int64 // allocated up to here
}

const (
	reserveLow  = 1 << 20 // of the reserve left when it is renewed
	reserveFull = 2 << 20
)

// keep renews the reserve when the pages in use have come near its end. A disk that has no room
// for it, or a file system that cannot allocate ahead, is no error: it is tried again later.
func (r *reserve) keep(used int64) {
	if r.file == nil || used+reserveLow <= r.until {
		return
	}
	if unix.Fallocate(int(r.file.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, used+reserveFull) == nil {
		r.until = used + reserveFull
	}
}
