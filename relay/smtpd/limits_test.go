package smtpd_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"relayd/relay/smtpd"
)

// bubble runs a test in fake time against a server on pipes.
func bubble(t *testing.T, name string, limits smtpd.Limits, run func(t *testing.T, s subject)) {
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := guarded(t, limits)
			s.slow()
			run(t, s)
		})
	})
}

// took wants the rest of the session to last about as long as said.
func took(t *testing.T, start time.Time, want time.Duration) {
	t.Helper()
	if d := time.Since(start); d < want || d > want+2*time.Second {
		t.Errorf("it took %v, want %v", d, want)
	}
}

func TestTimeouts(t *testing.T) {
	bubble(t, "idle", smtpd.Limits{}, func(t *testing.T, s subject) {
		c := s.dial(t)
		c.want("220*")
		start := time.Now()
		c.want("421 4.4.2 *", "EOF")
		took(t, start, 5*time.Minute)
	})
	bubble(t, "trickled command", smtpd.Limits{CommandTimeout: time.Minute}, func(t *testing.T, s subject) {
		c := s.dial(t)
		c.want("220*")
		start := time.Now()
		stop := trickle(c.conn, "x", 10*time.Second)
		defer stop()
		c.want("421 4.4.2 *", "EOF")
		took(t, start, time.Minute)
	})
	bubble(t, "session", smtpd.Limits{SessionTimeout: time.Hour}, func(t *testing.T, s subject) {
		c := s.dial(t)
		c.want("220*")
		start := time.Now()
		stop := trickle(c.conn, "NOOP\r\n", time.Minute)
		defer stop()
		for got := c.reply(); got != "421 4.4.2 I waited too long for you, closing"; got = c.reply() {
			if got != "250 2.0.0 ok" {
				t.Fatal(got)
			}
		}
		took(t, start, time.Hour)
	})
	bubble(t, "transaction", smtpd.Limits{TransactionTimeout: 10 * time.Minute}, func(t *testing.T, s subject) {
		c := s.dial(t)
		c.begin()
		start := time.Now()
		stop := trickle(c.conn, "NOOP\r\n", time.Minute)
		defer stop()
		for got := c.reply(); !match("421 4.4.2*", got); got = c.reply() {
			if got != "250 2.0.0 ok" {
				t.Fatal(got)
			}
		}
		took(t, start, 10*time.Minute)
	})
	bubble(t, "silence in a letter", smtpd.Limits{DataTimeout: time.Minute}, func(t *testing.T, s subject) {
		c := s.dial(t)
		c.begin()
		c.do("DATA", "354*")
		start := time.Now()
		c.want("421 4.4.2 *", "EOF")
		took(t, start, time.Minute)
	})
	bubble(t, "session in a letter", smtpd.Limits{SessionTimeout: time.Hour, MinRate: -1}, func(t *testing.T, s subject) {
		c := s.dial(t)
		c.begin()
		c.do("DATA", "354*")
		start := time.Now()
		stop := trickle(c.conn, "x", time.Minute)
		defer stop()
		c.want("421 4.4.2 *", "EOF")
		took(t, start, time.Hour)
	})
	bubble(t, "transaction in a letter", smtpd.Limits{TransactionTimeout: time.Hour, MinRate: -1}, func(t *testing.T, s subject) {
		c := s.dial(t)
		c.begin()
		c.do("DATA", "354*")
		start := time.Now()
		stop := trickle(c.conn, "x", time.Minute)
		defer stop()
		c.want("421 4.4.2 *", "EOF")
		took(t, start, time.Hour)
	})
	bubble(t, "silence in a chunk", smtpd.Limits{DataTimeout: time.Minute}, func(t *testing.T, s subject) {
		c := s.dial(t)
		c.begin()
		start := time.Now()
		c.send("BDAT 100 LAST\r\nabc")
		c.want("421 4.4.2 *", "EOF")
		took(t, start, time.Minute)
	})
	bubble(t, "silence between chunks", smtpd.Limits{CommandTimeout: time.Minute}, func(t *testing.T, s subject) {
		c := s.dial(t)
		c.begin()
		start := time.Now()
		c.send("BDAT 1\r\na")
		c.want("250*", "421 4.4.2 *", "EOF")
		took(t, start, time.Minute)
	})
	bubble(t, "a client that never reads", smtpd.Limits{CommandTimeout: time.Minute}, func(t *testing.T, s subject) {
		c := config(&office{})
		c.Gate = smtpd.NewGate()
		c.Limits = smtpd.Limits{CommandTimeout: time.Minute}
		ln := servePipes(t, c)
		near, far := net.Pipe()
		defer near.Close()
		ln.conns <- far
		synctest.Wait()
		time.Sleep(59 * time.Second) // it cannot even write its greeting
		if c.Gate.Count() != 1 {
			t.Error("the session ended early")
		}
		time.Sleep(2 * time.Second)
		if c.Gate.Count() != 0 {
			t.Error("the session goes on")
		}
	})
}

