package mtasts

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"relayd/relay"
	"relayd/relay/durable"
)

// Bounds of the memory, and how often a policy host is asked that does not give its policy.
const (
	maxEntries = 2000
	maxFlights = 32
	pause      = 5 * time.Minute // RFC 8461 §3.3
)

// Options say how a Store works. Path and Resolver are required.
type Options struct {
	Path     string // of the file that outlives a restart
	Resolver relay.Resolver
	Roots    *x509.CertPool // nil: the system's
	// Dial makes the TCP connection to a policy host; nil: it does.
	Dial          func(ctx context.Context, addr netip.AddrPort) (net.Conn, error)
	AllowLoopback bool // policy hosts may be at 127/8 and ::1, for development and tests
	Log           *slog.Logger
}

// Store finds policies and remembers them. It is safe for concurrent use. Run keeps its file;
// Close it when nobody asks any more.
type Store struct {
	o      Options
	log    *slog.Logger
	client *http.Client
	keeper *durable.Keeper
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup // the fetches
	places chan struct{}

	mu       sync.Mutex
	closed   bool
	entries  map[relay.Domain]entry
	flights  map[relay.Domain]*flight
	failures map[relay.Domain]failure
}

// entry is a policy that was fetched.
type entry struct {
	policy
	id      string
	fetched time.Time
}

func (e entry) holds(now time.Time) bool {
	return now.Before(e.fetched.Add(e.Age)) && e.fetched.Before(now.Add(time.Hour))
}

// stale says that it is time to fetch it again, long before it ends: who hinders us then must go
// on doing so.
func (e entry) stale(now time.Time) bool { return now.After(e.fetched.Add(e.Age / 2)) }

// failure is a policy that could not be fetched.
type failure struct {
	id      string
	until   time.Time
	problem string // as STSPolicy.Problem
}

// flight is a fetch under way; everybody who wants that policy waits for it.
type flight struct{ done chan struct{} }

// Open reads the file. One that is missing or damaged costs what cannot be read of it.
func Open(o Options) *Store {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Store{
		o: o, log: o.Log.With("room", "mtasts"), places: make(chan struct{}, maxFlights),
		entries: map[relay.Domain]entry{}, flights: map[relay.Domain]*flight{}, failures: map[relay.Domain]failure{},
	}
	s.client = s.newClient()
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.keeper = durable.NewKeeper(o.Path, s.state, s.log)
	s.read()
	return s
}

// Run writes the file now and then until ctx ends.
func (s *Store) Run(ctx context.Context) { s.keeper.Run(ctx) }

// Close ends the fetches under way and writes what Run has not.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.work.Wait()
	return s.keeper.Close()
}

// Find returns the policy of d: one without a Mode where it has none that we could learn of. It asks
// the DNS each time, and the policy host when the id there is a new one or the policy is in the
// second half of its life. It takes as long as a fetch at most, or until ctx ends.
func (s *Store) Find(ctx context.Context, d relay.Domain) relay.STSPolicy {
	if d == "" || d.IsLiteral() {
		return relay.STSPolicy{}
	}
	// Without an answer, or with one that there is no policy, the memory counts (RFC 8461 §3.1).
	records, _ := s.o.Resolver.TXT(ctx, "_mta-sts."+string(d))
	if id, ok := parseRecord(records); ok {
		if f := s.join(d, id, time.Now()); f != nil {
			select {
			case <-f.done:
			case <-ctx.Done():
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var p relay.STSPolicy
	now := time.Now()
	if e, ok := s.entries[d]; ok && e.holds(now) {
		p = e.STSPolicy
	}
	if f, failed := s.failures[d]; failed && now.Before(f.until) {
		p.Problem = f.problem
	}
	return p
}

// join returns the fetch of d's policy that is under way, or begins one; nil where none is due.
func (s *Store) join(d relay.Domain, id string, now time.Time) *flight {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f, ok := s.flights[d]; ok {
		return f
	}
	e, ok := s.entries[d]
	if ok && e.id == id && e.holds(now) && !e.stale(now) || s.closed {
		return nil
	}
	if f, failed := s.failures[d]; failed && f.id == id && now.Before(f.until) {
		return nil
	}
	f := &flight{done: make(chan struct{})}
	s.flights[d] = f
	s.work.Go(func() { s.fly(d, id, f) })
	return f
}

func (s *Store) fly(d relay.Domain, id string, f *flight) {
	defer close(f.done)
	var p policy
	var err error
	select {
	case s.places <- struct{}{}:
		p, err = s.get(s.ctx, d)
		<-s.places
	case <-s.ctx.Done():
		err = s.ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.flights, d)
	if err != nil {
		s.fail(d, id, err)
		return
	}
	delete(s.failures, d)
	s.put(d, entry{p, id, time.Now()})
	s.keeper.Changed()
	s.log.Debug("a policy was fetched", "rcpt", d, "mode", p.Mode)
}

// fail remembers not to ask again at once. Callers hold mu.
func (s *Store) fail(d relay.Domain, id string, err error) {
	if s.ctx.Err() != nil {
		return
	}
	now := time.Now()
	for other, f := range s.failures {
		if len(s.failures) >= maxEntries || !now.Before(f.until) {
			delete(s.failures, other)
		}
	}
	s.failures[d] = failure{id, now.Add(pause), problemOf(err)}
	_, had := s.entries[d]
	s.log.Warn("a domain's policy about TLS cannot be fetched", "rcpt", d, "err", err, "known", had)
}

// problemOf is err in a word of RFC 8460 §4.3.
func problemOf(err error) string {
	if _, untrusted := errors.AsType[*tls.CertificateVerificationError](err); untrusted {
		return relay.TLSSTSUntrustedWeb
	}
	if errors.Is(err, errInvalid) {
		return relay.TLSSTSInvalid
	}
	return relay.TLSSTSFetch
}

// put makes room by dropping the policy that ends first. Callers hold mu.
func (s *Store) put(d relay.Domain, e entry) {
	if _, had := s.entries[d]; !had && len(s.entries) >= maxEntries {
		var victim relay.Domain
		for other, o := range s.entries {
			if v := s.entries[victim]; victim == "" || o.fetched.Add(o.Age).Before(v.fetched.Add(v.Age)) {
				victim = other
			}
		}
		delete(s.entries, victim)
	}
	s.entries[d] = e
}
