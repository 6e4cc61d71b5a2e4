package filter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"relayd/relay"
)

// Chain is all programs of the config. relay/intake asks it; cmd/relayd sets it and runs it.
type Chain struct {
	hostname string
	log      *slog.Logger
	members  atomic.Pointer[[]*member]
	setting  sync.Mutex
	dial     dialer
}

// New makes a Chain without programs. Its hostname is told to them and stands in fields.
func New(hostname relay.Domain, log *slog.Logger) *Chain {
	c := &Chain{hostname: string(hostname), log: log.With("room", "filter"), dial: dial}
	c.members.Store(&[]*member{})
	return c
}

// Set puts these programs in force for the letters from now on. Those that stay as they were keep
// what is known of them.
func (c *Chain) Set(all []Config) {
	c.setting.Lock()
	defer c.setting.Unlock()
	before := map[Config]*member{}
	for _, m := range *c.members.Load() {
		before[m.Config] = m
	}
	members := make([]*member, 0, len(all))
	for _, config := range all {
		m := before[config]
		if m == nil {
			m = &member{Config: config, program: newProgram(config, c.hostname), places: make(chan struct{}, atOnce), dial: c.dial}
			m.log = c.log.With("filter", config.Name)
		}
		members = append(members, m)
	}
	c.members.Store(&members)
}

// Asks says whether any program would be shown a letter of our own people, or of others.
func (c *Chain) Asks(ours bool) bool {
	for _, m := range *c.members.Load() {
		if m.Ours || !ours {
			return true
		}
	}
	return false
}

// Writes says whether a field is one of those that our programs' findings stand in, so that only they
// may write it. name is in lower case.
func (c *Chain) Writes(name string) bool {
	for _, m := range *c.members.Load() {
		switch {
		case m.Kind == Rspamd && (name == "x-spam" || strings.HasPrefix(name, "x-spam-") || strings.HasPrefix(name, "x-spamd-") || strings.HasPrefix(name, "x-rspamd-")):
			return true
		case m.Kind == Clamd && (name == "x-virus-scanned" || name == "x-virus-status"):
			return true
		}
	}
	return false
}

// Check asks every program that this letter is for, all at the same time, and waits for all of them.
// The Verdicts come in the order of the config. An error is our own: the letter could not be read, or
// ctx has ended.
func (c *Chain) Check(ctx context.Context, l Letter) ([]Verdict, error) {
	var asked []*member
	for _, m := range *c.members.Load() {
		if m.Ours || !l.Ours {
			asked = append(asked, m)
		}
	}
	verdicts, errs := make([]Verdict, len(asked)), make([]error, len(asked))
	var wg sync.WaitGroup
	for i, m := range asked {
		wg.Go(func() { verdicts[i], errs[i] = m.check(ctx, &l) })
	}
	wg.Wait()
	return verdicts, errors.Join(errs...)
}

// State is how one program is.
type State struct {
	Name, Address string
	Defer         bool
	Down          time.Time // since when; zero: it is up
	Problem       string    // why it is down
	Counts        map[string]int64
}

// States is how all of them are, in the order of the config.
func (c *Chain) States() []State {
	var all []State
	for _, m := range *c.members.Load() {
		all = append(all, m.state())
	}
	return all
}

const (
	probeEvery   = 5 * time.Second
	probeTimeout = 10 * time.Second
	dialTimeout  = 10 * time.Second
)

