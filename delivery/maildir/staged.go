package maildir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"relayd/relay"
	"relayd/relay/durable"
)

// bufferSize is how much of a letter is gathered before it is written; most letters fit whole.
const bufferSize = 32 << 10

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, bufferSize); return &b }}

// Mistakes of a caller.
var (
	errClosed      = errors.New("maildir: the letter has been committed or aborted")
	errNoMailboxes = errors.New("maildir: the envelope names no mailbox")
)

// Staged is one letter on its way into one or more mailboxes. It belongs to one goroutine.
type Staged struct {
	store  *Store
	id     relay.ID
	unique string
	boxes  []*box

	file *os.File // in tmp/ of the first mailbox
	tmp  string   // its path; empty once it is renamed
	buf  *[]byte
	err  error // the first error of Write

	behind durable.Behind

	size int64    // octets on disk
	bare int64    // line ends on disk that RETR sends as CRLF
	cr   bool     // the last octet written was a CR that may belong to a CRLF
	last byte     // the last octet on disk
	out  []string // the names in new/, once committed
}

// Stage implements relay.Stager: it opens the letter in tmp/ of the first mailbox of env.Rcpts.
// Mailboxes that are named twice get the letter once. Errors are *relay.Failure.
func (s *Store) Stage(_ context.Context, env relay.Envelope) (relay.Staged, error) {
	st := &Staged{store: s, id: env.ID}
	seen := map[*box]bool{}
	for _, r := range env.Rcpts {
		folder := ""
		if env.Junk || r.Junk {
			folder = junkDir
		}
		if b := s.folder(r.Mailbox, folder); !r.Mailbox.IsNull() && !seen[b] {
			seen[b] = true
			st.boxes = append(st.boxes, b)
		}
	}
	if len(st.boxes) == 0 {
		return nil, failure("stage", errNoMailboxes)
	}
	accepted := env.Accepted
	if accepted.IsZero() {
		accepted = time.Now()
	}
	st.unique = uniquePart(env.ID, accepted, s.host)
	b := st.boxes[0]
	st.tmp = filepath.Join(b.dir, "tmp", st.unique)
	err := s.retryMissing(b, func() (err error) {
		st.file, err = os.OpenFile(st.tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		return err
	})
	if err != nil {
		return nil, failure("stage", err)
	}
	st.buf = buffers.Get().(*[]byte)
	return st, nil
}

// Write takes the letter with CRLF line ends and keeps it with LF.
func (st *Staged) Write(p []byte) (int, error) {
	if st.buf == nil {
		return 0, errClosed
	}
	total := len(p)
	if st.cr && total > 0 {
		st.cr = false
		if p[0] != '\n' {
			st.put([]byte{'\r'})
		}
	}
	for len(p) > 0 && st.err == nil {
		i := bytes.IndexByte(p, '\r')
		if i < 0 {
			st.put(p)
			break
		}
		st.put(p[:i])
		if p = p[i+1:]; len(p) == 0 {
			st.cr = true
		} else if p[0] != '\n' {
			st.put([]byte{'\r'})
		}
	}
	if st.err != nil {
		return 0, failure("write", st.err)
	}
	return total, nil
}

// put buffers octets as they will stand on disk and counts them.
func (st *Staged) put(p []byte) {
	if len(p) == 0 {
		return
	}
	st.bare += loneLF(p, st.last)
	st.size += int64(len(p))
	st.last = p[len(p)-1]
	for len(p) > 0 && st.err == nil {
		n := copy((*st.buf)[len(*st.buf):bufferSize], p)
		*st.buf, p = (*st.buf)[:len(*st.buf)+n], p[n:]
		if len(*st.buf) == bufferSize {
			st.drain()
		}
	}
}

// loneLF counts the LF of p that have no CR before them; last is the octet before p.
func loneLF(p []byte, last byte) int64 {
	n := bytes.Count(p, []byte{'\n'})
	if p[0] == '\n' && last == '\r' {
		n--
	}
	return int64(n - bytes.Count(p, []byte("\r\n")))
}

func (st *Staged) drain() {
	if st.err == nil && len(*st.buf) > 0 {
		if _, st.err = st.file.Write(*st.buf); st.err == nil {
			st.err = st.behind.Wrote(st.file, len(*st.buf))
		}
	}
	*st.buf = (*st.buf)[:0]
}

// Commit implements relay.Staged: when it returns nil the letter stands in new/ of every mailbox
// and no crash loses it. After an error it stands in none. Errors are *relay.Failure.
func (st *Staged) Commit(ctx context.Context) error {
	if st.buf == nil {
		return errClosed
	}
	st.finish()
	err := st.err
	if err == nil {
		err = st.publish(ctx)
	}
	if err != nil {
		st.Abort()
		return failure("commit "+string(st.id), err)
	}
	st.file.Close()
	st.file = nil
	return nil
}

// finish writes what is buffered. A letter without a final line end (BDAT allows it) gets one:
// POP3 and every mailbox format would add it on the way out, and S= and W= must say what they send.
func (st *Staged) finish() {
	if st.cr {
		st.put([]byte{'\r'})
	}
	if st.size > 0 && st.last != '\n' {
		st.put([]byte{'\n'})
	}
	st.drain()
	st.release()
}

func (st *Staged) release() {
	if st.buf != nil {
		*st.buf = (*st.buf)[:0]
		buffers.Put(st.buf)
		st.buf = nil
	}
}

// publish gives the letter its names and makes them durable.
func (st *Staged) publish(ctx context.Context) error {
	st.store.step("maildir: written")
	file := st.unique + sizePart(st.size, st.size+st.bare)
	w := durable.Write{Files: []*os.File{st.file}}
	debts := make([]debt, len(st.boxes))
	// The first mailbox comes last: until then tmp/ holds the name that the others link to.
	for i := len(st.boxes) - 1; i >= 0; i-- {
		b := st.boxes[i]
		place := st.link
		if i == 0 {
			place = st.rename
		}
		to := filepath.Join(b.dir, "new", file)
		if err := st.store.retryMissing(b, func() error { return place(to) }); err != nil {
			return err
		}
		st.out = append(st.out, to)
		st.store.step("maildir: named")
		debts[i] = b.owes()
		w.Dirs = append(append(w.Dirs, filepath.Dir(to)), debts[i].dirs...)
		if debts[i].foreign {
			if err := st.syncForeign(i == 0, filepath.Dir(to), debts[i]); err != nil {
				return err
			}
		}
	}
	if err := st.store.flush.Flush(ctx, w); err != nil {
		return err
	}
	st.store.step("maildir: flushed")
	for i, b := range st.boxes {
		b.paid(debts[i])
	}
	return nil
}

// rename moves the letter to its final name.
func (st *Staged) rename(to string) error {
	if err := renameNew(st.tmp, to); err != nil {
		return err
	}
	st.tmp = ""
	return nil
}

// renameNew renames a file, never over another one.
func renameNew(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		// Some network file systems cannot do it; link(2) refuses an existing name everywhere.
		if err = os.Link(from, to); err == nil {
			err = os.Remove(from)
		}
	}
	if err == nil {
		return nil
	}
	return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
}

