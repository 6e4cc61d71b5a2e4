package users

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"relayd/relay"
)

// Add puts a new user into the file. Errors: ErrExists, ErrName, ErrPassword.
func (s *Store) Add(ctx context.Context, a relay.Address, password string) error {
	return s.AddAs(ctx, a, password, SchemeArgon2)
}

// AddAs is Add with a scheme, SchemeArgon2 or SchemeScram.
func (s *Store) AddAs(ctx context.Context, a relay.Address, password, scheme string) error {
	a, err := newName(a)
	if err != nil {
		return fmt.Errorf("users: add: %w", err)
	}
	field, err := s.newField(password, scheme)
	if err != nil {
		return fmt.Errorf("users: add %s: %w", a, err)
	}
	return s.file().edit(ctx, "add", a, func(lines [][]byte, found []int) ([][]byte, error) {
		if len(found) > 0 {
			return nil, ErrExists
		}
		return append(lines, []byte(a.String()+":"+field+"\n")), nil
	})
}

// SetPassword gives a user another password, kept for SCRAM if the last one was. Errors:
// ErrUnknown, ErrPassword.
func (s *Store) SetPassword(ctx context.Context, a relay.Address, password string) error {
	scheme := SchemeArgon2
	if u := s.current().users[Normalize(a)]; u != nil && u.scheme == SchemeScram {
		scheme = SchemeScram
	}
	return s.SetPasswordAs(ctx, a, password, scheme)
}

// SetPasswordAs is SetPassword with a scheme, SchemeArgon2 or SchemeScram. It leaves the rest of the
// line as it is.
func (s *Store) SetPasswordAs(ctx context.Context, a relay.Address, password, scheme string) error {
	field, err := s.newField(password, scheme)
	if err != nil {
		return fmt.Errorf("users: set password of %s: %w", a, err)
	}
	return s.file().edit(ctx, "set password of", a, func(lines [][]byte, found []int) ([][]byte, error) {
		if len(found) == 0 {
			return nil, ErrUnknown
		}
		i := found[0]
		name, rest, _ := strings.Cut(strings.TrimRight(string(lines[i]), "\r\n"), ":")
		_, extra, more := strings.Cut(rest, ":")
		if more {
			extra = ":" + extra
		}
		lines[i] = []byte(name + ":" + field + extra + "\n")
		return lines, nil
	})
}

// Remove takes a user out of the file, with the APOP secret. The mailbox stays where it is. Error:
// ErrUnknown.
func (s *Store) Remove(ctx context.Context, a relay.Address) error {
	if err := s.RemoveAPOP(ctx, a); err != nil && !errors.Is(err, ErrUnknown) {
		return err
	}
	return s.file().edit(ctx, "remove", a, func(lines [][]byte, found []int) ([][]byte, error) {
		if len(found) == 0 {
			return nil, ErrUnknown
		}
		return without(lines, found), nil
	})
}

func (s *Store) newField(password, scheme string) (string, error) {
	if err := checkPassword(password); err != nil {
		return "", err
	}
	if scheme == SchemeScram {
		return hashScram(password, s.iterations)
	}
	return hashPassword(opaque(password), s.params), nil
}

func (s *Store) file() passwdFile { return passwdFile{s.path} }

// header is the first line of a file that we begin. It keeps the file from ever being empty.
const header = "# Users of relayd, one a line: name:{SCHEME}hash. Edit with `relayctl user`, or by hand.\n"

// passwdFile is a file of such lines at path: the users, or their APOP secrets.
type passwdFile struct{ path string }

// edit changes the file under its lock. change gets the lines, each with its end, and the indices
// of those that name a; a nil line is left out.
func (f passwdFile) edit(ctx context.Context, verb string, a relay.Address, change func([][]byte, []int) ([][]byte, error)) error {
	a = Normalize(a)
	err := f.locked(ctx, func() error {
		data, err := readAll(f.path)
		if errors.Is(err, fs.ErrNotExist) {
			data, err = []byte(header), nil
		}
		if err != nil {
			return err
		}
		lines, found := split(data, a)
		if lines, err = change(lines, found); err != nil {
			return err
		}
		data = bytes.Join(lines, nil)
		if len(data) == 0 {
			data = []byte(header)
		}
		return f.replace(data)
	})
	if err != nil {
		return fmt.Errorf("users: %s %s: %w", verb, a, err)
	}
	return nil
}

// split divides the file into lines, all with an end, and says which of them name a.
func split(data []byte, a relay.Address) (lines [][]byte, found []int) {
	for line := range bytes.Lines(data) {
		line = bytes.Clone(line)
		if !bytes.HasSuffix(line, []byte("\n")) {
			line = append(line, '\n')
		}
		if u, _ := parseLine(string(line)); u != nil && u.address == a {
			found = append(found, len(lines))
		}
		lines = append(lines, line)
	}
	return lines, found
}

// locked runs f while nobody else edits the file. The lock lies beside the file, because the file
// itself is replaced.
func (f passwdFile) locked(ctx context.Context, do func() error) error {
	lock, err := os.OpenFile(f.path+".lock", os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close() // gives up the lock
	_ = f.own(lock)    // fails where it is another's already, who then let us open it
	for {
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return do()
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("flock", err)
		}
		if !relay.Sleep(ctx, 10*time.Millisecond) {
			return fmt.Errorf("somebody else is editing the file: %w", ctx.Err())
		}
	}
}

// replace puts data in the place of the file so that a crash leaves the old or the new one whole.
func (f passwdFile) replace(data []byte) error {
	temp := f.path + ".new"
	// The lock is ours: what lies there was left by a crash.
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := f.write(temp, data); err != nil {
		os.Remove(temp)
		return err
	}
	if err := os.Rename(temp, f.path); err != nil {
		os.Remove(temp)
		return err
	}
	dir, err := os.Open(filepath.Dir(f.path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

func (f passwdFile) write(name string, data []byte) error {
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := file.Write(data); err != nil {
		return err
	}
	if err := f.own(file); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	return file.Close()
}

// own gives a new file the owner and the mode of the users file, or else the owner of its folder:
// root may run relayctl while the daemon, which must read the file, does not run as root. Nobody
// but owner and group ever gets to read it.
func (f passwdFile) own(file *os.File) error {
	mode := fs.FileMode(0o600)
	info, err := os.Stat(f.path)
	if err == nil {
		mode = info.Mode().Perm()&0o640 | 0o600
	} else if info, err = os.Stat(filepath.Dir(f.path)); err != nil {
		return err
	}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
		if err := file.Chown(int(sys.Uid), int(sys.Gid)); err != nil {
			return err
		}
	}
	return file.Chmod(mode)
}
