package delivery

import (
	"context"
	"io"
	"iter"
	"log/slog"
	"maps"
	"sync"
	"time"

	"relayd/queue"
	"relayd/relay"
)

// Deliverer makes one attempt at one domain. delivery/mx is one.
type Deliverer interface {
	// Deliver returns one result for each of env.Rcpts; a recipient it says nothing about is
	// deferred. It ends soon after ctx. body may be read several times, from its start.
	Deliver(ctx context.Context, env relay.Envelope, domain relay.Domain, body io.ReadSeeker) []relay.Result
}

// Queue is what the drain needs of queue.Queue; a second store can take its place.
type Queue interface {
	Take(ctx context.Context, now time.Time, n int, skip func(relay.Domain) bool) ([]queue.Item, error)
	Settle(ctx context.Context, k queue.Key, results []relay.Result, warned bool) error
	GiveBack(k queue.Key)
	NextDue() (time.Time, bool)
	Wake() <-chan struct{}
	Body(id relay.ID) (io.ReadSeekCloser, error)
	List(ctx context.Context, f queue.Filter) iter.Seq2[queue.Item, error]
	Hasten(domain relay.Domain) int
}

// Options are what a Drain is made of.
type Options struct {
	Queue     Queue
	Deliverer Deliverer
	Submit    relay.Submitter // for reports: relay/intake
	Hostname  relay.Domain    // who reports
	Schedule  func() queue.Schedule
	// Local says whether an address is one of ours; nil: none is.
	Local func(relay.Address) bool
	// Language is that of what a sender reads in a report, one of dsn.Languages; nil: English.
	Language func(sender relay.Address) string
	Log      *slog.Logger

	// Paused says whether the operator lets the mail of a domain rest; it stays due. nil: of none.
	Paused func(relay.Domain) bool

	Total          int // attempts at the same time; default 100
	PerDestination int // of them to one domain; default 10
	Limits         []Limit
	// Hosts are the most preferred mail hosts of a domain, or where a route leads; needed by Limit.MX.
	Hosts func(ctx context.Context, d relay.Domain) ([]relay.Domain, error)
	// Outages is the file that remembers when our own line was down; empty: none. Proven says which
	// domains have taken mail before; nil: all.
	Outages string
	Proven  func(relay.Domain) bool
	// Inner says whether a domain's mail goes to a server of the same house, which our line has nothing to
	// do with; nil: no domain's does.
	Inner func(relay.Domain) bool
	// Reach says whether our line works, by calling others than those that fail. It ends with ctx, and
	// within minutes. nil: the failures alone decide.
	Reach func(ctx context.Context, failing []relay.Domain) bool
	// Revive makes the Deliverer forget who did not answer: our own line was to blame. nil: it keeps
	// no such thing.
	Revive func()

	Grace time.Duration // for running attempts when Run's context ends; default 10 s

	// Step is told what is done of an attempt and a report; tests crash there, nil elsewhere.
	Step func(name string)
}

// The defaults of Options.
const (
	defaultTotal          = 100
	defaultPerDestination = 10
	defaultGrace          = 10 * time.Second
)

// How the drain waits when it cannot go by the queue's clock.
const (
	// recheck is how often a queue with due items is asked although the last Take found none that
	// may run: another domain than the busy one may have become due meanwhile.
	recheck = time.Second
	// longestSleep bounds a sleep, because timers do not notice that the clock was set.
	longestSleep = time.Minute
	// maxBackoff bounds the wait after an error of the queue.
	maxBackoff = time.Minute
)

// Drain empties the queue. One Run at a time; Bounce may be called at any time.
type Drain struct {
	Options
	log   *slog.Logger
	paces *paces
	lanes *lanes
	line  *line

	mu      sync.Mutex
	busy    map[queue.Key]bool   // items under way, in Run or in Bounce; true: taken again meanwhile
	running map[relay.Domain]int // attempts of Run that are talking to the domain
	active  int                  // all attempts of Run, those being settled too
	freed   chan struct{}        // a slot became free
	workers sync.WaitGroup
}

