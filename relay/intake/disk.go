package intake

import (
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// disk watches the free space of the file system the mail lies on.
type disk struct {
	path  string
	asked atomic.Int64 // when free was read, in unix nanoseconds
	free  atomic.Int64 // octets an unprivileged process may still write
}

// freshness is how long one reading serves: at thousands of letters a second the answer hardly
// changes from one to the next.
const freshness = int64(100 * time.Millisecond)

// check returns an error when fewer than floor octets are left, or no file could be made.
func (d *disk) check(floor int64) error {
	now := time.Now().UnixNano()
	if since := now - d.asked.Load(); since > freshness || since < 0 {
		var st unix.Statfs_t
		if err := unix.Statfs(d.path, &st); err != nil {
			return fmt.Errorf("intake: free space of %s: %w", d.path, err)
		}
		free := int64(st.Bavail) * st.Bsize
		if st.Files > 0 && st.Ffree < minInodes {
			free = 0
		}
		d.free.Store(free)
		d.asked.Store(now)
	}
	if free := d.free.Load(); free < floor {
		return fmt.Errorf("intake: %s has %d octets left and needs %d", d.path, free, floor)
	}
	return nil
}

// minInodes: with fewer left, the next letters could not be given a file each.
const minInodes = 100
