package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"sync"
	"time"

	"golang.org/x/net/netutil"

	"relayd/queue"
	"relayd/relay"
	"relayd/relay/drop"
	"relayd/relay/records"
)

// Queue is what the operator does to the queue; *queue.Queue.
type Queue interface {
	Lister
	Retry(ctx context.Context, f queue.Filter) (int, error)
	Hold(ctx context.Context, f queue.Filter) (int, error)
	Release(ctx context.Context, f queue.Filter) (int, error)
	Drop(ctx context.Context, f queue.Filter) (int, error)
	Reschedule(ctx context.Context, f queue.Filter, at time.Time) (int, error)
	Reroute(ctx context.Context, f queue.Filter, via string) (int, error)
	Inspect(ctx context.Context) (queue.Report, error)
	Repair(ctx context.Context) (queue.Repaired, error)
}

// Bouncer returns letters to their senders at the operator's word; *delivery.Drain.
type Bouncer interface {
	Bounce(ctx context.Context, f queue.Filter, reason string) (int, error)
}

// Config is what cmd/relayd hands to the server. DataDir and Queue are needed; what else is nil
// is answered 501, or left out.
type Config struct {
	DataDir string
	Queue   Queue
	Bouncer Bouncer
	Metrics *Metrics
	Logins  Logins
	Holds   Holds
	Orders  Orders
	// Stage takes imported letters in; IsLocal says which recipients are not for it.
	Stage   relay.Stager
	IsLocal func(relay.Address) bool
	// Lost is how much of the time from born to now our own line was down; nil: none.
	Lost func(born, now time.Time) time.Duration
	// Waits says what keeps a due letter to a domain from being tried, and until when at least; nil: nothing.
	Waits func(relay.Domain) (what string, until time.Time)
	// CheckVia says what is wrong with a host that letters shall go by; nil: nothing is.
	CheckVia func(via string) error
	// Busy says whether an attempt at an item is under way.
	Busy    func(queue.Key) bool
	Devices func() []Device
	Gate    func() Gate
	// Keys are those that sign letters; Records says which records a domain of ours should have in
	// the DNS, and has.
	Keys Keys
	// TLSReports are what other domains are told of TLS with their hosts.
	TLSReports TLSReports
	Records    func(context.Context, relay.Domain) ([]records.Line, error)
	// Reports are the DMARC reports that we send.
	Reports Reports
	// Submit takes a letter of a program on this machine.
	Submit func(ctx context.Context, o drop.Order, letter io.Reader) (Submitted, error)
	About  func() About
	// Reload reads the configuration and the users again; its error is shown to the operator.
	Reload func(ctx context.Context) error
	// Setup answers /mail/ and /.well-known/autoconfig/ on the TCP listener: mail programs look there
	// for their settings.
	Setup http.Handler
	// Ready says why mail cannot be taken just now; /readyz answers 503 then.
	Ready func(ctx context.Context) error
	Log   *slog.Logger // nil: silence
}

// What one client may cost. Both listeners share the numbers. The control socket has no time-out
// for a whole answer: it would end a list in the middle that somebody reads in a pager.
const (
	maxConns      = 64
	maxHeader     = 64 << 10 // a query of maxNames IDs does not fit and need not: Orders carry those
	maxBody       = 1 << 20
	headerTimeout = 10 * time.Second
	readTimeout   = 30 * time.Second
	idleTimeout   = time.Minute
	// patience is how long one piece of an answer may wait for the client to take it. A pager
	// with somebody reading is the slow client here, hence not seconds.
	patience = 10 * time.Minute
)

// Server answers on the control socket and on the TCP listener for metrics.
type Server struct {
	cfg     Config
	reader  *Reader
	log     *slog.Logger
	started time.Time
	control *http.Server
	public  *http.Server

	reloading sync.Mutex
}

// NewServer prepares a server; Serve and ServeMetrics run it.
func NewServer(cfg Config) *Server {
	s := &Server{cfg: cfg, reader: NewReader(cfg.Queue), log: cfg.Log, started: time.Now()}
	s.reader.Lost, s.reader.Waits = cfg.Lost, cfg.Waits
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if cfg.Orders != nil {
		s.reader.Pauses = cfg.Orders.Pauses
	}
	if s.cfg.Metrics == nil {
		s.cfg.Metrics = NewMetrics()
	}
	s.control = s.newHTTP(s.controlRoutes())
	s.public = s.newHTTP(s.publicRoutes())
	s.public.WriteTimeout = readTimeout
	return s
}

func (s *Server) newHTTP(h http.Handler) *http.Server {
	return &http.Server{Handler: h, ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn)}
}