// New makes a Drain; Run starts it.
func New(o Options) *Drain {
	if o.Total <= 0 {
		o.Total = defaultTotal
	}
	if o.PerDestination <= 0 {
		o.PerDestination = defaultPerDestination
	}
	if o.Grace <= 0 {
		o.Grace = defaultGrace
	}
	if o.Revive == nil {
		o.Revive = func() {}
	}
	if o.Step == nil {
		o.Step = func(string) {}
	}
	line, err := newLine(o.Outages, o.Total, o.Proven)
	if err != nil {
		o.Log.Warn("the outages of our line are forgotten", "room", "delivery", "err", err)
	}
	return &Drain{
		line:    line,
		Options: o,
		log:     o.Log.With("room", "delivery"),
		paces:   newPaces(o.Total, o.PerDestination),
		lanes:   newLanes(o.Limits, o.Hosts),
		busy:    map[queue.Key]bool{},
		running: map[relay.Domain]int{},
		freed:   make(chan struct{}, 1),
	}
}

// Run delivers until ctx ends, then gives running attempts a grace, and returns nil when all of
// them are settled. Errors of the queue are logged and waited out, never returned.
func (d *Drain) Run(ctx context.Context) error {
	attempts, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	backoff := time.Duration(0)
	for ctx.Err() == nil {
		took, err := d.take(ctx, attempts)
		switch {
		case err != nil && ctx.Err() == nil:
			backoff = min(max(2*backoff, time.Second), maxBackoff)
			d.log.Error("the queue cannot be read", "err", err, "next", backoff)
			pause(ctx, backoff)
		case err == nil:
			backoff = 0
			d.wait(ctx, took)
		}
	}
	d.finish(cancel)
	return nil
}

// take starts an attempt for each due item there is room for.
func (d *Drain) take(ctx, attempts context.Context) (took int, err error) {
	if d.Inner != nil && d.line.isQuiet() {
		// What stays in the house is not held up.
		if took, err = d.takeSome(ctx, attempts, d.spare(), func(domain relay.Domain) bool { return !d.inner(domain) }); err != nil {
			return took, err
		}
	}
	room := d.room()
	if room == 0 {
		return took, nil
	}
	outside := func(relay.Domain) bool { return false }
	if !d.LineDown().IsZero() {
		outside = d.inner  // it would prove nothing
		d.Revive()         // or the probe would only be told what the last one was
		d.Queue.Hasten("") // or nobody might be due for hours, to find out
	}
	n, err := d.takeSome(ctx, attempts, room, outside)
	if n > 0 {
		d.line.probed(time.Now())
		if !d.LineDown().IsZero() {
			d.askAround(attempts)
		}
	}
	return took + n, err
}

func (d *Drain) inner(domain relay.Domain) bool { return d.Inner != nil && d.Inner(domain) }

// takeSome starts attempts at room items at most, of domains that skip lets through.
func (d *Drain) takeSome(ctx, attempts context.Context, room int, skip func(relay.Domain) bool) (int, error) {
	if room <= 0 {
		return 0, nil
	}
	now := time.Now()
	traffic := d.lanes.traffic(d.planned(), func(domain relay.Domain) {
		d.workers.Go(func() { d.lanes.find(attempts, domain); d.free() })
	})
	budget := d.paces.budget(d.planned())
	items, err := d.Queue.Take(ctx, now, room, func(domain relay.Domain) bool {
		if skip(domain) || d.Paused != nil && d.Paused(domain) || traffic.full(domain, now) || budget.skip(domain) {
			return true
		}
		traffic.start(domain, now)
		return false
	})
	for _, item := range items {
		d.start(attempts, item)
	}
	return len(items), err
}

// room returns how many attempts may start.
func (d *Drain) room() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.line.room(d.Total-d.active, d.active, time.Now())
}

// spare returns how many attempts fewer there are than there may be, whatever the line bears.
func (d *Drain) spare() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.Total - d.active
}

// planned returns how many attempts each domain has under way, to count on.
func (d *Drain) planned() map[relay.Domain]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.running)
}

