package gate

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"relayd/relay"
)

// zone is one zone of the DNS that some lists read, and whether it is in order. Only while it is does
// anybody ask it about clients: a list that is dead lets everybody wait for nothing, and one that
// answers everything, as a list does whose domain was sold, would refuse the world.
type zone struct {
	name relay.Domain

	first  chan struct{} // closed when it has been tested once
	mu     sync.Mutex
	tested time.Time
	why    string // it is ignored; empty: it is not
	silent int    // questions in a row that it did not answer
	hits   int64  // clients it lists
}

// The points of RFC 5782 §5 that every list of IPv4 addresses has, and that none has.
var (
	listed   = netip.AddrFrom4([4]byte{127, 0, 0, 2})
	unlisted = netip.AddrFrom4([4]byte{127, 0, 0, 1})
)

const (
	// testTimeout bounds a test of life, questionTimeout all the questions about one client.
	testTimeout     = 10 * time.Second
	questionTimeout = 4 * time.Second
	// maxSilent questions without an answer in a row, and the zone counts as dead until a test says
	// otherwise.
	maxSilent = 3
	// Zones in order are tested after testEvery, others after retestEvery, which is how often
	// somebody looks.
	testEvery   = time.Hour
	retestEvery = time.Minute
)

func newZone(name relay.Domain) *zone { return &zone{name: name, first: make(chan struct{})} }

// state says why the zone is ignored; empty: it is in order.
func (z *zone) state() string {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.tested.IsZero() {
		return "it has not been tested yet"
	}
	return z.why
}

// isDue says whether it is time for a test.
func (z *zone) isDue(now time.Time) bool {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.why != "" || z.tested.IsZero() || now.Sub(z.tested) >= testEvery
}

// test finds out whether the zone is alive and says no to what it must not list.
func (z *zone) test(ctx context.Context, dns DNS) {
	ctx, cancel := context.WithTimeout(ctx, testTimeout)
	defer cancel()
	var wg sync.WaitGroup
	var yes, no []netip.Addr
	var yesErr, noErr error
	wg.Go(func() { yes, yesErr = dns.A(ctx, reversed(listed, z.name)) })
	wg.Go(func() { no, noErr = dns.A(ctx, reversed(unlisted, z.name)) })
	wg.Wait()
	why := judgeTest(yes, yesErr, no, noErr)
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.tested.IsZero() {
		close(z.first)
	}
	z.why, z.silent, z.tested = why, 0, time.Now()
}

// judgeTest says what is wrong with a zone by its answers about 127.0.0.2 and 127.0.0.1.
func judgeTest(yes []netip.Addr, yesErr error, no []netip.Addr, noErr error) string {
	switch {
	case yesErr == nil && wrongAnswer(yes) != "":
		return wrongAnswer(yes)
	case noErr == nil:
		return "it lists everything: even 127.0.0.1, which no list has"
	case errors.Is(yesErr, relay.ErrNoRecord):
		return "it is empty: it does not list 127.0.0.2, which every list has"
	case yesErr != nil, !errors.Is(noErr, relay.ErrNoRecord):
		return "it does not answer"
	}
	return ""
}

// wrongAnswer says what is wrong with an answer that no list gives about an address.
func wrongAnswer(got []netip.Addr) string {
	for _, a := range got {
		switch {
		case errorAnswers.Contains(a):
			return fmt.Sprintf("it answers %s, by which it refuses to serve our DNS server", a)
		case !answers.Contains(a):
			return fmt.Sprintf("it answers %s, which is no answer of a list", a)
		}
	}
	return ""
}

// ask returns what the zone answers about a client: none where it has nothing, is ignored or cannot be
// asked. It waits for the first test.
func (z *zone) ask(ctx context.Context, dns DNS, client netip.Addr) (found []netip.Addr, asked bool) {
	select {
	case <-z.first:
	case <-ctx.Done():
		return nil, false
	}
	if z.state() != "" {
		return nil, false
	}
	got, err := dns.A(ctx, reversed(client, z.name))
	z.mu.Lock()
	defer z.mu.Unlock()
	switch {
	case errors.Is(err, relay.ErrNoRecord):
		z.silent = 0
		return nil, true
	case err != nil:
		if z.silent++; z.silent >= maxSilent {
			z.why = "it does not answer"
		}
		return nil, false
	}
	z.silent = 0
	if why := wrongAnswer(got); why != "" {
		z.why = why
		return nil, false
	}
	z.hits++
	return got, true
}

// reason is what the zone says of a client that it lists, in its own words: perhaps where to ask.
func (z *zone) reason(ctx context.Context, dns DNS, client netip.Addr) string {
	texts, err := dns.TXT(ctx, reversed(client, z.name))
	if err != nil || len(texts) == 0 {
		return ""
	}
	text := strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return -1
		}
		return c
	}, texts[0][:min(len(texts[0]), maxReason)])
	if text = strings.TrimSpace(text); text == "" {
		return ""
	}
	return " (" + text + ")"
}

const maxReason = 120 // octets of a TXT record

// reversed is the name under which a zone has an address (RFC 5782 §2.1, §2.4).
func reversed(a netip.Addr, zone relay.Domain) string {
	b := make([]byte, 0, 64+len(zone)+1)
	if a.Is4() {
		octets := a.As4()
		for _, o := range slices.Backward(octets[:]) {
			b = fmt.Appendf(b, "%d.", o)
		}
		return string(append(b, zone...))
	}
	octets := a.As16()
	const digits = "0123456789abcdef"
	for _, o := range slices.Backward(octets[:]) {
		b = append(b, digits[o&15], '.', digits[o>>4], '.')
	}
	return string(append(b, zone...))
}
