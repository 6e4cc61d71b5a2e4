package pop3

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"

	"relayd/relay"
	"relayd/relay/listen"
)

// Message is one letter of a maildrop; message n of the protocol is element n-1.
type Message = relay.Message

// Maildrop is one mailbox, locked for one session, as it was when it was opened. It is used by one
// goroutine. relay.ErrGone says that another program removed a message meanwhile.
type Maildrop interface {
	Messages() []Message
	// Open returns the octets of message n. Lone LF are sent as CRLF.
	Open(n int) (io.ReadCloser, error)
	// Seen notes, at that moment, that message n has been fetched whole.
	Seen(n int)
	// Remove removes messages. An error with a method NotRemoved() []int says which stay.
	Remove(n ...int) error
	// Close lets the next session in.
	Close() error
}

// Config is what a Server is made of. Auth, Open and Log are required.
type Config struct {
	Hostname relay.Domain
	Auth     relay.Authenticator
	// Open opens a maildrop for a client; relay.ErrInUse while another session has it.
	Open func(ctx context.Context, mailbox relay.Address, client netip.Addr) (Maildrop, error)
	// TLS serves STLS and implicit TLS; nil: neither.
	TLS *tls.Config
	// PlaintextOK says from where people may log in without TLS; nil: from nowhere.
	PlaintextOK func(client netip.Addr) bool
	Limits      Limits
	// Delay is the least time between two logins to a maildrop; nil: none.
	Delay *LoginDelay
	// Language is the tag of the language a client gets with LANG * (RFC 6856 §3), one of
	// Languages; empty: English. Clients that do not ask get English (RFC 2277 §4.5).
	Language string
	Log      *slog.Logger
}

// Limits bound what clients may cost. A zero field means its default.
type Limits struct {
	Connections int           // at once, in all: 1000
	PerAddress  int           // at once, for each IPv4 address or IPv6 /64: 100
	IdleTimeout time.Duration // from one command of a logged-in session to the next; RFC 1939 §3: no less than 10m, the default
	LoginTime   time.Duration // from the connection to the login: 3m
	WriteTime   time.Duration // for a client to take 64 KiB: 1m
	FailedTries int           // wrong passwords in a session: 3
	FailedDelay time.Duration // before each answer to a wrong password: 2s
	Errors      int           // wrong commands in a session: 20 before the login, 100 after it
	ShutdownLag time.Duration // for how long an idle session outlives the start of a Shutdown: 2s
}

func (l Limits) withDefaults() Limits {
	count := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	span := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	count(&l.Connections, 1000)
	count(&l.PerAddress, 100)
	count(&l.FailedTries, 3)
	count(&l.Errors, 20)
	span(&l.IdleTimeout, 10*time.Minute)
	span(&l.LoginTime, 3*time.Minute)
	span(&l.WriteTime, time.Minute)
	span(&l.FailedDelay, 2*time.Second)
	span(&l.ShutdownLag, 2*time.Second)
	return l
}

// Server serves POP3 on any number of listeners.
type Server struct {
	cfg    Config
	log    *slog.Logger
	tongue language // of LANG *

	mu        sync.Mutex
	closing   bool
	listeners map[net.Listener]struct{}
	sessions  map[*session]struct{}
	clients   map[netip.Prefix]int
	running   sync.WaitGroup
}

// errClosed is what Serve answers after a Shutdown.
var errClosed = errors.New("pop3: the server has been shut down")

// New makes a Server.
func New(cfg Config) *Server {
	cfg.Limits = cfg.Limits.withDefaults()
	if cfg.PlaintextOK == nil {
		cfg.PlaintextOK = func(netip.Addr) bool { return false }
	}
	tongue, _, _ := lookup(cfg.Language)
	return &Server{
		cfg: cfg, tongue: tongue, log: cfg.Log.With("room", "pop3"),
		listeners: map[net.Listener]struct{}{}, sessions: map[*session]struct{}{}, clients: map[netip.Prefix]int{},
	}
}