func trickle(w io.Writer, s string, every time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			time.Sleep(every)
			if _, err := io.WriteString(w, s); err != nil {
				return
			}
		}
	}()
	return func() { cancel(); <-done }
}

// A letter has DataTimeout in hand; beyond that it keeps up the minimum rate or goes.
func TestMinimumRate(t *testing.T) {
	limits := smtpd.Limits{DataTimeout: time.Minute, MinRate: 100}
	bubble(t, "too slow", limits, func(t *testing.T, s subject) {
		c := s.dial(t)
		c.begin()
		c.do("DATA", "354*")
		start := time.Now()
		stop := trickle(c.conn, strings.Repeat("x", 598)+"\r\n", 10*time.Second) // 60 a second
		defer stop()
		c.want("421 4.4.2 *", "EOF")
		took(t, start, 138*time.Second) // 13 pieces of 600 octets by then, good for 60 s + 78 s
	})
	bubble(t, "fast enough", limits, func(t *testing.T, s subject) {
		c := s.dial(t)
		c.begin()
		c.do("DATA", "354*")
		stop := trickle(c.conn, strings.Repeat("x", 1498)+"\r\n", 10*time.Second)
		time.Sleep(time.Hour)
		stop()
		c.do(".", "250*")
	})
}

func TestHandshakeTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := config(&office{})
		c.ImplicitTLS = true
		ln := servePipes(t, c)
		client := pipeClient(t, ln, time.Hour)
		start := time.Now()
		client.want("EOF")
		took(t, start, time.Minute)
	})
}

func TestImplicitTLS(t *testing.T) {
	t.Parallel()
	c := config(&office{})
	c.ImplicitTLS, c.Service = true, "submissions"
	_, addr := listen(t, c)
	cl := dial(t, addr)
	cl.useTLS()
	cl.want("220*")
	cl.do("EHLO c.example", "250-*\n250 AUTH PLAIN LOGIN")
	cl.do("QUIT", "221*")
}

func TestGate(t *testing.T) {
	t.Parallel()
	o := &office{}
	c := config(o)
	c.Gate = smtpd.NewGate()
	c.Limits = smtpd.Limits{Connections: 3, ConnectionsPerAddress: 2}
	smtp, submission := servePipes(t, c), servePipes(t, c)
	from := func(ln *pipes, addr string) *client {
		near, far := net.Pipe()
		t.Cleanup(func() { near.Close() })
		ln.conns <- &countingConn{Conn: far, remote: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(addr))}
		return newClient(t, buffered(t, near))
	}
	a := from(smtp, "[2001:db8:0:1::1]:1")
	a.want("220*")
	from(smtp, "[2001:db8:0:1:ffff::1]:1").want("220*")
	from(submission, "[2001:db8:0:1::3]:1").want("421 4.7.0 too many connections from your address*", "EOF")
	from(submission, "[2001:db8:0:2::3]:1").want("220*")
	from(smtp, "192.0.2.1:1").want("421 4.3.2 too many connections here*", "EOF")
	a.do("QUIT", "221*")
	a.want("EOF")
	a.conn.Close()
	for c.Gate.Count() == 3 {
		runtime.Gosched() // the session is just leaving
	}
	from(smtp, "192.0.2.1:1").want("220*")
}

