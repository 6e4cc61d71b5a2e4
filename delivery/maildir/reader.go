package maildir

import (
	"errors"
	"io"
	"io/fs"

	"golang.org/x/sys/unix"
)

// reader is a letter that is open. It is a bare descriptor: collecting a mailbox opens thousands,
// and os.File makes seven system calls of what takes four.
type reader struct {
	fd   int   // -1 once closed
	left int64 // octets from here to the end that the file had when it was opened
}

// openRegular opens a letter for reading. Symbolic links are not followed, and a pipe that somebody
// put there does not make us wait for its writer.
func openRegular(path string) (*reader, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	for errors.Is(err, unix.EINTR) {
		fd, err = unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = errors.New("not a regular file")
	}
	if err != nil {
		unix.Close(fd)
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return &reader{fd, st.Size}, nil
}

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	switch {
	case r.fd < 0:
		return 0, fs.ErrClosed
	case r.left == 0:
		return 0, io.EOF
	case len(p) == 0:
		return 0, nil
	}
	n, err := unix.Read(r.fd, p)
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Read(r.fd, p)
	}
	switch {
	case err != nil:
		return 0, &fs.PathError{Op: "read", Path: "a letter", Err: err}
	case n == 0: // somebody has cut it
		r.left = 0
		return 0, io.EOF
	}
	r.left = max(r.left-int64(n), 0)
	return n, nil
}

// Close implements io.Closer.
func (r *reader) Close() error {
	if r.fd < 0 {
		return fs.ErrClosed
	}
	err := unix.Close(r.fd)
	r.fd = -1
	return err
}
