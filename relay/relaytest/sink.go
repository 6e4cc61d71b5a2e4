package relaytest

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
)

// Sink is a mail host that takes every letter, keeps none and counts them, at as little cost as can be:
// what a benchmark measures is the server that sends them. MXServer is for tests.
type Sink struct {
	listener net.Listener
	count    atomic.Int64
	news     chan struct{} // there may be a letter more
	done     sync.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]bool
	closed bool
}

// NewSink listens on addr. Close ends it.
func NewSink(addr string) (*Sink, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("relaytest: %w", err)
	}
	s := &Sink{listener: l, news: make(chan struct{}, 1), conns: map[net.Conn]bool{}}
	s.done.Go(s.accept)
	return s, nil
}

// Count is how many letters have come.
func (s *Sink) Count() int { return int(s.count.Load()) }

// Wait returns when n letters in all have come. One may wait at a time.
func (s *Sink) Wait(ctx context.Context, n int) error {
	for s.Count() < n {
		select {
		case <-s.news:
		case <-ctx.Done():
			return fmt.Errorf("relaytest: %d letters of %d: %w", s.Count(), n, ctx.Err())
		}
	}
	return nil
}

// Close hangs up and waits for the sessions.
func (s *Sink) Close() error {
	err := s.listener.Close()
	s.mu.Lock()
	s.closed = true
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	s.done.Wait()
	return err
}

func (s *Sink) accept() {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		if s.closed {
			c.Close()
		}
		s.conns[c] = true
		s.mu.Unlock()
		s.done.Go(func() {
			s.session(c)
			c.Close()
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.conns, c)
		})
	}
}

var sinkReplies = map[string]string{
	"EHLO": "250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-SIZE 0\r\n250 ENHANCEDSTATUSCODES\r\n",
	"DATA": "354 go ahead\r\n",
	"QUIT": "221 2.0.0 bye\r\n",
}

// session answers what has been pipelined in one write.
func (s *Sink) session(c net.Conn) {
	r := bufio.NewReaderSize(c, 32<<10)
	out := []byte("220 sink ESMTP\r\n")
	for {
		if r.Buffered() == 0 {
			if _, err := c.Write(out); err != nil {
				return
			}
			out = out[:0]
		}
		line, err := r.ReadSlice('\n')
		if err != nil {
			return
		}
		verb := string(bytes.ToUpper(line[:min(len(line), 4)]))
		reply, ok := sinkReplies[verb]
		if !ok {
			reply = "250 2.0.0 ok\r\n"
		}
		out = append(out, reply...)
		switch verb {
		case "QUIT":
			c.Write(out)
			return
		case "DATA":
			if _, err := c.Write(out); err != nil || skipText(r) != nil {
				return
			}
			out = append(out[:0], "250 2.0.0 taken\r\n"...)
			s.count.Add(1)
			select {
			case s.news <- struct{}{}:
			default:
			}
		}
	}
}

var textEnd = []byte("\r\n.\r\n")

// skipText reads until CRLF.CRLF.
func skipText(r *bufio.Reader) error {
	last := slices.Clone(textEnd[:2]) // a letter without text is a dot on the first line
	for {
		if _, err := r.Peek(1); err != nil {
			return err
		}
		chunk, _ := r.Peek(r.Buffered())
		// The end may lie across two chunks.
		seam := append(last, chunk[:min(len(chunk), len(textEnd)-1)]...)
		if i := bytes.Index(seam, textEnd); i >= 0 {
			_, err := r.Discard(i + len(textEnd) - len(last))
			return err
		}
		if i := bytes.Index(chunk, textEnd); i >= 0 {
			_, err := r.Discard(i + len(textEnd))
			return err
		}
		all := append(last, chunk[max(0, len(chunk)-len(textEnd)+1):]...)
		last = slices.Clone(all[max(0, len(all)-len(textEnd)+1):])
		if _, err := r.Discard(len(chunk)); err != nil {
			return err
		}
	}
}
