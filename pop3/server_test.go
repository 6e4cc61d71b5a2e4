package pop3_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"relayd/pop3"
	"relayd/relay"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var certificate = sync.OnceValue(func() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC), DNSNames: []string{"mail.office.example"}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
})

func config(box *fakeBox) pop3.Config {
	return pop3.Config{
		Hostname: "mail.office.example",
		Auth:     fakeUsers{},
		Open: func(context.Context, relay.Address, netip.Addr) (pop3.Maildrop, error) {
			if box.open {
				return nil, relay.ErrInUse
			}
			box.open = true
			return box, nil
		},
		TLS:         &tls.Config{Certificates: []tls.Certificate{certificate()}, MinVersion: tls.VersionTLS12},
		PlaintextOK: netip.Addr.IsLoopback,
		Log:         slog.New(slog.DiscardHandler),
	}
}

// pipeListener hands out net.Pipe connections, so that a server can live in a synctest bubble.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
	fail  chan error
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), done: make(chan struct{}), fail: make(chan error)}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case err := <-l.fail:
		return nil, err
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

type addrConn struct {
	net.Conn
	remote net.Addr
}

func (c addrConn) RemoteAddr() net.Addr { return c.remote }

type testServer struct {
	*pop3.Server
	ln   *pipeListener
	done chan error
	stop context.CancelFunc
}

func newServer(t testing.TB, box *fakeBox) *testServer { return serve(t, config(box), false) }

func serve(t testing.TB, cfg pop3.Config, implicitTLS bool) *testServer {
	ctx, stop := context.WithCancel(context.Background())
	s := &testServer{Server: pop3.New(cfg), ln: newPipeListener(), done: make(chan error, 1), stop: stop}
	go func() { s.done <- s.Serve(ctx, s.ln, implicitTLS) }()
	t.Cleanup(func() {
		stop()
		if err := <-s.done; err != nil {
			t.Errorf("serve: %v", err)
		}
		s.done <- nil
	})
	return s
}

// connect is a client at an address.
func connect(t testing.TB, s *testServer, client string) net.Conn {
	t.Helper()
	ours, theirs := net.Pipe()
	ap := netip.AddrPortFrom(netip.MustParseAddr(client), 40000)
	select {
	case s.ln.conns <- addrConn{theirs, net.TCPAddrFromAddrPort(ap)}:
	case <-s.ln.done:
		t.Fatal("the server does not listen")
	}
	t.Cleanup(func() { ours.Close() })
	return ours
}

var errBroken = errors.New("broken")

// pipeServer is a server with one client, for property tests that make many.
type pipeServer struct {
	conn  net.Conn
	close func()
}

func newServerFor(t interface{ Errorf(string, ...any) }, box *fakeBox) pipeServer {
	s, ln := pop3.New(config(box)), newPipeListener()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln, false) }()
	ours, theirs := net.Pipe()
	ln.conns <- addrConn{theirs, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}}
	return pipeServer{ours, func() {
		ours.Close()
		stop()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	}}
}

// Out of descriptors, the spare one tells a client so, and the next is served.
func TestEMFILEIsAnswered(t *testing.T) {
	t.Parallel()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	first, err := net.Dial("tcp", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	s := pop3.New(config(letters()))
	served := make(chan error, 1)
	go func() { served <- s.Serve(t.Context(), &exhausted{TCPListener: inner.(*net.TCPListener)}, false) }()
	talk(t, first, "S: -ERR [SYS/TEMP] too many connections,*\nS: <closed>")
	second, err := net.Dial("tcp", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	talk(t, second, "S: +OK*\nC: QUIT\nS: +OK*\nS: <closed>")
	second.Close()
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
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

// The last reply arrives although the client has sent more, which nobody will read.
func TestLastReplyArrives(t *testing.T) {
	t.Parallel()
	_, _, addr := overMaildirs(t)
	for range 20 {
		c := dial(t, addr, "ann")
		go io.WriteString(c, "QUIT\r\n"+strings.Repeat("NOOP\r\n", 20000))
		if rest, err := io.ReadAll(c.r); err != nil || string(rest) != "+OK goodbye, 0 messages removed\r\n" {
			t.Fatalf("got %q, %v", rest, err)
		}
	}
}
