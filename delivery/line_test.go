package delivery_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"relayd/delivery"
	"relayd/queue"
	"relayd/relay"
)

// uplink is a line of ours that can be cut.
type uplink struct {
	cut  atomic.Bool
	made atomic.Int32 // attempts while it was
}

func (u *uplink) deliver(ctx context.Context, env relay.Envelope, d relay.Domain) []relay.Result {
	if !u.cut.Load() && !strings.HasPrefix(string(d), "dead") {
		return answer(ctx, env, d)
	}
	u.made.Add(1)
	return unreachable(env)
}

func unreachable(env relay.Envelope) []relay.Result {
	return []relay.Result{{Rcpt: env.Rcpts[0].Addr, Outcome: relay.Deferred, At: time.Now(),
		Reply: relay.Reply{Code: 451, Status: relay.Status{4, 4, 1}, Text: "cannot connect"}}}
}

// The line is down for eight days, longer than letters are kept: nobody is warned, nothing comes back,
// hardly anything is tried, and when it is up everything leaves at once. A restart in the middle
// changes nothing.
func TestLineDown(t *testing.T) {
	bubble(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "outages")
		options := func(o *delivery.Options) { o.Outages = file }
		u := &uplink{}
		h := newHouse(t, options)
		h.deliver = u.deliver
		stop := h.run()
		u.cut.Store(true)
		for i := range 40 {
			h.put("ann@office.example", fmt.Sprintf("bob@d%d.example", i))
		}
		time.Sleep(2 * 24 * time.Hour)
		if h.LineDown().IsZero() {
			t.Error("nobody noticed")
		}
		stop()
		again := newHouse(t, options)
		again.deliver, again.items = u.deliver, h.items
		stop = again.run()
		time.Sleep(4*24*time.Hour + 12*time.Hour)
		if n := u.made.Load(); n > 7*24*12+100 {
			t.Errorf("%d attempts while the line was down", n)
		}
		if again.LineDown().IsZero() || again.left() != 40 || len(h.sent())+len(again.sent()) != 0 {
			t.Errorf("down since %v, %d letters, reports %q", again.LineDown(), again.left(), again.sent())
		}
		u.cut.Store(false)
		time.Sleep(10 * time.Minute)
		if !again.LineDown().IsZero() || again.left() != 0 {
			t.Errorf("when it is back: down since %v, %d letters left", again.LineDown(), again.left())
		}
		stop()
		if len(again.sent()) != 0 {
			t.Errorf("reports %q", again.sent())
		}
	})
}

// The days without a line do not count afterwards either: a letter that still cannot be delivered
// comes back five days of line after it came.
func TestOutageDoesNotCount(t *testing.T) {
	bubble(t, func(t *testing.T) {
		u := &uplink{}
		h := newHouse(t)
		h.deliver = u.deliver
		u.cut.Store(true)
		h.put("ann@office.example", "slow@partner.example")
		for i := range 3 {
			h.put("", fmt.Sprintf("bob@d%d.example", i))
		}
		stop := h.run()
		time.Sleep(3 * 24 * time.Hour)
		u.cut.Store(false)
		time.Sleep(4*24*time.Hour + 12*time.Hour) // seven and a half days old
		if h.left() != 1 {
			t.Fatalf("%d letters left, reports %q", h.left(), h.sent())
		}
		time.Sleep(24 * time.Hour)
		stop()
		if h.left() != 0 || len(h.sent()) != 2 {
			t.Errorf("%d letters left, %d reports", h.left(), len(h.sent()))
		}
	})
}

// Hosts that are dead by themselves are not a line that is down: somebody else answers, or they never
// took mail. Their letters come back in time.
func TestDeadHostsAreNotTheLine(t *testing.T) {
	bubble(t, func(t *testing.T) {
		u := &uplink{}
		h := newHouse(t, func(o *delivery.Options) {
			o.Proven = func(d relay.Domain) bool { return !strings.HasPrefix(string(d), "dead") }
		})
		h.deliver = u.deliver
		for i := range 5 {
			h.put("ann@office.example", fmt.Sprintf("bob@dead%d.example", i))
		}
		stop := h.run()
		time.Sleep(5*24*time.Hour + 5*time.Hour)
		stop()
		if !h.LineDown().IsZero() || h.left() != 0 || len(h.sent()) != 10 {
			t.Errorf("down since %v, %d letters left, %d reports", h.LineDown(), h.left(), len(h.sent()))
		}
	})
}

