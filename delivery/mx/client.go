// Package mx makes one attempt to bring one letter to one domain: whom to ask (hosts.go), the
// connection (conn.go), the dialogue (session.go, transaction.go, data.go), and what the answers
// mean (verdict.go). Letters come from delivery, which keeps the results and decides when to try
// again. Nothing here waits between attempts or remembers a letter.
package mx

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"relayd/relay"
)

// Config is what a Client needs. Hostname and Resolver are required.
type Config struct {
	Hostname relay.Domain // what we say in EHLO
	Resolver relay.Resolver

	// SelfName and SelfAddr know the names and addresses under which this server takes mail;
	// an MX that is one of them is a loop. nil: only Hostname, loopback and 0.0.0.0 are.
	SelfName func(relay.Domain) bool
	SelfAddr func(netip.AddrPort) bool
	// AllowLoopback lets MX records and address literals lead to 127/8 and ::1, for development
	// and tests. Routes may always lead there.
	AllowLoopback bool

	// Backup says whether we are only a backup MX of a domain: its mail goes to nobody but mail hosts that
	// the DNS prefers to us, whatever routes for all domains say, and what the DNS says wrong of it is
	// temporary. nil: of none.
	Backup func(relay.Domain) bool

	// LocalAddr chooses our own address for a connection to remote; the zero Addr, or nil for
	// the function: the kernel does.
	LocalAddr func(remote netip.Addr) netip.Addr
	// Source is the address that a connection to remote would come from, zero where there is no way to it.
	// Its PTR record decides about IPv6; nil: nobody asks.
	Source func(remote netip.Addr) netip.Addr
	Port   int // 0: 25
	// Dial makes the TCP connection; nil: it does. local is zero where the kernel may choose.
	Dial func(ctx context.Context, local netip.Addr, remote netip.AddrPort) (net.Conn, error)

	TLS     *tls.Config // nil: defaults. Names and verification are set by need, with its RootCAs
	Offered Memory      // which hosts had TLS before; nil: nobody remembers
	// Secure knows what DNSSEC vouches for; nil: no DANE.
	Secure   relay.SecureResolver
	Policies Policies     // what domains say of their hosts; nil: nothing
	Routes   []Route      // the first that matches wins
	Rescued  func(Rescue) // nil, or told of every letter that a Route.On takes; it must not wait
	// Sessions is told what every new connection shows of TLS; it must not wait. nil: nobody is.
	Sessions func(relay.TLSSession)
	Timeouts Timeouts
	Shuffle  func(n int, swap func(i, j int)) // nil: by chance. Orders hosts of equal preference
	Log      *slog.Logger
}

// Client attempts deliveries. It is safe for concurrent use; Close it when the last has ended.
type Client struct {
	cfg      Config
	timeouts Timeouts
	port     uint16
	log      *slog.Logger
	routes   atomic.Pointer[[]Route]
	idle     *idle
	dead     *dead
	slow     slowHosts
	sources  *sources
}

