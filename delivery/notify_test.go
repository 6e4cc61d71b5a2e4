package delivery_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"relayd/relay"
)

// notify sets what the sender of a queued letter wants to hear of, by the recipient's local part.
func (h *house) notify(notify map[string]relay.Notify) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, it := range h.items {
		for i, r := range it.Rcpts {
			it.Rcpts[i].Notify = notify[r.Addr.Local]
		}
	}
}

// A sender hears of what he asked to hear of and of nothing else; the letter is settled all the same.
func TestNotify(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHouse(t)
		h.deliver = func(ctx context.Context, env relay.Envelope, d relay.Domain) []relay.Result {
			results := answer(ctx, env, d)
			for i, res := range results {
				results[i].DSN = res.Rcpt.Local == "handed"
			}
			return results
		}
		h.put("ann@office.example", "bob@partner.example", "carol@partner.example", "handed@partner.example",
			"bad1@partner.example", "bad2@partner.example", "bad3@partner.example")
		h.notify(map[string]relay.Notify{"bob": relay.NotifySuccess, "handed": relay.NotifySuccess, "carol": relay.NotifyFailure,
			"bad1": relay.NotifyNever, "bad2": relay.NotifySuccess | relay.NotifyDelay, "bad3": relay.NotifyFailure})
		stop := h.run()
		synctest.Wait()
		stop()
		reports := h.sent()
		if len(reports) != 2 || h.left() != 0 {
			t.Fatalf("%d reports, %d letters left", len(reports), h.left())
		}
		for i, want := range [][]string{{"Action: relayed", "bob@"}, {"Action: failed", "bad3@"}} {
			for _, w := range want {
				if !strings.Contains(reports[i], w) {
					t.Errorf("%q is not in\n%s", w, reports[i])
				}
			}
			for _, not := range []string{"carol@", "handed@", "bad1@", "bad2@"} {
				if strings.Contains(reports[i], not) {
					t.Errorf("%q is in\n%s", not, reports[i])
				}
			}
		}
	})
}

// Who asked to hear of nothing is neither warned nor told of the end.
func TestNotifyNeverOfDelays(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHouse(t)
		h.deliver = answer
		h.put("ann@office.example", "slow@partner.example")
		h.notify(map[string]relay.Notify{"slow": relay.NotifyNever})
		stop := h.run()
		time.Sleep(6 * 24 * time.Hour)
		stop()
		if len(h.sent()) != 0 || h.left() != 0 {
			t.Errorf("%q, %d letters left", h.sent(), h.left())
		}
	})
}

// RET=FULL gives the letter back whole, to whoever asked for that.
func TestReturnsTheWholeLetter(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHouse(t)
		h.deliver = answer
		k := h.put("ann@office.example", "bad@partner.example")
		h.mu.Lock()
		it := h.items[k]
		body, _ := h.Body(k.ID)
		it.Size, _ = body.Seek(0, 2)
		it.Ret, it.EnvID = relay.RetFull, "note 7"
		it.Rcpts[0].ORcpt = "rfc822;boss@office.example"
		h.mu.Unlock()
		stop := h.run()
		synctest.Wait()
		stop()
		for _, want := range []string{"secret text", "Content-Type: message/rfc822\r\n", "Original-Envelope-Id: note 7\r\n", "Original-Recipient: rfc822; boss@office.example\r\n"} {
			if len(h.sent()) != 1 || !strings.Contains(h.sent()[0], want) {
				t.Errorf("%q is not in\n%s", want, h.sent())
			}
		}
	})
}
