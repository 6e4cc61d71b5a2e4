package listen_test

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"relayd/relay/listen"
)

func pair(t *testing.T) (client *net.TCPConn, server net.Conn, ln *net.TCPListener) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return c.(*net.TCPConn), s, l.(*net.TCPListener)
}

// wrapped is a connection that counts, as relay/admin's.
type wrapped struct{ net.Conn }

func (w wrapped) NetConn() net.Conn { return w.Conn }

// The last words arrive although the client has sent more than was read.
func TestLinger(t *testing.T) {
	t.Parallel()
	client, server, _ := pair(t)
	client.Write(make([]byte, 100<<10))
	io.WriteString(server, "goodbye")
	go func() {
		listen.Linger(wrapped{server}, make([]byte, 4096))
		server.Close()
	}()
	client.CloseWrite()
	if got, err := io.ReadAll(client); err != nil || string(got) != "goodbye" {
		t.Errorf("the client got %q, %v", got, err)
	}
}

// Whoever goes on talking is not listened to for long.
func TestLingerIsBounded(t *testing.T) {
	t.Parallel()
	client, server, _ := pair(t)
	go func() {
		for {
			if _, err := client.Write(make([]byte, 1<<16)); err != nil {
				return
			}
		}
	}()
	start := time.Now()
	listen.Linger(server, make([]byte, 4096))
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	server.Close()
	a, b := net.Pipe()
	defer a.Close()
	listen.Linger(b, make([]byte, 1)) // has no halves
	b.Close()
}

// Out of descriptors one connection is taken; for other errors and from an empty backlog none.
func TestSpare(t *testing.T) {
	t.Parallel()
	_, _, ln := pair(t)
	emfile := &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	waiting, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	spare := listen.NewSpare()
	defer spare.Close()
	taken := 0
	take := func(c net.Conn) { taken++; c.Close() }
	spare.Spend(errors.New("another error"), ln, take)
	if taken != 0 {
		t.Error("another error took a connection")
	}
	spare.Spend(emfile, ln, take)
	if taken != 1 {
		t.Error("no connection was taken")
	}
	spare.Spend(emfile, ln, take)
	if taken != 1 {
		t.Error("a connection came from nowhere")
	}
	again, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if c, err := ln.Accept(); err != nil {
		t.Errorf("the listener does not accept any more: %v", err)
	} else {
		c.Close()
	}
	// A spare that somebody else was quicker to take comes back.
	spare.Close()
	last, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer last.Close()
	if spare.Spend(emfile, ln, take); taken != 2 {
		t.Error("the spare did not come back")
	}
}
