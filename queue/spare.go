package queue

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"relayd/relay"
)

// spares are the files of small bodies that are no longer needed, kept for the next letters. A file
// that is written over needs no new blocks and no new inode. Without a journal ext4 does not give
// an inode out again for seconds after its file was removed, and looks at all of them each time it
// makes one: a queue that relays thousands of letters a second spent half of its time there. There
// are as many spares as a burst left behind; those that nobody needed for a while are removed.
//
// A spare is a file that nobody has open and that has one name; what stood in it is gone when a
// letter moves in, though not before.
type spares struct {
	dir string

	mu     sync.Mutex
	free   []int // names; the last is taken first
	unused int   // how many of them nobody has needed since the last trim
	made   int
	opened map[relay.ID]int // bodies that somebody may be reading

	many bell // there are more than are kept for good
}

const (
	maxSpares    = 4096
	keptSpares   = 128 // however long nobody needs them
	maxSpareSize = 64 << 10

	trimEvery = time.Minute
)

// findSpares makes the folder and takes over what an earlier process left in it.
func findSpares(dir string) (*spares, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	s := &spares{dir: dir, opened: map[relay.ID]int{}, many: make(bell, 1)}
	for _, e := range entries {
		n, err := strconv.Atoi(e.Name())
		if err != nil || n < 0 || s.path(n) != filepath.Join(dir, e.Name()) || len(s.free) == maxSpares {
			os.Remove(filepath.Join(dir, e.Name()))
			continue
		}
		s.add(n)
		s.made = max(s.made, n)
	}
	s.unused = len(s.free)
	return s, nil
}

func (s *spares) path(n int) string { return filepath.Join(s.dir, strconv.Itoa(n)) }

// add is called with the lock held.
func (s *spares) add(n int) {
	s.free = append(s.free, n)
	if len(s.free) == keptSpares+1 {
		s.many.ring()
	}
}

// trim removes spares that a quiet time has shown to be too many, until stop.
func (s *spares) trim(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-s.many:
		}
		for more := true; more; {
			select {
			case <-stop:
				return
			case <-time.After(trimEvery):
			}
			more = s.removeUnused()
		}
	}
}

// removeUnused removes half of what nobody has needed since it was last called, and says whether there are
// more than are kept for good.
func (s *spares) removeUnused() (more bool) {
	s.mu.Lock()
	n := min((s.unused+1)/2, len(s.free)-keptSpares)
	var old []int
	if n > 0 {
		old = slices.Clone(s.free[:n])
		s.free = slices.Delete(s.free, 0, n)
	}
	s.unused = len(s.free)
	more = len(s.free) > keptSpares
	s.mu.Unlock()
	for _, n := range old {
		os.Remove(s.path(n))
	}
	return more
}

// create makes the file of a body, of a spare if there is one. It never touches a file that has
// the name already.
func (s *spares) create(name string) (*os.File, error) {
	if f := s.reuse(name); f != nil {
		return f, nil
	}
	return os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}

func (s *spares) reuse(name string) *os.File {
	spare, ok := s.take()
	if !ok {
		return nil
	}
	f, err := os.OpenFile(spare, os.O_WRONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil
	}
	var st unix.Stat_t
	err = unix.Fstat(int(f.Fd()), &st)
	if err == nil && (st.Nlink != 1 || st.Mode&unix.S_IFMT != unix.S_IFREG) {
		err = errors.New("it has another name")
	}
	if err == nil {
		err = unix.Renameat2(unix.AT_FDCWD, spare, unix.AT_FDCWD, name, unix.RENAME_NOREPLACE)
	}
	if err != nil {
		f.Close()
		os.Remove(spare)
		return nil
	}
	return f
}

func (s *spares) take() (path string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.free) == 0 {
		return "", false
	}
	last := len(s.free) - 1
	path = s.path(s.free[last])
	s.free = s.free[:last]
	s.unused = min(s.unused, last)
	return path, true
}

// open notes that somebody is about to read a body; the func it returns, that it has been closed.
func (s *spares) open(id relay.ID) (closed func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened[id]++
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.opened[id]--; s.opened[id] == 0 {
			delete(s.opened, id)
		}
	})
}

// discard removes a body that no record names any more. It becomes a spare if it is small, nobody
// reads it, it has no second name in corrupt/, and there is room.
func (s *spares) discard(id relay.ID, name string) error {
	info, err := os.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && info.Size() <= maxSpareSize && hasOneName(info) {
		if spare, ok := s.place(id); ok {
			if err := os.Rename(name, s.path(spare)); err == nil {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.add(spare)
				return nil
			}
		}
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (s *spares) place(id relay.ID) (n int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opened[id] > 0 || len(s.free) >= maxSpares {
		return 0, false
	}
	s.made++
	return s.made, true
}

func hasOneName(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Nlink == 1
}
