// Package drop is how a program on this machine hands over a letter without a network: the
// sendmail of old. `relayctl sendmail` writes an Order and the letter behind it, to the control
// socket while relayd runs and it may, and otherwise with Write into the drop directory, which
// the daemon's Collector empties at its start and every few seconds.
//
// An order is one line of JSON, the letter follows as the program wrote it. A directory of mode
// 1733 that belongs to the daemon lets every user of the machine drop letters and nobody read the
// others' names; one of 0700 only root and the daemon's user.
package drop

import (
	"bufio"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Order says where a letter goes. Addresses are text: the daemon checks them and gives a domain
// to a name without one.
type Order struct {
	From  string   `json:"from"` // "" is whoever runs the program, "<>" the null path
	Rcpts []string `json:"rcpts"`
	// Name is the full name for a letter without a From field, which Unsigned says it is.
	Name     string `json:"name,omitempty"`
	Unsigned bool   `json:"unsigned,omitempty"`
	// UID is who ran the program. It is believed where only root and the daemon can have written
	// it; otherwise who owns the file counts.
	UID int `json:"uid"`
}

// Bounds of an Order.
const (
	MaxRcpts = 10_000
	maxOrder = 4 << 20 // octets of its line
)

// ErrMalformed: what was read is no Order.
var ErrMalformed = errors.New("not a letter that was dropped here")

// Encode writes the line in front of the letter.
func (o Order) Encode() ([]byte, error) {
	line, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("drop: %w", err)
	}
	return append(line, '\n'), nil
}

// Read reads an Order; what r gives after it is the letter. The error is ErrMalformed or r's.
func Read(r *bufio.Reader) (Order, error) {
	var o Order
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > maxOrder:
			return o, fmt.Errorf("drop: %w: its first line is endless", ErrMalformed)
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF):
			return o, fmt.Errorf("drop: %w: it has no first line", ErrMalformed)
		case err != nil:
			return o, fmt.Errorf("drop: %w", err)
		}
		break
	}
	if err := json.Unmarshal(line, &o); err != nil {
		return o, fmt.Errorf("drop: %w: %w", ErrMalformed, err)
	}
	if len(o.Rcpts) == 0 || len(o.Rcpts) > MaxRcpts {
		return o, fmt.Errorf("drop: %w: %d recipients", ErrMalformed, len(o.Rcpts))
	}
	return o, nil
}

// suffix tells letters from what is being written.
const suffix = ".letter"

// Write leaves a letter in dir. When it returns nil a power cut loses none of it.
func Write(dir string, o Order, letter io.Reader) (err error) {
	line, err := o.Encode()
	if err != nil {
		return err
	}
	name := strings.ToLower(rand.Text())
	tmp := filepath.Join(dir, "."+name)
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("drop: %w", err)
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if err != nil {
			os.Remove(tmp)
		}
	}()
	if err := readable(dir, f); err != nil {
		return fmt.Errorf("drop: %w", err)
	}
	if _, err := f.Write(line); err != nil {
		return fmt.Errorf("drop: %w", err)
	}
	if _, err := io.Copy(f, letter); err != nil {
		return fmt.Errorf("drop: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("drop: %w", err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, name+suffix)); err != nil {
		return fmt.Errorf("drop: %w", err)
	}
	// The directory may be one we cannot open to sync it, so the whole file system is.
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("drop: %w", err)
	}
	return nil
}

// readable lets the owner of dir, the daemon, read f: root gives it the file, and everybody else
// relies on a name that nobody can list or guess.
func readable(dir string, f *os.File) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	owner := info.Sys().(*syscall.Stat_t)
	switch os.Geteuid() {
	case int(owner.Uid):
		return nil
	case 0:
		return f.Chown(int(owner.Uid), int(owner.Gid))
	}
	return f.Chmod(0o644)
}

// MakeDir makes the directory if it is missing, for the daemon and root alone. Root gives it to the
// owner of its parent.
func MakeDir(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("drop: %w", err)
	}
	info, err := os.Stat(filepath.Dir(dir))
	if err != nil || os.Geteuid() != 0 {
		return err
	}
	owner := info.Sys().(*syscall.Stat_t)
	return os.Chown(dir, int(owner.Uid), int(owner.Gid))
}
