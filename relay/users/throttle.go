package users

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"relayd/relay"
)

// How many wrong passwords lead to what. A name is counted for each address apart, so that
// nobody can lock the owner out from elsewhere; an address is counted over all names.
const (
	freeGuesses  = 3  // of one name: people mistype
	nameLimit    = 10 // of one name, then it is refused from there
	addressLimit = 50 // of all names, then everything is refused from there
	// allowance multiplies the limits where somebody has logged in rightly, and for trusted networks:
	// behind one address there may be a whole office, with a telephone that knows an old password.
	allowance = 10

	maxDelay    = 8 * time.Second
	maxQueue    = 30 * time.Second // longer waits are refused
	firstRefuse = 15 * time.Minute // each further wrong password doubles it
	maxRefuse   = 4 * time.Hour
	forgetAfter = 24 * time.Hour      // without a wrong password
	proofLasts  = 30 * 24 * time.Hour // of a right one
	maxTallies  = 20_000              // about 5 MiB; attackers fill it
	maxProved   = 10_000              // about 2 MiB; only users do
)

// suspect is a name tried from an address, or the address with all its names (the zero name).
// Names are kept hashed, because people type passwords there.
type suspect struct {
	from netip.Prefix
	name proof
}

func (s suspect) whole() suspect { return suspect{from: s.from} }

// tally counts the wrong passwords of a suspect.
type tally struct {
	user     relay.Address // null: nobody's name, or the whole address
	failures int
	last     time.Time
	next     time.Time // no guess is looked at before
	until    time.Time // refused before
	guess    proof     // the last password, which is not counted again
	turn     time.Time // when that one is looked at
}

// throttle makes guessing slow. Every try is counted as wrong when it begins, so that a thousand
// at the same time are no better than one after the other, and taken back when it proves right.
type throttle struct {
	trusted func(netip.Addr) bool

	mu      sync.Mutex
	tallies recent[suspect, tally]
	proved  recent[suspect, time.Time]
}

func newThrottle() *throttle {
	return &throttle{trusted: func(netip.Addr) bool { return false },
		tallies: newRecent[suspect, tally](maxTallies), proved: newRecent[suspect, time.Time](maxProved)}
}

// try is one password on its way to a verdict.
type try struct {
	login
	throttle *throttle
	turn     time.Time
	charged  []suspect
	limits   limits
}

// limits are how many wrong passwords the name and the address of a try may have.
type limits struct {
	name, address int
	slow          bool // the address as a whole is delayed and refused
}

// begin counts a try. The error is the *relay.Failure of a refusal.
func (t *throttle) begin(l login) (*try, error) {
	who, now := l.who, time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	p := &try{login: l, throttle: t, turn: now, limits: t.limitsOf(l.client, who, now)}
	suspects := []suspect{who}
	if p.limits.slow {
		suspects = append(suspects, who.whole())
	}
	for _, s := range suspects {
		if wait := t.refused(s, now); wait > 0 {
			return nil, tooMany(wait)
		}
	}
	if have := t.tallies.get(who); have != nil && have.guess == l.proof {
		// The same wrong password again: a mail program that polls, or one with several connections.
		p.turn = have.turn
		return p, nil
	}
	if wait := t.queue(suspects, now); wait > maxQueue {
		return nil, tooMany(wait)
	}
	have := t.charge(who, now, p.limits.name, 1)
	p.turn, have.user, have.guess = have.turn, l.whose(), l.proof
	p.charged = append(p.charged, who)
	if p.limits.address > 0 {
		whole := t.charge(who.whole(), now, p.limits.address, addressLimit/nameLimit)
		if p.charged = append(p.charged, who.whole()); p.limits.slow && whole.turn.After(p.turn) {
			p.turn, have.turn = whole.turn, whole.turn
		}
	}
	return p, nil
}

