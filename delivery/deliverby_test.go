package delivery_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"relayd/relay"
)

// by sets until when the letters in the queue shall be delivered.
func (h *house) by(by relay.DeliverBy) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, it := range h.items {
		it.By = by
	}
}

func count(events []string, what string) (n int) {
	for _, e := range events {
		if strings.HasPrefix(e, what) {
			n++
		}
	}
	return n
}

// A letter that its sender wants back when it is late comes back at that time, with 5.4.7 and what was
// heard of it last, and is not tried again at it.
func TestReturnedWhenLate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHouse(t)
		h.deliver = answer
		start := time.Now()
		h.put("ann@office.example", "slow@partner.example")
		h.by(relay.DeliverBy{At: start.Add(12 * time.Minute), Return: true})
		stop := h.run()
		time.Sleep(12*time.Minute - time.Second)
		if h.left() != 1 || len(h.sent()) != 0 {
			t.Fatalf("before its time: %v", h.log())
		}
		tries := count(h.log(), "deliver")
		time.Sleep(2 * time.Second)
		synctest.Wait()
		stop()
		reports := h.sent()
		if h.left() != 0 || len(reports) != 1 || count(h.log(), "deliver") != tries {
			t.Fatalf("%v", h.log())
		}
		for _, want := range []string{"Action: failed", "Status: 5.4.7", "greylisted, come back", "Deliver-By-Date: "} {
			if !strings.Contains(reports[0], want) {
				t.Errorf("%q is not in\n%s", want, reports[0])
			}
		}
	})
}

// The time runs out during the attempt: what was deferred comes back, what was delivered stays so.
func TestReturnedAfterALongAttempt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHouse(t)
		h.deliver = func(ctx context.Context, env relay.Envelope, d relay.Domain) []relay.Result {
			time.Sleep(2 * time.Minute)
			return answer(ctx, env, d)
		}
		h.put("ann@office.example", "bob@partner.example", "slow@partner.example")
		h.by(relay.DeliverBy{At: time.Now().Add(time.Minute), Return: true})
		stop := h.run()
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		stop()
		reports := h.sent()
		if h.left() != 0 || len(reports) != 1 || !strings.Contains(reports[0], "Status: 5.4.7") || strings.Contains(reports[0], "bob@") {
			t.Fatalf("%v %s", h.log(), reports)
		}
	})
}

// One who only wants to know hears of it at that time, once, and the letter is tried on.
func TestToldWhenLate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHouse(t)
		ready := time.Now().Add(time.Hour)
		h.deliver = func(ctx context.Context, env relay.Envelope, d relay.Domain) []relay.Result {
			if time.Now().After(ready) {
				env.Rcpts = slices.Clone(env.Rcpts)
				results := answer(ctx, env, d)
				results[0].Outcome, results[0].Reply = relay.Delivered, relay.Reply{Code: 250}
				return results
			}
			return answer(ctx, env, d)
		}
		h.put("ann@office.example", "slow@partner.example")
		h.by(relay.DeliverBy{At: time.Now().Add(7 * time.Minute)})
		stop := h.run()
		time.Sleep(7*time.Minute - time.Second)
		if len(h.sent()) != 0 {
			t.Fatalf("before its time: %v", h.log())
		}
		time.Sleep(2 * time.Second)
		if got := h.sent(); len(got) != 1 || !strings.Contains(got[0], "Action: delayed") {
			t.Fatalf("at its time: %v", h.log())
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		stop()
		if got := h.sent(); len(got) != 2 || !strings.Contains(got[1], "after all") || h.left() != 0 {
			t.Fatalf("in the end: %v", h.log())
		}
	})
}

// A trace wants every server to report, those before one that reports itself too; and not who wants to
// hear of nothing.
func TestTrace(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHouse(t)
		h.deliver = func(ctx context.Context, env relay.Envelope, d relay.Domain) []relay.Result {
			results := answer(ctx, env, d)
			for i := range results {
				results[i].DSN = true
			}
			return results
		}
		h.put("ann@office.example", "bob@partner.example", "carol@partner.example")
		h.notify(map[string]relay.Notify{"carol": relay.NotifyNever})
		h.by(relay.DeliverBy{At: time.Now().Add(time.Hour), Trace: true})
		stop := h.run()
		synctest.Wait()
		stop()
		got := h.sent()
		if len(got) != 1 || !strings.Contains(got[0], "Action: relayed") || !strings.Contains(got[0], "bob@") || strings.Contains(got[0], "carol@") {
			t.Fatalf("%v %s", h.log(), got)
		}
	})
}

// What a warning says of the end counts without the time our own line was down.
func TestWarningKnowsOfOutages(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHouse(t)
		born := time.Now()
		h.deliver = func(ctx context.Context, env relay.Envelope, d relay.Domain) []relay.Result {
			if time.Since(born) > time.Hour {
				return answer(ctx, env, d)
			}
			return []relay.Result{{Rcpt: env.Rcpts[0].Addr, Outcome: relay.Deferred, Reply: relay.Reply{Code: 451, Status: relay.Status{4, 4, 3}}}}
		}
		for _, d := range []string{"a", "b", "c", "d"} {
			h.put("ann@office.example", "slow@"+d+".example")
		}
		stop := h.run()
		time.Sleep(time.Hour)
		if h.LineDown().IsZero() {
			t.Fatal("the line is not down")
		}
		time.Sleep(6 * time.Hour)
		synctest.Wait()
		stop()
		lost := h.Lost(born, time.Now())
		reports := h.sent()
		if len(reports) == 0 || lost < 50*time.Minute || lost > 70*time.Minute {
			t.Fatalf("%d reports, %v lost", len(reports), lost)
		}
		want := "Will-Retry-Until: " + born.Add(5*24*time.Hour+lost).Format("Mon, 02 Jan 2006 15:04")
		if !strings.Contains(reports[0], want) {
			t.Errorf("%q is not in\n%s", want, reports[0])
		}
	})
}
