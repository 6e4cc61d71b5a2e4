package smtpd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emersion/go-smtp"

	"relayd/relay"
	"relayd/relay/listen"
)

// Config is what a Server is made of.
type Config struct {
	Hostname relay.Domain
	Service  string // "smtp", "submission" or "submissions"; goes into relay.Origin
	Accept   relay.Acceptor
	Auth     relay.Authenticator // nil: no AUTH
	Resolver relay.Resolver      // looks up the clients' names; nil: it is not done
	Screen   Screen              // watches strangers; nil: nobody does
	Gate     *Gate               // shared by servers that count their connections together; nil: one of its own
	Log      *slog.Logger

	ImplicitTLS bool // TLS from the first octet (RFC 8314); wants TLS

	// What Reload changes.
	TLS         *tls.Config // nil: no STARTTLS
	Limits      Limits
	BareNewline string                // "reject", the default, or "normalize"
	Trusted     func(netip.Addr) bool // who may ask VRFY, and relay.Origin.Trusted; nil: nobody
	Profile     Profile
}

// Normalize is the value of Config.BareNewline that turns a bare CR or LF into CR LF instead of
// refusing the letter. A NUL is refused in any case.
const Normalize = "normalize"

// settings is the part of Config that a session takes a copy of when it begins.
type settings struct {
	tls       *tls.Config
	limits    Limits
	normalize bool
	trusted   func(netip.Addr) bool
	profile   Profile
}

// Server is one SMTP service on any number of listeners.
type Server struct {
	hostname    relay.Domain
	service     string
	accept      relay.Acceptor
	auth        relay.Authenticator
	resolver    relay.Resolver
	screen      Screen
	gate        *Gate
	dns         patience
	log         *slog.Logger
	implicitTLS bool
	set         atomic.Pointer[settings]

	ctx    context.Context // ends when sessions are to be dropped
	drop   context.CancelFunc
	engine *smtp.Server
	queue  *handover
	wg     sync.WaitGroup // accept loops, look-ups, sessions that go-smtp does not have yet, and its own loop

	mu        sync.Mutex
	started   bool
	stopping  bool
	listeners map[net.Listener]struct{}
	guards    map[*guard]struct{}
	empty     chan struct{} // closed when the last session has left a stopping server
}

// New makes a Server. It does nothing until Serve.
func New(c Config) *Server {
	if c.Gate == nil {
		c.Gate = NewGate()
	}
	s := &Server{
		hostname: c.Hostname, service: c.Service, accept: c.Accept, auth: c.Auth, resolver: c.Resolver,
		screen: c.Screen, gate: c.Gate, implicitTLS: c.ImplicitTLS,
		log:       c.Log.With("room", "smtpd", "service", c.Service),
		queue:     &handover{conns: make(chan net.Conn), closed: make(chan struct{})},
		listeners: map[net.Listener]struct{}{}, guards: map[*guard]struct{}{}, empty: make(chan struct{}),
	}
	s.ctx, s.drop = context.WithCancel(context.Background())
	s.engine = smtp.NewServer(smtp.BackendFunc(newSession))
	// The guard has limits, deadlines, TLS and AUTH policy of its own, and tells nobody about
	// go-smtp's keywords, so go-smtp's are out of the way.
	s.engine.MaxLineLength = 0
	s.engine.AllowInsecureAuth = true
	s.engine.ErrorLog = engineLog{s.log}
	s.Reload(c)
	return s
}

// Reload puts TLS, Limits, BareNewline, Trusted and Profile of c in force for sessions that begin from
// now on; the rest of c is not looked at.
func (s *Server) Reload(c Config) {
	s.set.Store(&settings{
		tls: c.TLS, limits: c.Limits.withDefaults(), normalize: c.BareNewline == Normalize || c.Profile.Lenient,
		trusted: c.Trusted, profile: c.Profile,
	})
}

// SetLimits puts new limits in force for sessions that begin from now on.
func (s *Server) SetLimits(l Limits) {
	next := *s.set.Load()
	next.limits = l.withDefaults()
	s.set.Store(&next)
}

// Serve accepts connections from ln until Shutdown, or until ctx ends, which only stops the
// accepting. It closes ln, and returns nil unless ln broke.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	if !s.enter(ln) {
		ln.Close()
		return nil
	}
	defer s.wg.Done()
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	err := s.acceptFrom(ctx, ln)
	s.mu.Lock()
	delete(s.listeners, ln)
	stopping := s.stopping
	s.mu.Unlock()
	ln.Close()
	if stopping || ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("smtpd: accept on %s: %w", ln.Addr(), err)
}

func (s *Server) enter(ln net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return false
	}
	s.listeners[ln] = struct{}{}
	s.wg.Add(1)
	if !s.started {
		s.started = true
		s.wg.Go(func() { s.engine.Serve(s.queue) })
	}
	return true
}