// New makes a Client. It dials nobody.
func New(cfg Config) *Client {
	if cfg.Dial == nil {
		cfg.Dial = dialTCP
	}
	if cfg.Shuffle == nil {
		cfg.Shuffle = rand.Shuffle
	}
	if cfg.Port == 0 {
		cfg.Port = 25
	}
	if cfg.TLS == nil {
		cfg.TLS = &tls.Config{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.TLS = cfg.TLS.Clone()
	if cfg.TLS.ClientSessionCache == nil {
		cfg.TLS.ClientSessionCache = tls.NewLRUClientSessionCache(256)
	}
	c := &Client{cfg: cfg, timeouts: cfg.Timeouts.withDefaults(), port: uint16(cfg.Port), log: cfg.Log.With("room", "mx")}
	c.idle, c.dead, c.sources = newIdle(c.timeouts.Idle), newDead(), newSources()
	c.SetRoutes(cfg.Routes)
	return c
}

// SetRoutes replaces the routes; attempts under way keep theirs.
func (c *Client) SetRoutes(routes []Route) { c.routes.Store(&routes) }

// Close says goodbye on the connections that are kept open and waits, for a few seconds at
// most, until they are closed. Deliver may still be called, and keeps no connection then.
func (c *Client) Close() error {
	c.idle.close()
	c.sources.close()
	return nil
}

// Deliver makes one attempt to bring env's letter to its recipients, who are all of domain, and
// returns one Result for each of env.Rcpts, in their order. body is the letter with CRLF line
// ends; it is read from its start once for each transaction. The attempt ends with ctx, or
// after Timeouts.Total and the time the body may take.
func (c *Client) Deliver(ctx context.Context, env relay.Envelope, domain relay.Domain, body io.ReadSeeker) []relay.Result {
	l, err := newLetter(env, body)
	if err != nil {
		l.recordOwn(l.pending(), hostUncertain, diskReply(err))
		return l.results()
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeouts.Total+c.timeouts.body(l.size))
	defer cancel()
	tr := &transcript{begun: time.Now()}
	ctx = tr.taking(ctx)
	ch, err := c.choose(ctx, &l.env, domain)
	if err != nil {
		l.recordOwn(l.pending(), hostTrouble, dnsReply(ctx, "the MX records of "+string(domain), err))
		return l.results()
	}
	c.goVia(ctx, l, domain, ch)
	return tr.attachTo(l.results())
}

// goVia tries the targets of a choice, and then its rescue.
func (c *Client) goVia(ctx context.Context, l *letter, domain relay.Domain, ch choice) {
	if ch.via != nil && ch.via.LMTP {
		c.goLMTP(ctx, l, ch.via)
		return
	}
	targets, v, reply := c.targets(ctx, domain, ch.via)
	if len(targets) == 0 {
		transcriptOf(ctx).note("%s", reply.Text)
		l.recordOwn(l.pending(), v, reply)
		return
	}
	targets, l.notSix = c.pickFamilies(ctx, targets)
	l.choice = l.notSix != "" || slices.ContainsFunc(targets, target.isIPv6) && slices.ContainsFunc(targets, target.isIPv4)
	if l.notSix != "" {
		transcriptOf(ctx).note("IPv4, not IPv6: %s", l.notSix)
	}
	p := c.plan(ctx, domain, ch.via, l.env.RequireTLS)
	c.tryAll(c.watching(ctx, l, p, ch.via), l, p, targets)
	if ch.rescue != nil {
		c.rescue(ctx, l, domain, ch.rescue)
	}
}

// tryAll asks one target after the other until no recipient is left that another might take.
func (c *Client) tryAll(ctx context.Context, l *letter, p plan, targets []target) {
	answered := make(map[string]bool)
	tried := 0
	for _, t := range targets {
		if tried == maxTried || len(l.pending()) == 0 || ctx.Err() != nil {
			break
		}
		if answered[t.name] {
			continue // the same host by another address would only say the same
		}
		err := c.try(ctx, l, p, t)
		answered[t.name] = err == nil
		if err != nil {
			c.log.Debug("this host failed", "id", l.env.ID, "mx", t.String(), "err", err)
		}
		if !noNetwork(err) && !barred(err) {
			tried++
		}
	}
	if ctx.Err() != nil {
		l.trouble[""] = true
		l.recordOwn(l.pending(), hostTrouble, cutShortReply(ctx))
	}
}

// try asks one target, on as many connections as it wants (RFC 9422 MAILMAX). nil means that
// the host has answered for every recipient, well or badly.
func (c *Client) try(ctx context.Context, l *letter, p plan, t target) (err error) {
	todo := l.pending()
	t.need, err = c.require(ctx, p, t)
	// The writer may want it to arrive rather than to be safe; what the operator wants comes first.
	if l.env.RequireTLS {
		t.need, err = p.requireTLS(t, err)
	} else if (err != nil || t.need.mandatory()) && p.tls == "" && l.waivesTLS() {
		t.need, err = security{level: levelMay, source: "TLS-Required: No"}, nil
	}
	if err != nil {
		watchOf(ctx).failed(t, nil, err)
		err = lost(phasePolicy, err)
		l.recordLoss(ctx, t, nil, todo, err)
		return err
	}
	for len(todo) > 0 {
		s, err := c.session(ctx, t)
		var rest []int
		if err == nil {
			t = s.target
			rest, err = s.deliver(l, todo)
			s.end(c.idle)
			if err != nil && s.reused {
				continue // it had died while it waited: nobody's failure
			}
		}
		if err != nil {
			transcriptOf(ctx).note("%s", err)
			l.recordLoss(ctx, t, s, l.pending(), err)
			return err
		}
		todo = rest
	}
	delete(l.trouble, t.name)
	return nil
}

// session is one that waits, or a new one.
func (c *Client) session(ctx context.Context, t target) (*session, error) {
	key := t
	key.second = netip.AddrPort{}
	if s := c.idle.take(key); s != nil {
		s.reused = true
		s.attach(ctx)
		s.transcript.note("%s, on a connection that was open", t)
		return s, nil
	}
	if err := c.dead.check(t.addr, c.timeouts.Connect+c.timeouts.Greeting); err != nil {
		return nil, err
	}
	s, err := c.connect(ctx, t)
	if s != nil {
		t = s.target
	}
	c.dead.note(ctx, t.addr, err)
	return s, err
}

func cutShortReply(ctx context.Context) relay.Reply {
	r := relay.Reply{Code: 451, Status: relay.Status{4, 4, 7}, Text: "the attempt took too long and was cut short"}
	if errors.Is(ctx.Err(), context.Canceled) {
		r.Status, r.Text = relay.Status{4, 3, 2}, "the attempt was cut short because this server is stopping"
	}
	return r
}

func diskReply(err error) relay.Reply {
	return relay.Reply{Code: 451, Status: relay.Status{4, 3, 0}, Text: "the message cannot be read from the queue: " + lossText(err)}
}
