package delivery_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"relayd/delivery"
	"relayd/relay"
)

// crowd counts how many attempts are made at each domain at the same time.
type crowd struct {
	mu        sync.Mutex
	now, most map[relay.Domain]int
	down      map[relay.Domain]bool
	delivered map[relay.Domain]int
	takes     map[relay.Domain]time.Duration
}

func newCrowd() *crowd {
	return &crowd{now: map[relay.Domain]int{}, most: map[relay.Domain]int{}, down: map[relay.Domain]bool{},
		delivered: map[relay.Domain]int{}, takes: map[relay.Domain]time.Duration{}}
}

func (c *crowd) deliver(ctx context.Context, env relay.Envelope, d relay.Domain) []relay.Result {
	c.mu.Lock()
	c.now[d]++
	c.most[d] = max(c.most[d], c.now[d])
	down, takes := c.down[d], c.takes[d]
	c.mu.Unlock()
	select {
	case <-time.After(max(takes, time.Second)):
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now[d]--
	if down {
		return []relay.Result{{Rcpt: env.Rcpts[0].Addr, Outcome: relay.Deferred, At: time.Now(),
			Reply: relay.Reply{Code: 451, Status: relay.Status{4, 4, 1}, Text: "cannot connect"}}}
	}
	c.delivered[d]++
	return answer(ctx, env, d)
}

// peak is the most attempts there were at d at a time, got how many letters it took.
func (c *crowd) peak(d relay.Domain) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.most[d]
}

func (c *crowd) got(d relay.Domain) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.delivered[d]
}

func (c *crowd) set(d relay.Domain, down bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down[d] = down
	clear(c.most)
}

// The attempts at one domain grow with its successes up to the configured number, and shrink to one
// while it is in trouble.
func TestPaceGrowsAndShrinks(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCrowd()
		h := newHouse(t, func(o *delivery.Options) { o.PerDestination = 20 })
		h.deliver = c.deliver
		for i := range 200 {
			h.put("ann@office.example", fmt.Sprintf("bob%d@partner.example", i))
		}
		stop := h.run()
		time.Sleep(500 * time.Millisecond)
		if c.peak("partner.example") != 5 {
			t.Errorf("began with %d attempts", c.peak("partner.example"))
		}
		time.Sleep(30 * time.Second)
		if c.peak("partner.example") != 20 || h.left() != 0 {
			t.Errorf("grew to %d attempts, %d letters left", c.peak("partner.example"), h.left())
		}
		c.set("partner.example", true)
		for i := range 200 {
			h.put("ann@office.example", fmt.Sprintf("eve%d@partner.example", i))
		}
		time.Sleep(10 * time.Second)
		c.set("partner.example", true) // counts anew
		time.Sleep(10 * time.Second)
		if c.peak("partner.example") != 1 {
			t.Errorf("in trouble with %d attempts", c.peak("partner.example"))
		}
		stop()
	})
}

// Hosts that stall fill no more than their share: letters to a host that works leave meanwhile.
func TestStallsSlowNobody(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCrowd()
		h := newHouse(t, func(o *delivery.Options) { o.Total = 20 })
		h.deliver = c.deliver
		stop := h.run()
		h.put("ann@office.example", "bob@good.example")
		time.Sleep(2 * time.Second)
		for i := range 40 {
			d := relay.Domain(fmt.Sprintf("stall%d.example", i))
			c.mu.Lock()
			c.down[d], c.takes[d] = true, 30*time.Minute
			c.mu.Unlock()
			for range 5 {
				h.put("ann@office.example", "bob@"+string(d))
			}
		}
		time.Sleep(time.Second)
		for i := range 50 {
			h.put("ann@office.example", fmt.Sprintf("bob%d@good.example", i))
		}
		time.Sleep(30 * time.Second)
		if c.got("good.example") != 51 {
			t.Errorf("%d of 51 letters to the host that works left in half a minute", c.got("good.example"))
		}
		stop()
	})
}

// A success calls the siblings that wait for a retry.
func TestSuccessWakesSiblings(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCrowd()
		h := newHouse(t)
		h.deliver = c.deliver
		c.set("partner.example", true)
		for i := range 30 {
			h.put("ann@office.example", fmt.Sprintf("bob%d@partner.example", i))
		}
		h.put("ann@office.example", "slow@other.example")
		stop := h.run()
		time.Sleep(2 * time.Hour) // the next attempts are up to an hour away
		if h.left() != 31 {
			t.Fatalf("%d letters left", h.left())
		}
		c.set("partner.example", false)
		h.put("ann@office.example", "new@partner.example")
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if h.left() != 1 || c.got("partner.example") != 31 {
			t.Errorf("%d letters left, %d delivered", h.left(), c.got("partner.example"))
		}
		stop()
	})
}
