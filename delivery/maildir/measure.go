package maildir

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// openRegular opens a letter for reading. Symbolic links are not followed, and a pipe that somebody
// put there does not make us wait for its writer.
func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: path, Err: errors.New("not a regular file")}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// measure reads a letter to learn how many octets RETR sends of it: every lone LF becomes CRLF,
// and a last line without an end gets one.
func measure(path string) (int64, error) {
	f, err := openRegular(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	var octets int64
	var last byte = '\n'
	for {
		n, err := f.Read((*buf)[:bufferSize])
		if n > 0 {
			p := (*buf)[:n]
			octets += int64(n) + loneLF(p, last)
			last = p[n-1]
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, err
		}
	}
	if last != '\n' {
		octets += 2
	}
	return octets, nil
}