// link gives the letter a further name, or copies it where the file system has no links, has no
// more of them, or is another one.
func (st *Staged) link(to string) error {
	err := os.Link(st.tmp, to)
	if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EMLINK) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EOPNOTSUPP) {
		return st.copy(to)
	}
	return err
}

// copy writes the letter once more, by way of tmp/ beside to, and flushes it itself.
func (st *Staged) copy(to string) (err error) {
	from, err := os.Open(st.tmp)
	if err != nil {
		return err
	}
	defer from.Close()
	tmp := filepath.Join(filepath.Dir(filepath.Dir(to)), "tmp", st.unique)
	out, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(tmp)
	defer out.Close()
	if _, err := io.Copy(out, from); err != nil {
		return err
	}
	if err := out.Sync(); err != nil {
		return err
	}
	return os.Link(tmp, to)
}

// syncForeign flushes what the shared flush cannot reach.
func (st *Staged) syncForeign(first bool, dir string, d debt) error {
	if first {
		if err := st.file.Sync(); err != nil {
			return err
		}
	}
	for _, dir := range append([]string{dir}, d.dirs...) {
		if err := syncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// Abort implements relay.Staged. After a Commit it removes the letter from every new/ in which no
// reader has moved it yet.
func (st *Staged) Abort() error {
	st.release()
	if st.file != nil {
		st.file.Close()
		st.file = nil
	}
	var errs []error
	for _, path := range append(st.out, st.tmp) {
		if path == "" {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("maildir: abort %s: %w", st.id, err))
		}
	}
	st.out, st.tmp = nil, ""
	return errors.Join(errs...)
}