// Three partners die for good at the same time, and nobody else is written to: others that greet us show
// that our line works, and the letters come back in time. When those do not answer either, the line is down
// until one of them does, whoever the letters that wait are for.
func TestOthersAreAsked(t *testing.T) {
	bubble(t, func(t *testing.T) {
		u := &uplink{}
		var works atomic.Bool
		var calls atomic.Int32
		works.Store(true)
		h := newHouse(t, func(o *delivery.Options) {
			o.Reach = func(_ context.Context, failing []relay.Domain) bool {
				calls.Add(1)
				for _, d := range failing {
					if !strings.HasPrefix(string(d), "dead") {
						t.Errorf("%s fails?", d)
					}
				}
				time.Sleep(time.Second)
				return works.Load()
			}
		})
		h.deliver = u.deliver
		put := func() {
			for i := range 4 {
				h.put("ann@office.example", fmt.Sprintf("bob@dead%d.example", i))
			}
		}
		put()
		stop := h.run()
		time.Sleep(5*24*time.Hour + 5*time.Hour)
		if !h.LineDown().IsZero() || h.left() != 0 || len(h.sent()) != 8 {
			t.Errorf("others answer: down since %v, %d letters left, %d reports", h.LineDown(), h.left(), len(h.sent()))
		}
		if n := calls.Load(); n == 0 || n > 200 {
			t.Errorf("called %d times", n)
		}
		works.Store(false)
		put()
		time.Sleep(24 * time.Hour)
		if h.LineDown().IsZero() || h.left() != 4 {
			t.Errorf("nobody answers: down since %v, %d letters left", h.LineDown(), h.left())
		}
		works.Store(true)
		time.Sleep(10 * time.Minute)
		if !h.LineDown().IsZero() {
			t.Errorf("somebody answers again, and it is down since %v", h.LineDown())
		}
		stop()
	})
}

// Who greets us while the others are called has decided it, whatever they say.
func TestAWordWhileAsking(t *testing.T) {
	bubble(t, func(t *testing.T) {
		u := &uplink{}
		h := newHouse(t, func(o *delivery.Options) {
			o.Reach = func(context.Context, []relay.Domain) bool {
				time.Sleep(30 * time.Second)
				return false
			}
		})
		h.deliver = u.deliver
		for i := range 3 {
			h.put("ann@office.example", fmt.Sprintf("bob@dead%d.example", i))
		}
		stop := h.run()
		time.Sleep(10 * time.Second)
		h.put("ann@office.example", "bob@alive.example")
		time.Sleep(time.Minute)
		if !h.LineDown().IsZero() {
			t.Error("the line is down, though somebody took a letter")
		}
		stop()
	})
}

// After an outage the backlog leaves with a ramp, the oldest first.
func TestRampAfterOutage(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCrowd()
		var now, most atomic.Int32
		down := atomic.Bool{}
		down.Store(true)
		h := newHouse(t, func(o *delivery.Options) { o.Total = 50 })
		h.deliver = func(ctx context.Context, env relay.Envelope, d relay.Domain) []relay.Result {
			n := now.Add(1)
			for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
			}
			defer now.Add(-1)
			c.mu.Lock()
			c.down[d] = down.Load()
			c.mu.Unlock()
			return c.deliver(ctx, env, d)
		}
		h.schedule = queue.DefaultSchedule()
		for i := range 300 {
			h.put("ann@office.example", fmt.Sprintf("bob@d%d.example", i))
		}
		stop := h.run()
		time.Sleep(time.Hour)
		most.Store(0)
		down.Store(false)
		for !h.LineDown().IsZero() {
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(500 * time.Millisecond)
		if m := most.Load(); m > 4 {
			t.Errorf("began again with %d attempts", m)
		}
		time.Sleep(time.Minute)
		if h.left() != 0 || most.Load() < 40 {
			t.Errorf("%d letters left, %d attempts at most", h.left(), most.Load())
		}
		stop()
	})
}

// Mail that stays in the house goes on while our own line is down, and neither brings the line down nor up.
func TestInnerDoesNotNeedTheLine(t *testing.T) {
	bubble(t, func(t *testing.T) {
		u := &uplink{}
		inner := func(d relay.Domain) bool { return strings.HasPrefix(string(d), "inner") }
		h := newHouse(t, func(o *delivery.Options) { o.Inner = inner })
		var innerDown atomic.Bool
		h.deliver = func(ctx context.Context, env relay.Envelope, d relay.Domain) []relay.Result {
			if inner(d) && !innerDown.Load() {
				return answer(ctx, env, d)
			}
			if inner(d) {
				return unreachable(env)
			}
			return u.deliver(ctx, env, d)
		}
		// Three servers in the house are off: that is not our line.
		innerDown.Store(true)
		for i := range 5 {
			h.put("", fmt.Sprintf("bob@inner%d.example", i))
		}
		stop := h.run()
		time.Sleep(time.Hour)
		if down := h.LineDown(); !down.IsZero() || h.left() != 5 {
			t.Errorf("down since %v because of servers of ours, %d letters left", down, h.left())
		}
		innerDown.Store(false)
		time.Sleep(3 * time.Hour)
		if h.left() != 0 {
			t.Fatalf("%d letters left", h.left())
		}
		u.cut.Store(true)
		for i := range 5 {
			h.put("", fmt.Sprintf("bob@d%d.example", i))
		}
		time.Sleep(time.Hour)
		since := h.LineDown()
		if since.IsZero() {
			t.Fatal("nobody noticed")
		}
		for i := range 20 {
			h.put("", fmt.Sprintf("bob@inner%d.example", i))
		}
		time.Sleep(10 * time.Second)
		if got := h.LineDown(); got != since || h.left() != 5 {
			t.Errorf("down since %v, was %v; %d letters left", got, since, h.left())
		}
		u.cut.Store(false)
		time.Sleep(10 * time.Minute)
		stop()
		if h.left() != 0 || !h.LineDown().IsZero() {
			t.Errorf("%d letters left, down since %v", h.left(), h.LineDown())
		}
	})
}
