package tlsrpt

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"relayd/relay"
	"relayd/relay/durable"
)

// Options say how a Store works. Path, Hostname, Resolver and Submit are required.
type Options struct {
	Path     string // of the file that outlives a restart
	Hostname relay.Domain
	Resolver relay.Resolver
	Submit   relay.Submitter // takes reports that go by mail
	Roots    *x509.CertPool  // of web servers that take reports; nil: the system's
	// Dial makes the TCP connection to one; nil: it does.
	Dial          func(ctx context.Context, addr netip.AddrPort) (net.Conn, error)
	AllowLoopback bool // they may be on this machine or in private networks, for development and tests
	Log           *slog.Logger
}

// Store counts sessions and sends reports. It is safe for concurrent use. Run sends and keeps the file;
// Close it when nobody notes any more.
type Store struct {
	o      Options
	log    *slog.Logger
	client *http.Client
	keeper *durable.Keeper

	sending sync.Mutex // one sends at a time

	mu     sync.Mutex
	all    map[key]*Counts
	size   int
	full   time.Time // the day on which we said that there is no more room
	wanted chan struct{}
}

// key is a domain on a day.
type key struct {
	day    int64 // seconds since 1970
	domain relay.Domain
}

const day = 24 * time.Hour

func keyOf(at time.Time, d relay.Domain) key { return key{at.UTC().Truncate(day).Unix(), d} }

// Open reads the file. One that is missing or damaged costs what cannot be read of it.
func Open(o Options) *Store {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Store{o: o, log: o.Log.With("room", "tlsrpt"), all: map[key]*Counts{}, wanted: make(chan struct{}, 1)}
	s.client = s.newClient()
	s.keeper = durable.NewKeeper(o.Path, s.state, s.log)
	s.read()
	return s
}

// Close writes what Run has not.
func (s *Store) Close() error { return s.keeper.Close() }

// Note counts a session, for the domain it was for and, where TLSA records were to be met, for the host
// that publishes them (RFC 8460 §1.1). It never waits for the disk.
func (s *Store) Note(session relay.TLSSession) {
	session.Policy = bounded(session.Policy)
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(keyOf(now, session.Domain), session)
	if p := session.Policy; p.Type == relay.TLSPolicyTLSA && p.Domain != session.Domain {
		s.add(keyOf(now, p.Domain), session)
	}
	s.keeper.Changed()
}

// add counts for a domain. Callers hold mu.
func (s *Store) add(k key, session relay.TLSSession) {
	c := s.all[k]
	if c == nil && s.size+countsSize+policySize+len(k.domain) > maxSize {
		s.noRoom(k)
		return
	}
	if c == nil {
		c = &Counts{Day: time.Unix(k.day, 0).UTC(), Domain: k.domain, size: countsSize + len(k.domain)}
		s.all[k] = c
		s.size += c.size
		s.wake()
	}
	took := c.add(session, maxSize-s.size)
	c.size += took
	s.size += took
}

// noRoom says so once a day. Callers hold mu.
func (s *Store) noRoom(k key) {
	if today := time.Unix(k.day, 0).UTC(); !today.Equal(s.full) {
		s.full = today
		s.log.Warn("TLS reports have no room for further domains today", "count", len(s.all))
	}
}

// wake has Run look when the next report is due.
func (s *Store) wake() {
	select {
	case s.wanted <- struct{}{}:
	default:
	}
}

// List returns what is counted, by day and domain. Policies are shared and must not be changed.
func (s *Store) List() []Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.list()
}

func (s *Store) list() []Counts {
	list := make([]Counts, 0, len(s.all))
	for _, c := range s.all {
		shown := *c
		shown.Policies = slices.Clone(c.Policies)
		for i := range shown.Policies {
			shown.Policies[i].Details = slices.Clone(c.Policies[i].Details)
		}
		list = append(list, shown)
	}
	slices.SortFunc(list, func(a, b Counts) int { return cmp.Or(a.Day.Compare(b.Day), cmp.Compare(a.Domain, b.Domain)) })
	return list
}

// Bounds of what is read of the file: JSON is longer than what it stands for.
const (
	maxFile = 8 * maxSize
	maxLine = 16 << 20
)

// state is the file, a line for each domain and day.
func (s *Store) state() ([]byte, error) {
	var b bytes.Buffer
	out := json.NewEncoder(&b)
	for _, c := range s.List() {
		if err := out.Encode(c); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}

func (s *Store) read() {
	err := durable.ReadLines(s.o.Path, maxFile, maxLine, func(text []byte) {
		var c Counts
		if json.Unmarshal(text, &c) != nil {
			return
		}
		d, err := relay.ParseDomain(string(c.Domain))
		k := keyOf(c.Day, d)
		c.measure()
		if err != nil || s.all[k] != nil || !c.Day.Equal(time.Unix(k.day, 0)) || s.size+c.size > maxSize {
			return
		}
		s.all[k] = &c
		s.size += c.size
	})
	if err != nil {
		s.log.Warn("not all that was counted of TLS before can be read", "file", s.o.Path, "err", err)
	}
}