// limitsOf: somebody who has logged in from there before is not delayed or refused for what others
// do there.
func (t *throttle) limitsOf(client netip.Addr, who suspect, now time.Time) limits {
	fresh := func(s suspect) bool {
		at := t.proved.get(s)
		return at != nil && now.Sub(*at) < proofLasts
	}
	l := limits{name: nameLimit, address: addressLimit, slow: true}
	switch {
	case t.trusted(client):
		return limits{name: nameLimit * allowance}
	case fresh(who):
		return limits{name: nameLimit * allowance, address: addressLimit * allowance}
	case fresh(who.whole()):
		l.address *= allowance
	}
	return l
}

// regular says whether somebody has logged in from where l comes from.
func (t *throttle) regular(l login) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := t.proved.get(l.who.whole())
	return at != nil && time.Since(*at) < proofLasts || t.trusted(l.client)
}

// refused is how long a suspect will be refused yet.
func (t *throttle) refused(s suspect, now time.Time) time.Duration {
	have := t.tallies.get(s)
	if have == nil {
		return 0
	}
	return have.until.Sub(now)
}

// queue is how long the next guess would wait for its turn.
func (t *throttle) queue(suspects []suspect, now time.Time) (longest time.Duration) {
	for _, s := range suspects {
		if have := t.tallies.get(s); have != nil {
			longest = max(longest, have.next.Sub(now))
		}
	}
	return longest
}

// charge counts one more wrong password and gives it its turn; its weight says how many of them
// delay the next as much as one of a name does.
func (t *throttle) charge(s suspect, now time.Time, limit, weight int) *tally {
	have := t.tallies.put(s)
	if now.Sub(have.last) > forgetAfter {
		*have = tally{}
	}
	have.failures++
	have.last = now
	have.turn = later(now, have.next)
	have.next = have.turn.Add(delay(have.failures / weight))
	if over := have.failures - limit; over >= 0 {
		have.until = now.Add(min(firstRefuse<<min(over, 10), maxRefuse))
	}
	return have
}

// delay is what so many wrong passwords cost the next: 0, 0, 1s, 2s, 4s, 8s, 8s, ...
func delay(failures int) time.Duration {
	if failures < freeGuesses {
		return 0
	}
	return min(time.Second<<min(failures-freeGuesses, 10), maxDelay)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func tooMany(wait time.Duration) error {
	minutes := int((wait + time.Minute - 1) / time.Minute)
	return relay.Refuse("users: throttle", 454, "4.7.0",
		fmt.Sprintf("too many failed logins from your address, please try again in %d min", minutes))
}

// wait returns when it is the try's turn, or with the error of ctx.
func (p *try) wait(ctx context.Context) error {
	if d := time.Until(p.turn); d > 0 && !relay.Sleep(ctx, d) {
		return ctx.Err()
	}
	return nil
}

// right takes back what was counted, and remembers that this user comes from there.
func (p *try) right() {
	t := p.throttle
	t.mu.Lock()
	defer t.mu.Unlock()
	p.discharge()
	t.tallies.drop(p.who)
	now := time.Now()
	*t.proved.put(p.who), *t.proved.put(p.who.whole()) = now, now
}

// undecided takes back what was counted: nobody found out whether the password was right.
func (p *try) undecided() {
	p.throttle.mu.Lock()
	defer p.throttle.mu.Unlock()
	p.discharge()
}

func (p *try) discharge() {
	for _, s := range p.charged {
		have := p.throttle.tallies.get(s)
		if have == nil {
			continue
		}
		have.failures = max(0, have.failures-1)
		have.guess = proof{}
		limit := p.limits.name
		if s != p.who {
			limit = p.limits.address
		}
		if have.failures < limit {
			have.until = time.Time{}
		}
		if have.failures == 0 {
			p.throttle.tallies.drop(s)
		}
	}
}

// wrong says until when the suspect is refused now, and how many wrong passwords led there.
func (p *try) wrong() (until time.Time, failures int) {
	p.throttle.mu.Lock()
	defer p.throttle.mu.Unlock()
	for _, s := range p.charged {
		if have := p.throttle.tallies.get(s); have != nil && have.until.After(until) {
			until, failures = have.until, have.failures
		}
	}
	return until, failures
}
