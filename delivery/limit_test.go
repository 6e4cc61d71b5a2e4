package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"relayd/delivery"
	"relayd/relay"
)

// provider writes down when letters reached it, and how many at a time.
type provider struct {
	mu        sync.Mutex
	at        []time.Time
	now, most int
}

func (p *provider) take(takes time.Duration) {
	p.mu.Lock()
	p.at = append(p.at, time.Now())
	p.now++
	p.most = max(p.most, p.now)
	p.mu.Unlock()
	time.Sleep(takes)
	p.mu.Lock()
	p.now--
	p.mu.Unlock()
}

func (p *provider) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.at)
}

// perMinute is the most letters within any minute.
func (p *provider) perMinute() (most int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	slices.SortFunc(p.at, time.Time.Compare)
	for i := range p.at {
		n := 0
		for n < len(p.at)-i && p.at[i+n].Sub(p.at[i]) < time.Minute {
			n++
		}
		most = max(most, n)
	}
	return most
}

// hostsOf knows whose mail host a domain has by its name; every lookup takes a second.
func hostsOf(ctx context.Context, d relay.Domain) ([]relay.Domain, error) {
	time.Sleep(time.Second)
	name, _, _ := strings.Cut(string(d), ".")
	if strings.HasPrefix(name, "servfail") {
		return nil, errors.New("SERVFAIL")
	}
	return []relay.Domain{relay.Domain(name + ".big.example"), relay.Domain("mx." + string(d))}, nil
}

// All domains at one provider together get no more than its limits, in any minute and at any time, and as
// much as those; everybody else's mail does not notice, nor that of a domain which cannot be looked up.
func TestLimits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHouse(t, func(o *delivery.Options) {
			o.Hosts = hostsOf
			o.Limits = []delivery.Limit{
				{MX: []string{"*.big.example"}, PerMinute: 30, Concurrency: 3},
				{To: []string{"slow.example", "*.slow.example"}, PerMinute: 6},
				{To: []string{"*.slow.example"}, Concurrency: 1},
			}
		})
		var big, slow, free provider
		h.deliver = func(ctx context.Context, env relay.Envelope, d relay.Domain) []relay.Result {
			switch {
			case strings.HasSuffix(string(d), "slow.example"):
				slow.take(time.Second)
			case strings.HasPrefix(string(d), "servfail"):
				free.take(time.Second)
			default:
				big.take(time.Second)
			}
			return answer(ctx, env, d)
		}
		for i := range 90 {
			h.put("", fmt.Sprintf("u%d@d%d.example", i, i%9))
		}
		for i := range 12 {
			h.put("", fmt.Sprintf("u%d@servfail-slow%d.slow.example", i, i%3))
			h.put("", fmt.Sprintf("u%d@servfail%d.example", i, i%3))
		}
		start := time.Now()
		stop := h.run()
		time.Sleep(30 * time.Second)
		if n := free.count(); n != 12 {
			t.Errorf("%d letters elsewhere after %v", n, time.Since(start))
		}
		time.Sleep(3 * time.Minute)
		stop()
		if h.left() != 0 {
			t.Errorf("%d letters left after %v", h.left(), time.Since(start))
		}
		if n := big.perMinute(); n != 30 || big.most != 3 {
			t.Errorf("the provider got %d in a minute, %d at a time", n, big.most)
		}
		if n := slow.perMinute(); n != 6 || slow.most != 1 {
			t.Errorf("the slow ones got %d in a minute, %d at a time", n, slow.most)
		}
	})
}

// A due letter that a limit keeps back says which, and until when; nobody else's does.
func TestLimitsAreTold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHouse(t, func(o *delivery.Options) {
			o.Hosts = hostsOf
			o.Limits = []delivery.Limit{{MX: []string{"*.big.example"}, PerMinute: 2}, {To: []string{"one.example"}, Concurrency: 1}}
		})
		var p provider
		h.deliver = func(ctx context.Context, env relay.Envelope, d relay.Domain) []relay.Result {
			p.take(20 * time.Second)
			return answer(ctx, env, d)
		}
		h.put("", "a@one.example")
		h.put("", "b@one.example")
		h.put("", "c@servfail.example")
		start := time.Now()
		stop := h.run()
		tell := func(at time.Duration, d relay.Domain, want string, until time.Duration) {
			t.Helper()
			time.Sleep(at - time.Since(start))
			what, till := h.Drain.Waits(d)
			if what != want || until == 0 != till.IsZero() || until > 0 && till.Sub(start).Round(time.Second) != until {
				t.Errorf("after %v %s waits for %q until %v", at, d, what, till.Sub(start))
			}
		}
		tell(10*time.Second, "one.example", "[[outbound.limit]] lets 1 at a time go to one.example", 0)
		tell(10*time.Second, "servfail.example", "", 0)
		h.put("", "d@one.example")
		tell(50*time.Second, "one.example", "[[outbound.limit]] lets 2 a minute go to *.big.example", 61*time.Second)
		tell(2*time.Minute, "one.example", "", 0)
		stop()
	})
}
