package mx

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"relayd/relay"
)

// TestDead: a thousand letters do not dial a dead host a thousand times, each is deferred with the
// reason, and the first one after it has come back is delivered.
func TestDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &remote{}
		n := partner(r)
		delete(n.hosts, "192.0.2.7")
		c := n.client()
		deliver := func() relay.Result {
			return c.Deliver(t.Context(), envelope("bob@partner.example"), "partner.example", strings.NewReader(hello))[0]
		}
		for i := range 1000 {
			got := deliver()
			if got.Outcome != relay.Deferred || got.Reply.Status != status("4.4.1") || !strings.Contains(got.Reply.Text, "connection refused") {
				t.Fatalf("letter %d: %+v", i, got)
			}
		}
		if len(n.dialed) != deadAfter {
			t.Errorf("dialled %d times", len(n.dialed))
		}
		// A day of letters every second: a call for each pause, which grows to ten minutes.
		n.dialed = nil
		for range 24 * 60 {
			time.Sleep(time.Minute)
			var wg sync.WaitGroup
			for range 3 {
				wg.Go(func() { deliver() })
			}
			wg.Wait()
		}
		if d := len(n.dialed); d < 24*6-10 || d > 24*6+10 {
			t.Errorf("dialled %d times in a day", d)
		}
		n.hosts["192.0.2.7"] = r
		time.Sleep(deadLongest)
		if got := deliver(); got.Outcome != relay.Delivered {
			t.Errorf("when it is back: %+v", got)
		}
		if got := deliver(); got.Outcome != relay.Delivered {
			t.Errorf("and then: %+v", got)
		}
		c.Close()
		n.wg.Wait()
	})
}

// TestDeadWords: a host that speaks lives, however rude; its neighbour of the same domain gets its turn
// at once.
func TestDeadWords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := saying("CONNECT", "421 4.3.2 too busy")
		n := partner(r)
		c := n.client()
		for i := range 10 {
			got := c.Deliver(t.Context(), envelope("bob@partner.example"), "partner.example", strings.NewReader(hello))[0]
			if got.Reply.Code != 421 {
				t.Errorf("%d: %+v", i, got)
			}
		}
		if r.conns != 10 {
			t.Errorf("%d connections", r.conns)
		}
		c.Close()
		n.wg.Wait()
	})
}

// TestDeadBounded: what is remembered has an end.
func TestDeadBounded(t *testing.T) {
	t.Parallel()
	d := newDead()
	for i := range maxDead + 10 {
		a := addr(fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255))
		for range deadAfter {
			d.note(t.Context(), netip.AddrPortFrom(a, 25), lost(phaseConnect, errServfail))
		}
	}
	if len(d.of) > maxDead {
		t.Errorf("%d hosts are remembered", len(d.of))
	}
}