// Run looks at every program at once, and from then on at those that are down, until ctx ends.
func (c *Chain) Run(ctx context.Context) {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for first := true; ; first = false {
		var wg sync.WaitGroup
		for _, m := range *c.members.Load() {
			if first || m.due(time.Now()) {
				wg.Go(func() { m.probe(ctx) })
			}
		}
		wg.Wait()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// member is a program and what is known of it.
type member struct {
	Config
	program program
	dial    dialer
	log     *slog.Logger
	places  chan struct{} // one for each letter it is looking at

	mu      sync.Mutex
	since   time.Time // it is down since; zero: it is up
	problem string
	failed  int // letters in a row
	counts  map[string]int64
	// A program that answers to a ping and fails on letters is asked ever more rarely, until it has
	// checked one.
	rest  time.Duration
	until time.Time
}

const (
	atOnce     = 32 // letters shown to one program at the same time
	failsToBan = 3  // letters in a row on which it fails until it counts as down

	restMost = 5 * time.Minute
)

// check shows the letter, or says why not.
func (m *member) check(ctx context.Context, l *Letter) (v Verdict, err error) {
	defer func() { v.Filter = m.Name }()
	if l.Size > m.MaxSize || !l.Whole && m.Kind == Milter {
		return m.unseen("too-large", false), nil
	}
	if m.isDown() {
		return m.unseen("down", m.Defer), nil
	}
	deadline := time.Now().Add(m.Timeout)
	timer := time.NewTimer(m.Timeout)
	defer timer.Stop()
	select {
	case m.places <- struct{}{}:
		defer func() { <-m.places }()
	case <-timer.C:
		return m.unseen("busy", m.Defer), nil
	case <-ctx.Done():
		return v, ctx.Err()
	}
	v, err = m.ask(ctx, l, deadline)
	switch {
	case ctx.Err() != nil:
		return v, ctx.Err()
	case errors.Is(err, errReading):
		return v, err
	case errors.Is(err, errLimit):
		m.succeeded()
		m.log.Warn("it takes no letters as large as this one: set its max_size", "id", l.Env.ID, "size", l.Size)
		return m.unseen("too-large", false), nil
	case err != nil:
		m.fail(err, l.Env.ID)
		return m.unseen("failed", m.Defer), nil
	}
	m.succeeded()
	m.count(v.Action)
	return v, nil
}

func (m *member) ask(ctx context.Context, l *Letter, deadline time.Time) (Verdict, error) {
	conn, done, err := m.dial(ctx, m.Address, deadline)
	if err != nil {
		return Verdict{}, err
	}
	defer done()
	return m.program.check(conn, l)
}

// unseen is what becomes of a letter that the program has said nothing of.
func (m *member) unseen(why string, postpone bool) Verdict {
	v := Verdict{Word: why}
	if postpone {
		v.Action = Defer
		v.Reply = relay.Reply{Code: 451, Status: relay.Status{4, 7, 1}, Text: "a filter of ours does not answer just now, please try again later"}
		v.Detail = m.Name + " does not answer"
	}
	m.add("unseen")
	return v
}

func (m *member) count(a Action) {
	m.add([...]string{"pass", "junk", "quarantine", "defer", "reject"}[a])
}

func (m *member) add(what string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.counts == nil {
		m.counts = map[string]int64{}
	}
	m.counts[what]++
}

func (m *member) isDown() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.since.IsZero()
}

// due says whether to look if it is back.
func (m *member) due(now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.since.IsZero() && !now.Before(m.until)
}

// fail takes down that a letter could not be checked. A program that cannot be reached is down; one
// that fails on a letter may have met a letter made for that, and is down when it fails on several.
// What it was not offered, a milter can only want while it is alive.
func (m *member) fail(err error, id relay.ID) {
	_, gone := errors.AsType[*unreachable](err)
	m.mu.Lock()
	if !errors.Is(err, errUnasked) {
		m.failed++
	}
	first := m.since.IsZero() && (gone || m.failed >= failsToBan)
	if first {
		m.since, m.problem = time.Now(), err.Error()
	}
	if first && !gone {
		m.rest = min(max(2*m.rest, probeEvery), restMost)
		m.until = m.since.Add(m.rest)
	}
	m.mu.Unlock()
	switch {
	case first:
		m.log.Warn("a filter is down", "address", m.Address, "then", m.then(), "err", err)
	case !gone:
		m.log.Warn("a filter fails on a letter", "id", id, "then", m.then(), "err", err)
	}
}

// then says what becomes of letters it does not see.
func (m *member) then() string {
	if m.Defer {
		return "defer"
	}
	return "accept"
}

// succeeded takes down that it has looked at a letter.
func (m *member) succeeded() {
	m.mu.Lock()
	m.failed, m.rest = 0, 0
	m.mu.Unlock()
	m.back()
}

// back ends that it is down.
func (m *member) back() {
	m.mu.Lock()
	since := m.since
	m.since, m.problem, m.until = time.Time{}, "", time.Time{}
	// Of one that failed on letters, the next letter tells.
	m.failed = min(m.failed, failsToBan-1)
	m.mu.Unlock()
	if !since.IsZero() {
		m.log.Info("a filter is back", "address", m.Address, "dur", time.Since(since).Round(time.Second))
	}
}

// probe asks whether the program lives.
func (m *member) probe(ctx context.Context) {
	conn, done, err := m.dial(ctx, m.Address, time.Now().Add(probeTimeout))
	if err == nil {
		err = m.program.ping(conn)
		done()
	}
	switch {
	case ctx.Err() != nil:
	case err == nil:
		m.back()
	default:
		m.fail(&unreachable{err}, "")
	}
}

func (m *member) state() State {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := State{Name: m.Name, Address: m.Address, Defer: m.Defer, Down: m.since, Problem: m.problem, Counts: map[string]int64{}}
	for what, n := range m.counts {
		s.Counts[what] = n
	}
	return s
}

// String is the verdicts as a log shows them: "rspamd=no-action/1.20 clamd=clean".
func String(all []Verdict) string {
	var parts []string
	for _, v := range all {
		parts = append(parts, fmt.Sprintf("%s=%s", v.Filter, v.Word))
	}
	return strings.Join(parts, " ")
}