// start runs the attempt at item. An item that is still under way comes again when the operator is
// impatient: between the settling of an attempt and its end, or while its report is on its way. Two
// attempts at once would deliver it twice, so it goes back when the first has ended.
func (d *Drain) start(ctx context.Context, item queue.Item) {
	if !d.claimTaken(item.Key()) {
		return
	}
	d.mu.Lock()
	d.running[item.Domain]++
	d.active++
	d.mu.Unlock()
	d.workers.Go(func() {
		defer d.stop(item)
		d.attempt(ctx, item)
	})
}

// learn keeps what an attempt shows of its destination. A success calls the letters that wait there.
func (d *Drain) learn(ctx context.Context, item queue.Item, results []relay.Result) {
	var news news
	var err error
	if !d.inner(item.Domain) {
		news, err = d.line.heard(item.Domain, results, time.Now())
	}
	switch {
	case news == suspected && d.Reach != nil:
		d.askAround(ctx)
	case news == suspected:
		news, err = d.line.condemn(time.Now())
	}
	d.tellLine(news, err)
	if d.paces.heard(item.Domain, results, item.Attempts > 1) {
		if n := d.Queue.Hasten(item.Domain); n > 0 {
			d.log.Debug("the domain works again, what waits for it is due", "rcpt", item.Domain, "count", n)
		}
	}
}

func (d *Drain) tellLine(news news, err error) {
	switch news {
	case wentDown:
		d.log.Warn("our own line seems to be down: nobody can be reached; mail waits, and nothing is given up", "err", err)
	case cameUp:
		d.Revive()
		d.log.Warn("our line is up again", "count", d.Queue.Hasten(""), "err", err)
	}
}

// hangUp makes room for another attempt at the domain. The settling that follows does not concern
// the remote and waits for our disk, which many can do at once.
func (d *Drain) hangUp(domain relay.Domain) {
	d.mu.Lock()
	if d.running[domain]--; d.running[domain] == 0 {
		delete(d.running, domain)
	}
	d.mu.Unlock()
	d.free()
}

func (d *Drain) stop(item queue.Item) {
	d.release(item.Key())
	d.mu.Lock()
	d.active--
	d.mu.Unlock()
	d.free()
}

func (d *Drain) free() {
	select {
	case d.freed <- struct{}{}:
	default:
	}
}

// claim makes the caller the only one to handle the item, or returns false.
func (d *Drain) claim(k queue.Key) bool { return d.claimItem(k, false) }

// claimTaken is claim for an item that Take has handed out: whoever handles it gives it back then.
func (d *Drain) claimTaken(k queue.Key) bool { return d.claimItem(k, true) }

func (d *Drain) claimItem(k queue.Key, taken bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if again, busy := d.busy[k]; busy {
		d.busy[k] = again || taken
		return false
	}
	d.busy[k] = false
	return true
}

// Busy says whether somebody handles the item.
func (d *Drain) Busy(k queue.Key) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, busy := d.busy[k]
	return busy
}

func (d *Drain) release(k queue.Key) {
	d.mu.Lock()
	again := d.busy[k]
	delete(d.busy, k)
	d.mu.Unlock()
	if again {
		d.Queue.GiveBack(k)
	}
}

// wait returns when another Take may find something: new mail, a free slot, or time.
func (d *Drain) wait(ctx context.Context, took int) {
	room := d.room()
	var timer <-chan time.Time
	if next, ok := d.Queue.NextDue(); ok && (room > 0 || !d.LineDown().IsZero()) {
		sleep := time.Until(next)
		if sleep <= 0 && took > 0 {
			return // there may be more
		}
		timer = time.After(min(max(sleep, minSleep(sleep)), longestSleep))
	}
	select {
	case <-ctx.Done():
	case <-d.Queue.Wake():
	case <-d.freed:
	case <-timer:
	}
}

// minSleep: something is due and yet nothing could be taken, because its domain is busy.
func minSleep(sleep time.Duration) time.Duration {
	if sleep <= 0 {
		return recheck
	}
	return 0
}

// finish waits for the workers, and hurries them after the grace.
func (d *Drain) finish(cancel context.CancelFunc) {
	timer := time.AfterFunc(d.Grace, cancel)
	defer timer.Stop()
	d.workers.Wait()
}

// pause sleeps for so long, or until ctx ends, and says whether it slept it out.
func pause(ctx context.Context, long time.Duration) bool {
	timer := time.NewTimer(long)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
