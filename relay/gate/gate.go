package gate

import (
	"cmp"
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"relayd/relay"
	"relayd/relay/durable"
)

// Options are what a Gate is made of.
type Options struct {
	Path string // of the file that remembers senders
	DNS  DNS
	// Wrote says whether we have written to a domain; may be nil.
	Wrote func(relay.Domain) bool
	Log   *slog.Logger
}

// Gate weighs strangers. It is safe for many goroutines. Run must run, or no list is ever asked.
type Gate struct {
	dns    DNS
	wrote  func(relay.Domain) bool
	log    *slog.Logger
	rules  atomic.Pointer[Rules]
	ctx    context.Context // of the look-ups
	cancel context.CancelFunc

	memory  *memory
	keeper  *durable.Keeper
	opened  *rates // connections
	begun   *rates // letters
	clients clients
	counts  map[Rule]*count // never written to after Open

	mu      sync.Mutex
	zones   map[relay.Domain]*zone
	changed chan struct{} // the zones have
}

// count is how often a rule has refused, and how often it would have under Enforce.
type count struct{ refused, observed atomic.Int64 }

// Open makes a Gate that lets everybody pass until Set is called. A file that cannot be read is an
// empty memory: nobody shall wait for their mail because of it.
func Open(o Options) *Gate {
	g := &Gate{
		dns: o.DNS, wrote: o.Wrote, log: o.Log.With("room", "gate"), memory: newMemory(),
		opened: newRates(time.Minute), begun: newRates(time.Hour), counts: map[Rule]*count{},
		zones: map[relay.Domain]*zone{}, changed: make(chan struct{}, 1),
		clients: clients{known: map[netip.Addr]*client{}, most: maxClients},
	}
	for _, rule := range AllRules() {
		g.counts[rule] = &count{}
	}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	g.keeper = durable.NewKeeper(o.Path, func() ([]byte, error) { return g.memory.state(time.Now()), nil }, g.log)
	if err := g.memory.read(o.Path); err != nil {
		g.log.Warn("the senders of earlier letters cannot be read", "file", o.Path, "err", err)
	}
	g.rules.Store(&Rules{})
	return g
}

// Set puts rules in force. What is known of a zone stays known.
func (g *Gate) Set(r Rules) {
	g.mu.Lock()
	defer g.mu.Unlock()
	next := map[relay.Domain]*zone{}
	for _, l := range r.Lists {
		if next[l.Zone] = g.zones[l.Zone]; next[l.Zone] == nil {
			next[l.Zone] = newZone(l.Zone)
		}
	}
	g.zones = next
	g.rules.Store(&r)
	select {
	case g.changed <- struct{}{}:
	default:
	}
}

// Close ends the look-ups and writes what Run has not.
func (g *Gate) Close() error {
	g.clients.mu.Lock()
	g.cancel()
	g.clients.mu.Unlock()
	g.clients.wg.Wait()
	return g.keeper.Close()
}

// Run tests the lists and writes the file now and then, until ctx ends.
func (g *Gate) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { g.keeper.Run(ctx) })
	tick := time.NewTicker(retestEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.changed:
		case <-tick.C:
		}
		g.testZones(ctx, time.Now())
	}
}

// testZones tests every zone whose turn it is, all at the same time.
func (g *Gate) testZones(ctx context.Context, now time.Time) {
	if g.rules.Load().Mode == Off {
		return
	}
	g.mu.Lock()
	zones := g.zones
	g.mu.Unlock()
	var wg sync.WaitGroup
	for _, z := range zones {
		if z.isDue(now) {
			wg.Go(func() { g.testZone(ctx, z) })
		}
	}
	wg.Wait()
}

func (g *Gate) testZone(ctx context.Context, z *zone) {
	before := z.state()
	z.test(ctx, g.dns)
	switch after := z.state(); {
	case after == before || ctx.Err() != nil:
	case after == "":
		g.log.Info("a list is in order", "list", z.name)
	default:
		g.log.Warn("a list is ignored", "list", z.name, "why", after)
	}
}

