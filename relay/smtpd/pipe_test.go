package smtpd_test

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// countingConn measures writes and has a client's address.
type countingConn struct {
	net.Conn
	remote net.Addr
	writes atomic.Int64
	most   atomic.Int64 // octets in one write
}

func (c *countingConn) Write(b []byte) (int, error) {
	c.writes.Add(1)
	c.most.Store(max(c.most.Load(), int64(len(b))))
	return c.Conn.Write(b)
}

func (c *countingConn) RemoteAddr() net.Addr { return c.remote }

// buffered gives a pipe the one thing sockets have and it lacks: a write does not wait for the
// reader.
func buffered(t testing.TB, c net.Conn) net.Conn {
	b := &bufferedConn{Conn: c}
	b.cond.L = &b.mu
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.run()
	}()
	t.Cleanup(func() {
		b.Close()
		c.Close()
		<-done
	})
	return b
}

type bufferedConn struct {
	net.Conn
	mu     sync.Mutex
	cond   sync.Cond
	queue  []byte
	err    error
	closed bool
}

func (b *bufferedConn) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return 0, b.err
	}
	b.queue = append(b.queue, p...)
	b.cond.Signal()
	return len(p), nil
}

func (b *bufferedConn) run() {
	for {
		b.mu.Lock()
		for len(b.queue) == 0 && !b.closed {
			b.cond.Wait()
		}
		out := b.queue
		b.queue = nil
		b.mu.Unlock()
		if len(out) == 0 {
			b.Conn.Close()
			return
		}
		if _, err := b.Conn.Write(out); err != nil {
			b.mu.Lock()
			b.err, b.closed = err, true
			b.mu.Unlock()
		}
	}
}

// Close ends the connection once what was written has been taken, or at once when nobody takes it.
func (b *bufferedConn) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.cond.Signal()
	return nil
}