// Serve accepts connections on ln, with TLS from the first octet if implicitTLS. It returns nil
// after Shutdown, or when ctx ends, which drops all sessions of ln at once; their goroutines have
// ended when it returns. It closes ln.
func (s *Server) Serve(ctx context.Context, ln net.Listener, implicitTLS bool) error {
	if implicitTLS && s.cfg.TLS == nil {
		ln.Close()
		return errors.New("pop3: serve: TLS is not configured")
	}
	if !s.track(ln) {
		ln.Close()
		return errClosed
	}
	var mine sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	unhook := context.AfterFunc(ctx, func() { ln.Close() })
	defer unhook()
	defer s.untrack(ln)
	err := s.accept(ctx, ln, implicitTLS, &mine)
	if err != nil || ctx.Err() != nil {
		cancel()
	}
	mine.Wait()
	cancel()
	return err
}

// accept runs until the listener is closed. Being out of descriptors or memory is no reason to
// stop: connections end, and then there is room again.
func (s *Server) accept(ctx context.Context, ln net.Listener, implicitTLS bool, mine *sync.WaitGroup) error {
	var pause time.Duration
	spare := listen.NewSpare()
	defer spare.Close()
	for {
		conn, err := ln.Accept()
		switch {
		case err == nil:
			pause = 0
			spare.Keep()
			s.admit(ctx, conn, implicitTLS, mine)
			continue
		case errors.Is(err, net.ErrClosed) || ctx.Err() != nil || s.isClosing():
			return nil
		case pause == 0:
			s.log.Warn("cannot accept connections", "err", err)
		}
		spare.Spend(err, ln, func(conn net.Conn) { s.turnAway(conn, implicitTLS, textTooManyConnections) })
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		if !relay.Sleep(ctx, pause) {
			return nil
		}
	}
}

// admit starts a session unless that would pass a limit.
func (s *Server) admit(ctx context.Context, conn net.Conn, implicitTLS bool, mine *sync.WaitGroup) {
	ses := newSession(s, conn)
	if reason, ok := s.enter(ses); !ok {
		s.turnAway(conn, implicitTLS, reason)
		return
	}
	mine.Go(func() {
		defer s.leave(ses)
		defer ses.recover()
		ses.serve(ctx, implicitTLS)
	})
}

// turnAway says why there can be no session.
func (s *Server) turnAway(conn net.Conn, implicitTLS bool, reason phrase) {
	s.log.Warn("refused", "client", addrPort(conn.RemoteAddr()), "err", reason[english])
	if !implicitTLS {
		// The send buffer of a new connection is empty, so this does not wait for anybody.
		conn.SetWriteDeadline(time.Now().Add(time.Second))
		io.WriteString(conn, "-ERR "+string(temporary)+reason[english]+"\r\n")
	}
	conn.Close()
}

func (s *Server) enter(ses *session) (refusal phrase, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closing:
		return textStopping, false
	case len(s.sessions) >= s.cfg.Limits.Connections:
		return textTooManyConnections, false
	case s.clients[ses.network] >= s.cfg.Limits.PerAddress:
		return textTooManyFromYou, false
	}
	s.running.Add(1)
	s.sessions[ses] = struct{}{}
	s.clients[ses.network]++
	return phrase{}, true
}

func (s *Server) leave(ses *session) {
	s.mu.Lock()
	delete(s.sessions, ses)
	if s.clients[ses.network]--; s.clients[ses.network] == 0 {
		delete(s.clients, ses.network)
	}
	s.mu.Unlock()
	s.running.Done()
}

// Shutdown stops accepting. Sessions that are busy may go on until ctx ends, idle ones are dropped
// soon; nobody's DELE is carried out without a QUIT. It returns ctx's error if it had to drop
// sessions that were busy.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closing = true
	for ln := range s.listeners {
		ln.Close()
	}
	for ses := range s.sessions {
		ses.hurry()
	}
	s.mu.Unlock()
	done := make(chan struct{})
	go func() { s.running.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	for ses := range s.sessions {
		ses.kill()
	}
	s.mu.Unlock()
	<-done
	return fmt.Errorf("pop3: shutdown: %w", ctx.Err())
}

func (s *Server) track(ln net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	s.listeners[ln] = struct{}{}
	return true
}

func (s *Server) untrack(ln net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, ln)
	ln.Close()
}

func (s *Server) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

// recover keeps a fault of ours in one session from ending all the others.
func (s *session) recover() {
	if fault := recover(); fault != nil {
		s.log.Error("a session broke", "err", fmt.Sprint(fault), "stack", string(debug.Stack()))
		s.end()
	}
}