func (g *Gate) zonesOf(r *Rules) map[relay.Domain]*zone {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.rules.Load() != r {
		// These rules have just been replaced; so are their zones.
		return nil
	}
	return g.zones
}

// Visit is told of a new connection, before the greeting. It says how long the greeting waits for the
// client to talk out of turn, or why there is none.
func (g *Gate) Visit(client netip.Addr) (wait time.Duration, refusal *relay.Reply) {
	r := g.rules.Load()
	if r.passes(client) {
		return 0, nil
	}
	now := time.Now()
	if !g.opened.take(network(client), r.Connections, now) {
		if refusal = g.broke(r, RuleConnections, client); refusal != nil {
			return 0, refusal
		}
	}
	g.about(r, client)
	if r.GreetWait > 0 && !g.memory.isGood(clientKey(client), now) {
		wait = r.GreetWait
	}
	return wait, nil
}

// Breach is told that a client broke the rule called so. It returns what to say before hanging up;
// nil: to let it go on.
func (g *Gate) Breach(client netip.Addr, rule string) *relay.Reply {
	r := g.rules.Load()
	if r.passes(client) || g.counts[Rule(rule)] == nil {
		return nil
	}
	return g.broke(r, Rule(rule), client)
}

// broke counts, and says what the client hears.
func (g *Gate) broke(r *Rules, rule Rule, client netip.Addr) *relay.Reply {
	if !g.count(r, rule) {
		return nil
	}
	reply := r.reply(rule, client)
	return &reply
}

// count counts a rule that was broken and says whether that is held against anybody. Nothing that
// speaks HTTP has a letter for us, whatever the mode.
func (g *Gate) count(r *Rules, rule Rule) (refused bool) {
	if r.Mode == Enforce || rule == RuleHTTP {
		g.counts[rule].refused.Add(1)
		return true
	}
	g.counts[rule].observed.Add(1)
	return false
}

// Letter is a stranger's letter on its way in; nil, whose methods do nothing, for everybody else's. It
// belongs to one goroutine.
type Letter struct {
	gate   *Gate
	rules  *Rules
	origin relay.Origin
	client netip.Addr

	weighed bool
	score   int
	points  []Point
	counted bool // under RuleScore
	others  bool // some recipient is not the postmaster
}

// Begin is asked at MAIL. Its errors are *relay.Failure.
func (g *Gate) Begin(o relay.Origin) (*Letter, error) {
	r := g.rules.Load()
	client := o.Client.Addr().Unmap()
	if r.passes(client) {
		return nil, nil
	}
	if !g.begun.take(network(client), r.Letters, time.Now()) {
		if refusal := g.broke(r, RuleLetters, client); refusal != nil {
			return nil, relay.Fail("gate: begin", relay.ScopeMessage, *refusal, nil)
		}
	}
	return &Letter{gate: g, rules: r, origin: o, client: client}, nil
}

// weigh adds up what is known. It waits for answers where they could change what follows by the score,
// or in any case; otherwise it takes what there is.
func (l *Letter) weigh(ctx context.Context, wait bool) {
	if l.weighed {
		return
	}
	l.points = nil
	if p, bad := l.rules.judgeHelo(l.origin.Helo, l.client, l.origin.Server.Addr().Unmap()); bad {
		l.points = append(l.points, p)
	}
	c := l.gate.about(l.rules, l.client)
	if c != nil && (wait || l.rules.matters(sum(l.points)+c.most)) {
		select {
		case <-c.done:
		case <-ctx.Done():
		}
	}
	l.weighed = c == nil || c.isDone()
	if c != nil && l.weighed {
		l.points = append(l.points, c.points...)
	}
	slices.SortStableFunc(l.points, gravest)
	l.score = sum(l.points)
}

func sum(points []Point) (n int) {
	for _, p := range points {
		n += p.Weight
	}
	return n
}

