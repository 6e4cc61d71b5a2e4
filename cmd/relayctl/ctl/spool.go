package ctl

import (
	"io"
	"os"
	"sync"
)

// spool is a writer that never waits for the one behind it. What that one has not taken yet is kept
// in memory up to a bound, and in a temporary file without a name beyond it.
type spool struct {
	out  io.Writer
	done chan struct{}

	mu     sync.Mutex
	more   sync.Cond
	mem    []byte
	file   *os.File // behind mem; nil: all is in mem
	from   int64    // of file, to be written next
	to     int64
	closed bool
	err    error
}

// spoolMemory is how much is kept in memory: the table of a queue of some ten thousand.
const spoolMemory = 2 << 20

// newSpool writes to out until close.
func newSpool(out io.Writer) *spool {
	s := &spool{out: out, done: make(chan struct{})}
	s.more.L = &s.mu
	go s.drain()
	return s
}

// Write keeps p. The error is that of an earlier write to out, or of the temporary file.
func (s *spool) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.more.Signal()
	if s.err == nil && s.file == nil && len(s.mem)+len(p) > spoolMemory {
		s.file, s.err = unnamedFile()
	}
	switch {
	case s.err != nil:
		return 0, s.err
	case s.file == nil:
		s.mem = append(s.mem, p...)
		return len(p), nil
	}
	n, err := s.file.WriteAt(p, s.to)
	s.to += int64(n)
	s.err = err
	return n, err
}

// close waits until out has taken everything.
func (s *spool) close() error {
	s.mu.Lock()
	s.closed = true
	s.more.Signal()
	s.mu.Unlock()
	<-s.done
	if s.file != nil {
		s.file.Close()
	}
	return s.err
}

func (s *spool) drain() {
	defer close(s.done)
	var piece []byte
	for {
		piece = s.next(piece[:0])
		if len(piece) == 0 {
			return
		}
		if _, err := s.out.Write(piece); err != nil {
			s.mu.Lock()
			s.err = err
			s.mu.Unlock()
			return
		}
	}
}

// next waits for something to write; nothing at the end. buf may be used for it.
func (s *spool) next(buf []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.mem) == 0 && s.from == s.to && !s.closed && s.err == nil {
		s.more.Wait()
	}
	if len(s.mem) > 0 {
		buf, s.mem = s.mem, buf
		return buf
	}
	if s.from == s.to {
		return nil
	}
	buf = append(buf, make([]byte, min(s.to-s.from, 64<<10))...)
	n, err := s.file.ReadAt(buf, s.from)
	if s.from += int64(n); n < len(buf) {
		s.err = err
	}
	return buf[:n]
}

// unnamedFile makes a file that is gone when it is closed, also by a kill.
func unnamedFile() (*os.File, error) {
	f, err := os.CreateTemp("", "relayctl-*")
	if err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
}
