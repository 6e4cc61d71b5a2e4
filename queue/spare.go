package queue

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"relayd/relay"
)

// spares are the files of small bodies that are no longer needed, kept for the next letters. ext4
// does not give an inode out again for a minute after its file was removed, and looks at all of
// them each time it makes one: a queue that relays a few hundred letters a second spends a third
// of its time there. A file that is written over costs neither that nor new blocks.
//
// A spare is a file that nobody has open and that has one name; what stood in it is gone when a
// letter moves in, though not before.
type spares struct {
	dir string

	mu     sync.Mutex
	free   []string // names
	made   int
	opened map[relay.ID]int // bodies that somebody may be reading
}

const (
	maxSpares    = 128
	maxSpareSize = 64 << 10
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
	s := &spares{dir: dir, opened: map[relay.ID]int{}}
	for _, e := range entries {
		n, err := strconv.Atoi(e.Name())
		if err != nil || len(s.free) == maxSpares {
			os.Remove(filepath.Join(dir, e.Name()))
			continue
		}
		s.free = append(s.free, e.Name())
		s.made = max(s.made, n)
	}
	return s, nil
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
	path = filepath.Join(s.dir, s.free[last])
	s.free = s.free[:last]
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
			if err := os.Rename(name, filepath.Join(s.dir, spare)); err == nil {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.free = append(s.free, spare)
				return nil
			}
		}
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (s *spares) place(id relay.ID) (name string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opened[id] > 0 || len(s.free) >= maxSpares {
		return "", false
	}
	s.made++
	return strconv.Itoa(s.made), true
}

func hasOneName(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Nlink == 1
}