func gravest(a, b Point) int {
	return cmp.Or(cmp.Compare(b.Weight, a.Weight), strings.Compare(a.Name, b.Name))
}

// Rcpt is asked about a recipient that would be accepted otherwise. Its errors are *relay.Failure.
func (l *Letter) Rcpt(ctx context.Context, to relay.Address) error {
	if l == nil || isPostmaster(to) {
		return nil
	}
	l.weigh(ctx, false)
	if l.rules.decide(l.score) == refuse && l.refused() {
		return relay.Fail("gate: rcpt", relay.ScopeMessage, l.rules.refusal(l.client, l.points), nil)
	}
	l.others = true
	return nil
}

// refused counts the letter, once, as refused by its score, and says whether it is.
func (l *Letter) refused() bool {
	if !l.counted {
		l.counted = true
		return l.gate.count(l.rules, RuleScore)
	}
	return l.rules.Mode == Enforce
}

// Verdict is what becomes of a letter that is whole.
type Verdict struct {
	Junk bool   // it goes to the folder Junk
	Note string // for its header and the log, "6 (zen.example +5, helo +1)"; empty where nothing was found
}

// Receive is asked about a letter that has come whole. proven says that it is its author's (DMARC).
// Its errors are *relay.Failure: the letter has to come again.
func (l *Letter) Receive(ctx context.Context, env relay.Envelope, proven bool) (Verdict, error) {
	if l == nil {
		return Verdict{}, nil
	}
	l.weigh(ctx, false)
	v := Verdict{Note: describe(l.score, l.points)}
	if !l.others {
		return v, nil
	}
	v.Junk = l.rules.decide(l.score) >= junk && l.rules.Mode == Enforce
	return v, l.greylist(ctx, env, proven)
}

// greylist asks somebody unknown to come again. Whoever did so once, was written to by us, proves who
// the author is, or is on a list of the good need not.
func (l *Letter) greylist(ctx context.Context, env relay.Envelope, proven bool) error {
	r, m, now := l.rules, l.gate.memory, time.Now()
	if r.Greylist <= 0 || proven || m.isGood(senderKey(l.client, env.From), now) || l.wroteTo(env.From.Domain) {
		return nil
	}
	if l.weigh(ctx, true); l.score < 0 {
		return nil
	}
	var left time.Duration
	for _, k := range l.keys(env) {
		first, fresh := m.since(k, now)
		left = max(left, r.Greylist-now.Sub(first))
		if fresh {
			l.gate.keeper.Changed()
		}
	}
	if left <= 0 || !l.gate.count(r, RuleGreylist) {
		return nil
	}
	return relay.Fail("gate: receive", relay.ScopeMessage, r.notYet(left), nil)
}

// maxKeys is how many recipients of a letter are remembered.
const maxKeys = 20

// keys are what the letter is known by when it comes again.
func (l *Letter) keys(env relay.Envelope) (keys []key) {
	for _, r := range env.Rcpts[:min(len(env.Rcpts), maxKeys)] {
		if k := letterKey(l.client, env.From, cmp.Or(r.Orig, r.Addr.String())); !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
	}
	return keys
}

func (l *Letter) wroteTo(d relay.Domain) bool {
	return d != "" && l.gate.wrote != nil && !l.rules.isOurs(d) && l.gate.wrote(d)
}

// Accepted is told that the letter is ours now. It never waits for the disk.
func (l *Letter) Accepted(env relay.Envelope) {
	isJunk := func(r relay.Recipient) bool { return r.Junk }
	if l == nil || !l.others || env.Junk || slices.ContainsFunc(env.Rcpts, isJunk) || l.rules.decide(l.score) != deliver {
		return
	}
	g := l.gate
	if g.memory.setGood(time.Now(), clientKey(l.client), senderKey(l.client, env.From)) {
		g.keeper.Changed()
	}
	if l.rules.Greylist > 0 {
		g.memory.done(l.keys(env)...)
	}
}