// A shortage of descriptors is no reason to stop listening.
func TestAcceptSurvivesEMFILE(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := &shortage{pipes: newPipes(), left: 20}
		s := smtpd.New(config(&office{}))
		served := make(chan error, 1)
		go func() { served <- s.Serve(t.Context(), ln) }()
		start := time.Now()
		pipeClient(t, ln.pipes, time.Hour).want("220*")
		if d := time.Since(start); d < 10*time.Second || d > 20*time.Second {
			t.Errorf("20 failures took %v", d)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		s.Shutdown(ctx)
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

func TestADeadListenerEndsServe(t *testing.T) {
	t.Parallel()
	ln := &shortage{pipes: newPipes(), left: -1}
	s := smtpd.New(config(&office{}))
	if err := s.Serve(t.Context(), ln); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a dead listener: %v", err)
	}
	s.Shutdown(t.Context())
}

// Out of descriptors, the spare one tells a client so.
func TestEMFILEIsAnswered(t *testing.T) {
	t.Parallel()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, inner.Addr().String())
	s := smtpd.New(config(&office{}))
	served := make(chan error, 1)
	go func() { served <- s.Serve(t.Context(), &exhausted{TCPListener: inner.(*net.TCPListener)}) }()
	c.want("421 4.3.2 too many connections here*", "EOF")
	dial(t, inner.Addr().String()).want("220*")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.Shutdown(ctx)
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// exhausted has no descriptor for its first connection.
type exhausted struct {
	*net.TCPListener
	once bool
}

func (e *exhausted) Accept() (net.Conn, error) {
	if !e.once {
		e.once = true
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return e.TCPListener.Accept()
}

type shortage struct {
	*pipes
	left int
}

func (s *shortage) Accept() (net.Conn, error) {
	switch {
	case s.left < 0:
		return nil, io.ErrUnexpectedEOF
	case s.left > 0:
		s.left--
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return s.pipes.Accept()
}

func TestReloadAffectsNewSessions(t *testing.T) {
	t.Parallel()
	c := config(&office{})
	s, addr := listen(t, c)
	old := dial(t, addr)
	old.want("220*")
	s.SetLimits(smtpd.Limits{MessageSize: 1234})
	old.do("EHLO c.example", "250-*SIZE 50000000*")
	fresh := dial(t, addr)
	fresh.want("220*")
	fresh.do("EHLO c.example", "250-*SIZE 1234*STARTTLS*")
	c.TLS = nil
	s.Reload(c)
	fresh = dial(t, addr)
	fresh.want("220*")
	fresh.do("EHLO c.example", "250-*SIZE 50000000*RCPTMAX=1000")
}

func TestShutdownLetsALetterEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := guarded(t, smtpd.Limits{})
		busy, idle := s.dial(t), s.dial(t)
		busy.begin()
		busy.do("DATA", "354*")
		idle.want("220*")
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- s.shutdown(ctx) }()
		idle.want("421 4.3.2*", "EOF")
		time.Sleep(5 * time.Second)
		busy.send("text\r\n.\r\nMAIL FROM:<x@y.example>\r\n")
		busy.want("250 2.0.0 queued*", "421 4.3.2*", "EOF")
		if err := <-done; err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if len(s.all()) != 1 {
			t.Error("the letter is lost")
		}
	})
}

func TestShutdownDropsWhatTakesTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := guarded(t, smtpd.Limits{})
		busy := s.dial(t)
		busy.begin()
		busy.do("DATA", "354*")
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		start := time.Now()
		if err := s.shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("shutdown: %v", err)
		}
		took(t, start, 10*time.Second)
		busy.want("EOF")
		if len(s.all()) != 0 {
			t.Error("half a letter was accepted")
		}
		if err := s.shutdown(t.Context()); err != nil {
			t.Errorf("again: %v", err)
		}
	})
}

// A server that was never used, or is stopped already, does not hang.
func TestShutdownWithoutServe(t *testing.T) {
	s := smtpd.New(config(&office{}))
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.Serve(t.Context(), newPipes()); err != nil {
		t.Error(err)
	}
}

