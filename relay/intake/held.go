package intake

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// heldSize is how much of a body is kept in memory; most letters fit, and a thousand clients at
// once take 64 MiB.
const heldSize = 64 << 10

// heldBody keeps a body until it is known what becomes of it: what does not fit into memory goes into
// a file without a name, which is gone with us.
type heldBody struct {
	dir  string
	pool *sync.Pool // of *[]byte
	mem  *[]byte
	file *os.File
	over int64 // octets in file
}

// fill reads body to its end and shows every octet to tee.
func (s *heldBody) fill(body io.Reader, tee io.Writer) error {
	s.mem = s.pool.Get().(*[]byte)
	mem := (*s.mem)[:0]
	for {
		if len(mem) == cap(mem) {
			*s.mem = mem
			return s.overflow(body, tee)
		}
		n, err := body.Read(mem[len(mem):cap(mem)])
		tee.Write(mem[len(mem) : len(mem)+n])
		mem = mem[:len(mem)+n]
		*s.mem = mem
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// overflow takes the rest into the file.
func (s *heldBody) overflow(body io.Reader, tee io.Writer) (err error) {
	if s.file, err = nameless(s.dir); err != nil {
		return fmt.Errorf("intake: held body: %w", err)
	}
	buf := s.pool.Get().(*[]byte)
	defer s.pool.Put(buf)
	s.over, err = io.CopyBuffer(writerOnly{io.MultiWriter(s.file, tee)}, readerOnly{body}, (*buf)[:cap(*buf)])
	return err
}

// nameless makes a file that has no name, or loses it at once where the file system cannot do that.
func nameless(dir string) (*os.File, error) {
	f, err := os.OpenFile(dir, unix.O_TMPFILE|os.O_RDWR, 0o600)
	if err == nil {
		return f, nil
	}
	f, err2 := os.CreateTemp(dir, "held-*")
	if err2 != nil {
		return nil, errors.Join(err, err2)
	}
	return f, os.Remove(f.Name())
}

// size is that of the body, in octets.
func (s *heldBody) size() int64 {
	if s.mem == nil {
		return 0
	}
	return int64(len(*s.mem)) + s.over
}

// reader gives the body back; several may read at a time.
func (s *heldBody) reader() io.Reader {
	switch {
	case s.mem == nil:
		return bytes.NewReader(nil)
	case s.file == nil:
		return bytes.NewReader(*s.mem)
	}
	return io.MultiReader(bytes.NewReader(*s.mem), io.NewSectionReader(s.file, 0, s.over))
}

func (s *heldBody) close() {
	if s.mem != nil {
		s.pool.Put(s.mem)
		s.mem = nil
	}
	if s.file != nil {
		s.file.Close()
		s.file = nil
	}
}
