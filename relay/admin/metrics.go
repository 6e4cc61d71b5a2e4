package admin

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sys/unix"
)

// Words are the seven words of a letter's life, the log's and the counters' alike.
func Words() []string {
	return []string{"accepted", "refused", "delivered", "deferred", "failed", "reported", "fetched"}
}

// Metrics counts what the daemon does, in a Prometheus registry of its own. The other rooms bump
// it through interfaces they declare, or without knowing it: Handler counts from the log,
// Listener from the connections. All methods may be called at the same time.
type Metrics struct {
	registry *prometheus.Registry
	events   map[string]*atomic.Int64 // by word; never written to after NewMetrics
	people   people

	mu       sync.Mutex
	services map[string]*service
	order    []string
}

// service holds the counters of one listener's service. Plain atomics, because every read and
// write of every connection passes here; the registry reads them when it is asked.
type service struct {
	total, now, in, out atomic.Int64
}

// NewMetrics makes the registry with everything at zero.
func NewMetrics() *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		events:   map[string]*atomic.Int64{},
		services: map[string]*service{},
	}
	for _, w := range Words() {
		m.events[w] = new(atomic.Int64)
		m.registry.MustRegister(counter("relayd_messages_total",
			"Letters by what happened to them: the seven words of the log.",
			m.events[w], prometheus.Labels{"event": w}))
	}
	m.registry.MustRegister(collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Message counts one event of a letter's life: accepted, refused, delivered, deferred, failed,
// reported or fetched. Other words are ignored, so that labels stay bounded.
func (m *Metrics) Message(event string) {
	if n, ok := m.events[event]; ok {
		n.Add(1)
	}
}

// Connected counts a connection of a service ("smtp", "pop3"); the caller calls closed when it
// ends.
func (m *Metrics) Connected(name string) (closed func()) {
	s := m.service(name)
	s.total.Add(1)
	s.now.Add(1)
	return sync.OnceFunc(func() { s.now.Add(-1) })
}

// Bytes counts octets received and sent by a service.
func (m *Metrics) Bytes(name string, in, out int64) {
	s := m.service(name)
	s.in.Add(in)
	s.out.Add(out)
}

// Queue says how to learn the length of the queue whenever somebody asks for the metrics. Call it
// once.
func (m *Metrics) Queue(length func() (messages, held int)) {
	m.registry.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "relayd_queue_items", Help: "Waiting letters, one for each domain a letter goes to.",
		}, func() float64 { n, _ := length(); return float64(n) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "relayd_queue_held_items", Help: "Waiting letters that an operator holds.",
		}, func() float64 { _, n := length(); return float64(n) }))
}

// Disk adds what is left of the file system that holds dir; mail is refused below a floor. Call it
// once.
func (m *Metrics) Disk(dir string) {
	left := func(name, help string, of func(unix.Statfs_t) float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
			var st unix.Statfs_t
			if unix.Statfs(dir, &st) != nil {
				return math.NaN() // unknown; zero would say that it is full
			}
			return of(st)
		}))
	}
	left("relayd_disk_free_bytes", "Space left for mail on the disk.",
		func(st unix.Statfs_t) float64 { return float64(st.Bavail) * float64(st.Bsize) })
	left("relayd_disk_free_inodes", "Files that the disk still has room for.",
		func(st unix.Statfs_t) float64 { return float64(st.Ffree) })
}

// Register adds a collector of another room. It panics on a name that is taken.
func (m *Metrics) Register(c prometheus.Collector) { m.registry.MustRegister(c) }

// Stats is the counters as relayctl stats shows them.
func (m *Metrics) Stats() Stats {
	st := Stats{Messages: map[string]int64{}, Services: []ServiceStats{}, Users: m.people.stats()}
	for w, n := range m.events {
		st.Messages[w] = n.Load()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range m.order {
		s := m.services[name]
		st.Services = append(st.Services, ServiceStats{Service: name, Connections: s.total.Load(),
			Now: s.now.Load(), BytesIn: s.in.Load(), BytesOut: s.out.Load()})
	}
	return st
}

// exposition serves the registry as Prometheus text.
func (m *Metrics) exposition() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 20 * time.Second})
}

// service finds or makes the counters of a service. Names come from our own listeners, so there
// are a handful.
func (m *Metrics) service(name string) *service {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok := m.services[name]
	if !ok {
		s = &service{}
		m.services[name] = s
		m.order = append(m.order, name)
		m.registerService(name, s)
	}
	return s
}

func (m *Metrics) registerService(name string, s *service) {
	const bytesHelp = "Octets on the wire by service and direction, seen from us."
	m.registry.MustRegister(
		counter("relayd_connections_total", "Connections accepted.", &s.total, prometheus.Labels{"service": name}),
		counter("relayd_bytes_total", bytesHelp, &s.in, prometheus.Labels{"service": name, "direction": "in"}),
		counter("relayd_bytes_total", bytesHelp, &s.out, prometheus.Labels{"service": name, "direction": "out"}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "relayd_connections",
			Help: "Connections open now.", ConstLabels: prometheus.Labels{"service": name}},
			func() float64 { return float64(s.now.Load()) }))
}

func counter(name, help string, n *atomic.Int64, labels prometheus.Labels) prometheus.Collector {
	return prometheus.NewCounterFunc(
		prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels},
		func() float64 { return float64(n.Load()) })
}

// Handler wraps a log handler and counts every record whose message is one of the seven words, and
// what is said of a user, also those that the level or next leaves out.
func (m *Metrics) Handler(next slog.Handler) slog.Handler { return &countingHandler{m, next} }

type countingHandler struct {
	metrics *Metrics
	next    slog.Handler
}

func (h *countingHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo || h.next.Enabled(ctx, level)
}

func (h *countingHandler) Handle(ctx context.Context, r slog.Record) error {
	h.metrics.Message(r.Message)
	h.metrics.people.see(r)
	if !h.next.Enabled(ctx, r.Level) {
		return nil
	}
	return h.next.Handle(ctx, r)
}

func (h *countingHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &countingHandler{h.metrics, h.next.WithAttrs(attrs)}
}

func (h *countingHandler) WithGroup(name string) slog.Handler {
	return &countingHandler{h.metrics, h.next.WithGroup(name)}
}

// Listener counts the connections of ln and their octets under the name of a service.
func (m *Metrics) Listener(name string, ln net.Listener) net.Listener {
	return &countingListener{Listener: ln, metrics: m, name: name}
}

type countingListener struct {
	net.Listener
	metrics *Metrics
	name    string
}

func (l *countingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &countingConn{Conn: conn, service: l.metrics.service(l.name), closed: l.metrics.Connected(l.name)}, nil
}

// SetDeadline bounds Accept where the listener can: smtpd needs it to turn a client away when
// descriptors have run out.
func (l *countingListener) SetDeadline(t time.Time) error {
	if timed, ok := l.Listener.(interface{ SetDeadline(time.Time) error }); ok {
		return timed.SetDeadline(t)
	}
	return errors.ErrUnsupported
}

type countingConn struct {
	net.Conn
	service *service
	closed  func()
}

func (c *countingConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.service.in.Add(int64(n))
	return n, err
}

func (c *countingConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.service.out.Add(int64(n))
	return n, err
}

func (c *countingConn) Close() error {
	c.closed()
	return c.Conn.Close()
}

// NetConn is the connection underneath, for socket options.
func (c *countingConn) NetConn() net.Conn { return c.Conn }