// Serve answers on the control socket, which Listen made, until Shutdown; then it returns nil.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	return serve(ctx, s.control, ownPeers{ln})
}

// ServeMetrics answers /metrics, /healthz, /readyz and what Setup does on a TCP listener until Shutdown; then it
// returns nil. It may run for several listeners.
func (s *Server) ServeMetrics(ctx context.Context, ln net.Listener) error {
	return serve(ctx, s.public, ln)
}

// serve closes everything when ctx ends, for a caller who does not wait for Shutdown.
func serve(ctx context.Context, srv *http.Server, ln net.Listener) error {
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	err := srv.Serve(netutil.LimitListener(ln, maxConns))
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("admin: serve %s: %w", ln.Addr(), err)
}

// Shutdown stops listening, lets running requests end until ctx does, and then cuts them off.
func (s *Server) Shutdown(ctx context.Context) error {
	errs := make([]error, 2)
	var wg sync.WaitGroup
	for i, srv := range []*http.Server{s.control, s.public} {
		wg.Go(func() {
			if errs[i] = srv.Shutdown(ctx); errs[i] != nil {
				srv.Close()
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (s *Server) controlRoutes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/queue", s.listQueue)
	mux.HandleFunc("GET /v1/queue/{name...}", s.showQueue)
	mux.HandleFunc("POST /v1/queue/{verb}", s.changeQueue)
	mux.HandleFunc("GET /v1/check", s.checkQueue)
	mux.HandleFunc("POST /v1/repair", s.repairQueue)
	mux.HandleFunc("GET /v1/auth", s.listLogins)
	mux.HandleFunc("POST /v1/auth/clear", s.clearLogins)
	mux.HandleFunc("POST /v1/users/release", s.releaseUser)
	mux.HandleFunc("GET /v1/pauses", s.listPauses)
	mux.HandleFunc("GET /v1/export/{name...}", s.exportLetter)
	mux.HandleFunc("POST /v1/import", s.importLetter)
	mux.HandleFunc("POST /v1/edit", s.edit)
	mux.HandleFunc("GET /v1/holds", s.listRules)
	mux.HandleFunc("POST /v1/holds", s.addRule)
	mux.HandleFunc("POST /v1/holds/rm", s.removeRule)
	mux.HandleFunc("POST /v1/pause", s.pause)
	mux.HandleFunc("POST /v1/resume", s.resume)
	mux.HandleFunc("GET /v1/dkim", s.listKeys)
	mux.HandleFunc("POST /v1/dkim", s.changeKeys)
	mux.HandleFunc("GET /v1/dns/{domain}", s.checkRecords)
	mux.HandleFunc("GET /v1/tls-reports", s.listTLSReports)
	mux.HandleFunc("POST /v1/tls-reports", s.sendTLSReports)
	mux.HandleFunc("GET /v1/dmarc", s.listReports)
	mux.HandleFunc("POST /v1/dmarc/send", s.sendReports)
	mux.HandleFunc("GET /v1/devices", s.listDevices)
	mux.HandleFunc("GET /v1/gate", s.showGate)
	mux.HandleFunc("POST /v1/submit", s.submit)
	mux.HandleFunc("GET /v1/status", s.status)
	mux.HandleFunc("GET /v1/stats", s.stats)
	mux.HandleFunc("POST /v1/reload", s.reload)
	mux.Handle("GET /metrics", s.cfg.Metrics.exposition())
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, refuse(http.StatusNotFound, "there is no %s %s here", r.Method, r.URL.Path))
	})
	return mux
}

func (s *Server) publicRoutes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.cfg.Metrics.exposition())
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", s.ready)
	if s.cfg.Setup != nil {
		mux.Handle("GET /mail/", s.cfg.Setup)
		mux.Handle("GET /.well-known/autoconfig/", s.cfg.Setup)
	}
	return mux
}

// ready tells strangers yes or no; why is for the log.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	if s.cfg.Ready != nil {
		if err := s.cfg.Ready(r.Context()); err != nil {
			s.log.Debug("not ready", "err", err)
			http.Error(w, "not ready", http.StatusServiceUnavailable)
			return
		}
	}
	fmt.Fprintln(w, "ok")
}

// ownPeers lets in root and our own user: the mode of the socket says the same, but a mode is one
// chmod away from being wrong.
type ownPeers struct{ net.Listener }

func (l ownPeers) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if uid, err := peerUID(conn); err == nil && mayAsk(uid) {
			return conn, nil
		}
		conn.Close()
	}
}

func mayAsk(uid int) bool { return uid == 0 || uid == os.Geteuid() }
