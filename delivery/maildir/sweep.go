package maildir

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// litterAge is how old a file in tmp/ must be to be removed (the maildir specification: 36 hours).
const litterAge = 36 * time.Hour

// bootFile keeps the boot under which the maildirs were last swept. No mailbox's directory begins
// with a dot.
const bootFile = ".boot"

// sweepChunk is how many names of a directory are held at once.
const sweepChunk = 1024

// sweep walks all maildirs once: torn letters are moved aside after a boot, litter is removed.
func (s *Store) sweep(ctx context.Context, boot string) {
	whole := true
	for _, domain := range subdirs(s.root) {
		for _, local := range subdirs(filepath.Join(s.root, domain)) {
			if ctx.Err() != nil {
				return
			}
			dir := filepath.Join(s.root, domain, local)
			for _, dir := range []string{dir, filepath.Join(dir, junkDir)} {
				if s.torn {
					whole = s.setTornAside(dir) == nil && whole
				}
				s.removeLitter(ctx, filepath.Join(dir, "tmp"))
			}
		}
	}
	// Only now: a sweep that was cut short must be done again.
	if s.torn && whole && boot != "" {
		if err := os.WriteFile(filepath.Join(s.root, bootFile), []byte(boot+"\n"), 0o600); err != nil {
			s.log.Warn("cannot note the boot under which maildirs were swept", "err", err)
		}
	}
}

// sweepBox moves torn letters of one mailbox aside before anybody lists it, in case the walk has
// not come by yet. It is called while no Drop is open.
func (s *Store) sweepBox(b *box) error {
	if !s.torn || b.swept {
		return nil
	}
	err := s.setTornAside(b.dir)
	b.swept = err == nil
	return err
}

// setTornAside moves letters of ours that are shorter than their name says to tmp/: a power cut
// came before their flush, and they were never promised.
func (s *Store) setTornAside(dir string) error {
	return eachFile(filepath.Join(dir, "new"), func(path string, info fs.FileInfo) error {
		n := parseName(info.Name())
		want, ok := n.field("S")
		if !ok || n.id() == "" || info.Size() >= want {
			return nil
		}
		err := os.Rename(path, filepath.Join(dir, "tmp", info.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the walk and a session came by at the same moment
		}
		s.log.Warn("set a torn letter aside: the power failed before it was accepted",
			"id", n.id(), "file", path, "size", info.Size(), "want", want, "err", err)
		return err
	})
}

func (s *Store) removeLitter(ctx context.Context, tmp string) {
	old := time.Now().Add(-litterAge)
	err := eachFile(tmp, func(path string, info fs.FileInfo) error {
		if info.ModTime().After(old) {
			return ctx.Err()
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		s.log.Info("removed litter", "file", path)
		return ctx.Err()
	})
	if err != nil && ctx.Err() == nil {
		s.log.Warn("cannot clean a maildir", "dir", tmp, "err", err)
	}
}

// eachFile calls f for the regular files of dir. A missing directory is an empty one, and a file
// that went away meanwhile is none.
func eachFile(dir string, f func(path string, info fs.FileInfo) error) error {
	d, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	for {
		entries, err := d.ReadDir(sweepChunk)
		for _, e := range entries {
			info, err := e.Info()
			if err != nil || !info.Mode().IsRegular() {
				continue
			}
			if err := f(filepath.Join(dir, e.Name()), info); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func subdirs(dir string) (names []string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() || e.Type()&fs.ModeSymlink != 0 {
			names = append(names, e.Name())
		}
	}
	return names
}

// bootID names the running boot of the machine (proc(5)); empty where it has no name, and then
// every start is taken for the first after a boot.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func lastBoot(root string) string {
	b, err := os.ReadFile(filepath.Join(root, bootFile))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