// Commands that lead nowhere are free until a client says little else.
func TestChatter(t *testing.T) {
	t.Parallel()
	const mail = "MAIL FROM:<x@y.example>\r\nRCPT TO:<ann@office.example>\r\n"
	for _, c := range []struct{ name, start, flood string }{
		{"NOOP", "", "NOOP\r\n"}, {"RSET", "", "RSET\r\n"}, {"VRFY", "", "VRFY x\r\n"}, {"HELP", "", "HELP\r\n"},
		{"EHLO", "", "EHLO c.example\r\n"}, {"HELO", "", "HELO c.example\r\n"}, {"MAIL", "", "MAIL FROM:<>\r\nRSET\r\n"},
		{"RCPT", mail + mail[25:], "RCPT TO:<ann@office.example>\r\n"},
		{"empty chunks", mail, "BDAT 0\r\n"}, {"NOOP between chunks", mail + "BDAT 1\r\nx", "NOOP\r\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := &office{}
			cfg := config(o)
			cfg.Limits = smtpd.Limits{Chatter: 50, Recipients: 2}
			_, addr := listen(t, cfg)
			cl := dial(t, addr)
			cl.want("220*")
			cl.do("EHLO c.example", "250*")
			cl.send(c.start + strings.Repeat(c.flood, 60))
			answers := 0
			for got := cl.reply(); ; got = cl.reply() {
				if match("421 4.7.0 too many commands without a letter*", got) {
					break
				}
				if got == "EOF" {
					t.Fatalf("it ends after %d answers without a 421", answers)
				}
				answers++
			}
			if answers < 48 || answers > 110 {
				t.Errorf("%d answers", answers)
			}
		})
	}
}

// A letter makes a client welcome again.
func TestALetterEndsChatter(t *testing.T) {
	t.Parallel()
	s := guarded(t, smtpd.Limits{Chatter: 10})
	c := s.dial(t)
	c.begin()
	for range 3 {
		for range 8 {
			c.do("NOOP", "250*")
		}
		c.do("DATA", "354*")
		c.do("x\r\n.", "250 2.0.0 queued*")
		c.send("MAIL FROM:<x@y.example>\r\nRCPT TO:<ann@office.example>\r\n")
		c.want("250*", "250*")
	}
}

// A line that never ends is not read for ever, and no limit lets one outgrow the buffer.
func TestEndlessLine(t *testing.T) {
	t.Parallel()
	c := config(&office{})
	c.Limits.CommandLine = 1 << 20
	_, addr := listen(t, c)
	cl := dial(t, addr)
	cl.want("220*")
	cl.do(strings.Repeat("x", 17_000), "500 5.5.2 the command line is too long")
	cl.do("NOOP", "250*")
	go io.WriteString(cl.conn, strings.Repeat("x", 2<<20))
	cl.want("421 4.7.0*", "EOF")
}

// A batch that asks for more than it brings is answered in pieces, not hoarded.
func TestRepliesArePacked(t *testing.T) {
	t.Parallel()
	s := guarded(t, smtpd.Limits{})
	c := s.dial(t)
	c.want("220*")
	c.send(strings.Repeat("HELP\r\n", 1000))
	for range 1000 {
		c.want("214*")
	}
	if most := s.most(); most < 4096 || most > 4096+512 {
		t.Errorf("%d octets in one write", most)
	}
}

// A client that is sent away reads why, whatever it had still on its way to us.
func TestLastWordsArrive(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := smtpd.New(config(&office{}))
	counted := &countingListener{Listener: ln}
	go s.Serve(t.Context(), counted)
	for range 20 {
		c := dial(t, ln.Addr().String())
		c.send("GET / HTTP/1.1\r\n" + strings.Repeat("x", 100_000))
		c.want("220*", "421 4.7.0 this is a mail server*")
		if _, err := c.r.ReadByte(); err != io.EOF {
			t.Fatalf("the connection ended with %v", err)
		}
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if n := counted.closed.Load(); n != 20 {
		t.Errorf("20 connections were closed %d times", n)
	}
}

// countingListener wraps its connections, as the metrics do.
type countingListener struct {
	net.Listener
	closed atomic.Int64
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &wrappedConn{c, l}, nil
}

type wrappedConn struct {
	net.Conn
	l *countingListener
}

func (c *wrappedConn) NetConn() net.Conn { return c.Conn }
func (c *wrappedConn) Close() error {
	c.l.closed.Add(1)
	return c.Conn.Close()
}

// A panic between commands ends the session and nothing else.
func TestPanicOutsideTheEngine(t *testing.T) {
	t.Parallel()
	c := config(&office{})
	c.Trusted = func(netip.Addr) bool { return true }
	_, addr := listen(t, c)
	cl := dial(t, addr)
	cl.want("220*")
	cl.do("VRFY panic", "EOF")
	dial(t, addr).want("220*")
}
