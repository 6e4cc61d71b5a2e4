package resolver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"

	"relayd/relay"
)

// The bounds of one question, unless an Option says otherwise.
const (
	defaultTimeout = 5 * time.Second  // for one server to answer once
	defaultRounds  = 2                // how often every server is asked
	maxTotal       = 20 * time.Second // for the whole question, aliases and TCP included
	maxTries       = 8
	maxAliases     = 8
	maxInFlight    = 256 // questions at the same time, each a socket
)

var errClosed = errors.New("the resolver is closed")

// Resolver implements relay.Resolver. It is safe for concurrent use. Close it when nobody asks
// any more.
type Resolver struct {
	servers *serverList
	trustAD bool
	timeout time.Duration
	rounds  int
	cache   *cache
	places  chan struct{} // a place for each question in flight

	// exchange sends one query to one server once; tests replace it.
	exchange func(ctx context.Context, server netip.AddrPort, m *dns.Msg, overTCP bool) (*dns.Msg, error)

	ctx    context.Context
	cancel context.CancelFunc

	mu      sync.Mutex
	closed  bool
	flights map[question]*flight
	done    sync.WaitGroup
}

// question is one name, canonical (lower case, final dot), and one type.
type question struct {
	name  string
	qtype uint16
}

func (q question) String() string {
	return dns.TypeToString[q.qtype] + " " + q.name
}

// Option changes a bound.
type Option func(*Resolver)

// TrustAD believes the AD bit of every server. Without it, it is believed while all servers are on
// loopback: elsewhere on the network anybody could set it.
func TrustAD(on bool) Option { return func(r *Resolver) { r.trustAD = on } }

// Timeout sets how long one server has to answer one query.
func Timeout(d time.Duration) Option { return func(r *Resolver) { r.timeout = d } }

// Rounds sets how often each server is asked before the question is given up.
func Rounds(n int) Option { return func(r *Resolver) { r.rounds = max(n, 1) } }

// CacheSize sets how many octets of answers are kept at most; 0 keeps none.
func CacheSize(octets int) Option { return func(r *Resolver) { r.cache = newCache(octets) } }

// New makes a Resolver that asks servers in this order, staying with the one that answered last.
// Without servers it asks those of /etc/resolv.conf, and follows that file when it changes.
func New(servers []netip.AddrPort, opts ...Option) (*Resolver, error) {
	for _, s := range servers {
		if !s.IsValid() || s.Port() == 0 {
			return nil, fmt.Errorf("resolver: %q is not an address and port of a DNS server", s)
		}
	}
	r := &Resolver{
		servers: newServerList(servers),
		timeout: defaultTimeout,
		rounds:  defaultRounds,
		cache:   newCache(defaultCacheSize),
		places:  make(chan struct{}, maxInFlight),
		flights: map[question]*flight{},
	}
	r.exchange = exchange
	r.ctx, r.cancel = context.WithCancel(context.Background())
	for _, opt := range opts {
		opt(r)
	}
	return r, nil
}

// Close breaks off what is under way and waits for it.
func (r *Resolver) Close() error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.cancel()
	r.done.Wait()
	return nil
}

// flight is a question under way; everybody who asks it meanwhile waits for the same answer.
type flight struct {
	done chan struct{}
	ans  answer
	err  error
}

// lookup answers one question from the cache or from the servers. The error wraps
// relay.ErrNoRecord when the answer is that there is none.
func (r *Resolver) lookup(ctx context.Context, name string, qtype uint16) ([]dns.RR, error) {
	ans, err := r.find(ctx, name, qtype)
	return ans.rrs, err
}

// find is lookup with all that is known of the answer; secure counts beside ErrNoRecord too.
func (r *Resolver) find(ctx context.Context, name string, qtype uint16) (answer, error) {
	q := question{dns.CanonicalName(name), qtype}
	if labels, ok := dns.IsDomainName(q.name); !ok || labels == 0 {
		// Such a name cannot be in the DNS, and no later attempt will change that.
		return answer{}, fmt.Errorf("resolver: %s: not a name the DNS can hold: %w", q, relay.ErrNoRecord)
	}
	ans, err := r.answer(ctx, q)
	if err == nil {
		err = ans.negative
	}
	if err != nil {
		return ans, fmt.Errorf("resolver: %s: %w", q, err)
	}
	return ans, nil
}

func (r *Resolver) answer(ctx context.Context, q question) (answer, error) {
	if ans, ok := r.cache.get(q, time.Now()); ok {
		return ans, nil
	}
	f, err := r.join(q)
	if err != nil {
		return answer{}, err
	}
	select {
	case <-f.done:
		return f.ans, f.err
	case <-ctx.Done():
		return answer{}, ctx.Err()
	}
}

// join returns the flight of q, starting it if there is none. The flight does not end when the
// first who asked leaves, because others may be waiting; maxTotal ends it.
func (r *Resolver) join(q question) (*flight, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, errClosed
	}
	if f, ok := r.flights[q]; ok {
		return f, nil
	}
	f := &flight{done: make(chan struct{})}
	r.flights[q] = f
	r.done.Go(func() { r.fly(q, f) })
	return f, nil
}

func (r *Resolver) fly(q question, f *flight) {
	ctx, cancel := context.WithTimeout(r.ctx, maxTotal)
	defer cancel()
	select {
	case r.places <- struct{}{}:
		f.ans, f.err = r.resolve(ctx, q)
		<-r.places
	case <-ctx.Done():
		f.err = fmt.Errorf("too many questions at once: %w", ctx.Err())
	}
	if f.err == nil {
		r.cache.put(q, f.ans, time.Now())
	}
	r.mu.Lock()
	delete(r.flights, q)
	r.mu.Unlock()
	close(f.done)
}

// resolve follows aliases across as many questions as that takes. Recursive servers put the
// whole chain into one answer; those that do not get asked again.
func (r *Resolver) resolve(ctx context.Context, q question) (answer, error) {
	ttl := maxPositive
	name := q.name
	secure := r.trusts()
	for range maxAliases {
		m, err := r.ask(ctx, question{name, q.qtype})
		if err != nil {
			return answer{}, err
		}
		ans, next, err := read(m, name, q.qtype)
		if err != nil {
			return answer{}, err
		}
		ttl = min(ttl, ans.ttl)
		secure = secure && m.AuthenticatedData
		if next == "" {
			ans.ttl, ans.secure = ttl, secure
			return ans, nil
		}
		name = next
	}
	return answer{}, errors.New("too many aliases, or aliases in a circle")
}
