package delivery_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"relayd/delivery"
	"relayd/queue"
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

// wantBack has the sender of a queued letter want the whole of it back, and whatever also says.
func (h *house) wantBack(k queue.Key, also func(*queue.Item)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	it := h.items[k]
	body, _ := h.Body(k.ID)
	it.Size, _ = body.Seek(0, 2)
	it.Ret = relay.RetFull
	also(it)
}

// RET=FULL gives the letter back whole, to whoever asked for that.
func TestReturnsTheWholeLetter(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHouse(t)
		h.deliver = answer
		k := h.put("ann@office.example", "bad@partner.example")
		h.wantBack(k, func(it *queue.Item) {
			it.EnvID, it.Rcpts[0].ORcpt = "note 7", "rfc822;boss@office.example"
		})
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

// A letter that must be kept under TLS goes back as its header whatever its writer asked for, and the report
// must be kept so too (RFC 8689 §5).
func TestReportsKeepRequireTLS(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHouse(t)
		h.deliver = answer
		k := h.put("ann@office.example", "bad@partner.example")
		h.wantBack(k, func(it *queue.Item) { it.RequireTLS = true })
		stop := h.run()
		synctest.Wait()
		stop()
		h.mu.Lock()
		defer h.mu.Unlock()
		if len(h.reports) != 1 || !h.envelopes[0].RequireTLS || strings.Contains(h.reports[0], "secret text") {
			t.Errorf("%+v: %q", h.envelopes, h.reports)
		}
	})
}

// Our own people hear of a delay after a quarter of an hour and again with everybody, each time with
// the reason and the next attempt, and at last that it is over. Nobody else is told so early, and
// nobody of the end of what he was not told.
func TestTellsOfADelayAndItsEnd(t *testing.T) {
	for name, c := range map[string]struct {
		origin relay.Origin
		notify relay.Notify
		until  time.Duration // delays last
		want   string
	}{
		"people":      {relay.Origin{User: "ann@office.example"}, 0, 6 * time.Hour, "delayed delayed after all"},
		"briefly":     {relay.Origin{User: "ann@office.example"}, 0, 15 * time.Minute, ""},
		"an hour":     {relay.Origin{User: "ann@office.example"}, 0, time.Hour, "delayed after all"},
		"a machine":   {relay.Origin{Trusted: true}, 0, time.Hour, ""},
		"machine, 6h": {relay.Origin{Trusted: true}, 0, 6 * time.Hour, "delayed after all"},
		"failures":    {relay.Origin{User: "ann@office.example"}, relay.NotifyFailure, 6 * time.Hour, ""},
		"everything":  {relay.Origin{User: "ann@office.example"}, relay.NotifySuccess | relay.NotifyDelay, time.Hour, "delayed relayed"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				h := newHouse(t)
				born := time.Now()
				h.deliver = func(_ context.Context, env relay.Envelope, _ relay.Domain) []relay.Result {
					res := relay.Result{Rcpt: env.Rcpts[0].Addr, Outcome: relay.Delivered, Reply: relay.Reply{Code: 250, Text: "ok"}}
					if time.Since(born) < c.until {
						res.Outcome, res.Reply = relay.Deferred, relay.Reply{Code: 451, Text: "greylisted, come back"}
					}
					return []relay.Result{res}
				}
				k := h.put("ann@office.example", "bob@partner.example")
				h.mu.Lock()
				h.items[k].Origin, h.items[k].Rcpts[0].Notify = c.origin, c.notify
				h.mu.Unlock()
				stop := h.run()
				time.Sleep(24 * time.Hour)
				stop()
				var got []string
				for _, r := range h.sent() {
					kind := "after all"
					for _, k := range []string{"delayed", "relayed"} {
						if strings.Contains(r, "Action: "+k) && !strings.Contains(r, " after all") {
							kind = k
						}
					}
					got = append(got, kind)
					if kind == "delayed" && (!strings.Contains(r, "greylisted, come back") || !strings.Contains(r, "next at about")) {
						t.Errorf("without the reason or the next attempt:\n%s", r)
					}
				}
				if strings.Join(got, " ") != c.want || h.left() != 0 {
					t.Errorf("%q, %d left", got, h.left())
				}
			})
		})
	}
}

// A stranger whose letter an alias of ours sent on hears neither of delays nor of the end: whoever he
// named as the sender would. The postmaster of the alias does.
func TestStrangersAreNotTold(t *testing.T) {
	for name, c := range map[string]struct {
		origin relay.Origin
		from   string
		rcpt   string
		want   string // the reader
	}{
		"stranger":      {relay.Origin{Service: "smtp"}, "x@elsewhere.example", "bad@partner.example", "postmaster@office.example"},
		"stranger, 5 d": {relay.Origin{Service: "smtp"}, "x@elsewhere.example", "slow@partner.example", "postmaster@office.example"},
		"trusted":       {relay.Origin{Service: "smtp", Trusted: true}, "x@elsewhere.example", "bad@partner.example", "x@elsewhere.example"},
		"login":         {relay.Origin{Service: "smtp", User: "ann@office.example"}, "x@elsewhere.example", "bad@partner.example", "x@elsewhere.example"},
		"device":        {relay.Origin{Service: "device"}, "x@elsewhere.example", "bad@partner.example", "x@elsewhere.example"},
		"ours":          {relay.Origin{Service: "smtp"}, "ann@office.example", "bad@partner.example", "ann@office.example"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				h := newHouse(t, func(o *delivery.Options) {
					o.Local = func(a relay.Address) bool { return a.Domain == "office.example" }
				})
				h.deliver = answer
				k := h.put(c.from, c.rcpt)
				h.mu.Lock()
				h.items[k].Origin, h.items[k].Rcpts[0].Orig = c.origin, "sales@office.example"
				h.mu.Unlock()
				stop := h.run()
				time.Sleep(6 * 24 * time.Hour)
				stop()
				if r := h.sent(); len(r) != 1 || !strings.Contains(r[0], "\r\nTo: "+c.want+"\r\n") || h.left() != 0 {
					t.Errorf("%d left, %q", h.left(), r)
				}
			})
		})
	}
}
