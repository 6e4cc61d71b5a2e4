package drop

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Collector takes the letters out of a drop directory. Letters that nobody can make anything of
// are set aside in its subdirectory bad, with a line in the log.
type Collector struct {
	Dir string
	// Accept makes a letter ours; nil means that it is durable, or that its writer has been told.
	// ErrRejected sets it aside; after every other error it is tried again. It bounds how large a letter
	// may be, because whoever dropped one that is too large is told by it alone.
	Accept func(ctx context.Context, o Order, letter io.Reader) error
	Log    *slog.Logger

	done map[string]bool // accepted, and could not be removed
}

// ErrRejected: nothing will ever become of this letter.
var ErrRejected = errors.New("nobody wants it, and nobody can be told")

const (
	pollEvery = 2 * time.Second
	maxBatch  = 1000           // directory entries looked at in one pass
	staleTmp  = 24 * time.Hour // the writer of a file this old has gone
	badDir    = "bad"
)

// Run collects until ctx ends. Its errors are about the directory, and are tried again too.
func (c *Collector) Run(ctx context.Context) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	var told string
	for {
		if err := c.collect(ctx); err != nil && ctx.Err() == nil && err.Error() != told {
			told = err.Error()
			c.Log.Error("the drop directory cannot be emptied", "err", err)
		} else if err == nil {
			told = ""
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// collect makes one pass, the oldest first.
func (c *Collector) collect(ctx context.Context) error {
	dir, err := os.Open(c.Dir)
	if err != nil {
		return fmt.Errorf("drop: %w", err)
	}
	defer dir.Close()
	if err := ours(dir); err != nil {
		return err
	}
	names, err := c.oldestFirst(dir)
	if err != nil {
		return fmt.Errorf("drop: %w", err)
	}
	var errs []error
	for _, name := range names {
		if ctx.Err() != nil {
			break
		}
		if err := c.take(ctx, dir, name); err != nil {
			errs = append(errs, fmt.Errorf("drop: %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// ours refuses a directory from which we could not remove what others own: each letter would be
// accepted again and again.
func ours(dir *os.File) error {
	info, err := dir.Stat()
	if err != nil {
		return fmt.Errorf("drop: %w", err)
	}
	if uid := info.Sys().(*syscall.Stat_t).Uid; os.Geteuid() != 0 && int(uid) != os.Geteuid() {
		return fmt.Errorf("drop: %s belongs to uid %d, and must belong to the user of relayd", dir.Name(), uid)
	}
	return nil
}

// oldestFirst are the names of one batch. Directories are passed over: not even their parent's owner
// may move another's.
func (c *Collector) oldestFirst(dir *os.File) (names []string, err error) {
	when := map[string]time.Time{}
	var entries []fs.DirEntry
	for err == nil && len(names) < maxBatch {
		entries, err = dir.ReadDir(maxBatch)
		for _, e := range entries {
			info, err := e.Info()
			switch {
			case err != nil || e.IsDir(): // the former is gone
			case !strings.HasPrefix(e.Name(), "."):
				names = append(names, e.Name())
				when[e.Name()] = info.ModTime()
			case time.Since(info.ModTime()) > staleTmp:
				os.Remove(filepath.Join(c.Dir, e.Name()))
			}
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	slices.SortFunc(names, func(a, b string) int { return when[a].Compare(when[b]) })
	return names, err
}

// take accepts one letter and removes it, or sets it aside. An error leaves it for the next pass.
func (c *Collector) take(ctx context.Context, dir *os.File, name string) error {
	var err error
	if !c.done[name] {
		err = c.accept(ctx, dir, name)
	}
	switch {
	case err == nil:
		if err := os.Remove(filepath.Join(c.Dir, name)); err != nil {
			if c.done == nil {
				c.done = map[string]bool{}
			}
			c.done[name] = true
			return err
		}
		delete(c.done, name)
		return nil
	case errors.Is(err, ErrMalformed), errors.Is(err, ErrRejected):
		c.Log.Error("a dropped letter is set aside", "file", filepath.Join(c.Dir, badDir, name), "err", err)
		if err := os.MkdirAll(filepath.Join(c.Dir, badDir), 0o700); err != nil {
			return err
		}
		return os.Rename(filepath.Join(c.Dir, name), filepath.Join(c.Dir, badDir, name))
	case errors.Is(err, fs.ErrNotExist):
		return nil // its owner took it back
	}
	return err
}

func (c *Collector) accept(ctx context.Context, dir *os.File, name string) error {
	// Whatever stands under the name, this neither follows a link nor waits for a pipe.
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	st := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.Mode().IsRegular() || !strings.HasSuffix(name, suffix):
		return fmt.Errorf("%w: it is no file of ours", ErrMalformed)
	case st.Nlink > 1:
		// A link to a file that its maker could not read himself.
		return fmt.Errorf("%w: it has another name elsewhere", ErrMalformed)
	}
	r := bufio.NewReader(f)
	o, err := Read(r)
	if err != nil {
		return err
	}
	if uid := int(st.Uid); uid != 0 && uid != os.Geteuid() {
		o.UID = uid
	}
	return c.Accept(ctx, o, r)
}