// acceptFrom lives through a shortage of descriptors: it waits a little and goes on.
func (s *Server) acceptFrom(ctx context.Context, ln net.Listener) error {
	var pause time.Duration
	spare := listen.NewSpare()
	defer spare.Close()
	for {
		c, err := ln.Accept()
		switch {
		case err == nil:
			pause = 0
			spare.Keep()
			s.take(c)
		case errors.Is(err, net.ErrClosed) || ctx.Err() != nil:
			return err
		case !isTemporary(err):
			return err
		default:
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.log.Error("cannot accept, waiting", "err", err, "dur", pause)
			spare.Spend(err, ln, func(c net.Conn) { s.turnAway(c, busyAll) })
			wait(s.ctx, pause)
		}
	}
}

// isTemporary says whether accept may work again: no descriptors, no memory, or a connection
// that was gone before we took it.
func isTemporary(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Temporary() //lint:ignore SA1019 nothing else tells EMFILE from a dead listener
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// take begins a session, or says why not.
func (s *Server) take(c net.Conn) {
	set := s.set.Load()
	client := addrPort(c.RemoteAddr())
	if !set.profile.admits(client.Addr()) {
		s.log.Info("refused", "client", client, "code", 554, "reason", "not one of the networks that may connect")
		set.profile.Devices.stranger(client.Addr(), s.service)
		s.turnAwayWith(c, replyStranger)
		return
	}
	if refusal := s.gate.enter(client.Addr(), &set.limits); refusal != "" {
		s.log.Info("refused", "client", client, "code", 421, "reason", refusal)
		s.turnAway(c, refusal)
		return
	}
	g := newGuard(s, set, c, client)
	if refusal := g.visit(); refusal != nil {
		s.gate.leave(client.Addr())
		s.log.Info("refused", "client", client, "code", refusal.Code, "reason", refusal.Text)
		s.turnAwayWith(c, *refusal)
		return
	}
	if !s.register(g) {
		s.gate.leave(client.Addr())
		s.turnAway(c, replyStopping.Text)
		return
	}
	s.log.Info("connected", "client", client)
	set.profile.Devices.saw(client.Addr(), s.service)
	s.wg.Go(func() { s.open(g) })
}

// open begins a session and hands it to go-smtp.
func (s *Server) open(g *guard) {
	if g.prelude() != nil {
		g.Close()
		return
	}
	select {
	case s.queue.conns <- g:
	case <-s.queue.closed:
		g.Close()
	}
}

func (s *Server) register(g *guard) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return false
	}
	s.guards[g] = struct{}{}
	if client := g.peer.client; s.resolver != nil && client.IsValid() && !client.Addr().IsLoopback() {
		s.wg.Add(1)
		g.peer.askName(s.ctx, s.resolver, &s.dns, s.wg.Done)
	}
	return true
}

// left is told by a guard that its session is over.
func (s *Server) left(g *guard) {
	s.gate.leave(g.peer.client.Addr())
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.guards, g)
	if s.stopping && len(s.guards) == 0 {
		close(s.empty)
	}
}

// turnAway refuses a connection before it is a session. A fresh socket takes the line without
// blocking; a client of TLS from the first octet could not read it.
func (s *Server) turnAway(c net.Conn, why string) {
	status := "4.7.0"
	if why != busyAddress {
		status = "4.3.2"
	}
	s.turnAwayWith(c, say(421, status, why))
}

func (s *Server) turnAwayWith(c net.Conn, r relay.Reply) {
	defer c.Close()
	if s.implicitTLS {
		return
	}
	c.SetWriteDeadline(time.Now().Add(time.Second))
	c.Write(appendReply(nil, r, false))
}

// Shutdown stops accepting, sends idle clients away with 421 4.3.2, lets letters that are under
// way end until ctx does, and then drops the rest. When it returns no goroutine of the server is
// left; the error is ctx's if sessions had to be dropped.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stop()
	var err error
	select {
	case <-s.empty:
	case <-ctx.Done():
		err = ctx.Err()
		s.kill()
		<-s.empty
	}
	s.drop()
	s.queue.Close()
	s.engine.Shutdown(context.WithoutCancel(ctx))
	s.wg.Wait()
	return err
}

func (s *Server) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return
	}
	s.stopping = true
	for ln := range s.listeners {
		ln.Close()
	}
	for g := range s.guards {
		g.stop()
	}
	if len(s.guards) == 0 {
		close(s.empty)
	}
}

func (s *Server) kill() {
	s.drop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for g := range s.guards {
		g.kill()
	}
}

// handover is the listener that go-smtp accepts from: our accept loops fill it.
type handover struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

// Accept implements net.Listener.
func (h *handover) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (h *handover) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

// Addr implements net.Listener.
func (h *handover) Addr() net.Addr { return &net.UnixAddr{Name: "handover"} }

// engineLog takes what go-smtp has to say, which is panics of ours that it caught.
type engineLog struct{ log *slog.Logger }

func (l engineLog) Printf(format string, v ...any) { l.log.Error(fmt.Sprintf(format, v...)) }
func (l engineLog) Println(v ...any)               { l.log.Error(fmt.Sprint(v...)) }
