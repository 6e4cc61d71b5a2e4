package delivery

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"relayd/queue"
	"relayd/relay"
)

// attempt makes one attempt at item and brings it to an end, whatever happens.
func (d *Drain) attempt(ctx context.Context, item queue.Item) {
	start := time.Now()
	d.Step("attempt: begun")
	got, err := d.deliver(ctx, item)
	if ctx.Err() == nil && !item.InHouse() {
		d.learn(ctx, item, got)
	}
	d.hangUp(item.Domain)
	d.Step("attempt: made")
	if errors.Is(err, queue.ErrNotFound) {
		return // dropped by the operator meanwhile: nobody is to hear of it
	}
	results := complete(item, got, start)
	step := queue.StepRetry
	// An attempt that our own shutdown broke off proves nothing: it is not the one to give up on.
	if ctx.Err() == nil {
		now := item.Now()
		_, step = d.Schedule().Of(&item, now, d.Lost(item.Born(), now))
		returnLate(item, results, now)
	}
	d.conclude(ctx, item, results, step)
}

// deliver calls the Deliverer. A panic in it, or a body that cannot be read now, defers the item:
// one poisonous letter must not stop the queue. A body that is damaged is lost for good, and the
// sender, who was promised delivery or a report, is owed the report.
func (d *Drain) deliver(ctx context.Context, item queue.Item) (results []relay.Result, err error) {
	defer func() {
		if p := recover(); p != nil {
			d.log.Error("panic in an attempt", "id", item.ID, "rcpt", item.Domain, "err", fmt.Sprint(p), "stack", string(debug.Stack()))
			results, err = nil, nil
		}
	}()
	body, err := d.Queue.Body(item.ID)
	if err != nil {
		d.log.Error("the text of a letter cannot be read", "id", item.ID, "err", err)
		if errors.Is(err, queue.ErrDamaged) {
			results = failAll(item, relay.Reply{Code: 554, Status: relay.Status{5, 3, 0}, Text: "the message was damaged on our disk"})
		}
		return results, err
	}
	defer body.Close()
	if item.By.Return && item.By.Overdue(item.Now()) {
		var last relay.Reply
		if n := len(item.Last); n > 0 {
			last = item.Last[n-1].Reply
		}
		return failAll(item, tooLate(item, last)), nil
	}
	env := item.Envelope
	env.Attempt = item.Attempts
	return d.Deliverer.Deliver(ctx, env, item.Domain, body), nil
}

// tooLate is the end of a letter that its sender wants back instead of late (RFC 2852). What was last
// heard of it is the reason.
func tooLate(item queue.Item, last relay.Reply) relay.Reply {
	r := relay.Reply{Code: 554, Status: relay.Status{5, 4, 7}, Text: "it was not delivered by the time its sender set, " + item.By.At.UTC().Format(time.RFC3339)}
	if last.Code != 0 {
		r.Text += "; the last answer was: " + last.String()
	}
	return r
}

// returnLate fails what was deferred of such a letter, when its time ran out during the attempt.
func returnLate(item queue.Item, results []relay.Result, now time.Time) {
	for i, res := range results {
		if res.Outcome == relay.Deferred && item.By.Return && item.By.Overdue(now) {
			results[i].Outcome, results[i].Reply = relay.Failed, tooLate(item, res.Reply)
		}
	}
}

// failAll is a failure of our own for every recipient.
func failAll(item queue.Item, reply relay.Reply) []relay.Result {
	results := make([]relay.Result, 0, len(item.Rcpts))
	for _, rcpt := range item.Rcpts {
		results = append(results, relay.Result{Rcpt: rcpt.Addr, Outcome: relay.Failed, Reply: reply, At: time.Now()})
	}
	return results
}

// complete returns exactly one result for each recipient, in their order. What the Deliverer
// forgot is deferred; what it said of others is dropped; what it said twice counts once.
func complete(item queue.Item, got []relay.Result, at time.Time) []relay.Result {
	known := make(map[relay.Address]relay.Result, len(got))
	for _, res := range got {
		known[res.Rcpt] = res
	}
	results := make([]relay.Result, 0, len(item.Rcpts))
	for _, rcpt := range item.Rcpts {
		res, ok := known[rcpt.Addr]
		if !ok {
			res = relay.Result{Rcpt: rcpt.Addr, Reply: relay.Reply{
				Code: 451, Status: relay.Status{4, 3, 0}, Text: "the attempt ended without a result",
			}}
		}
		switch res.Outcome {
		case relay.Delivered, relay.Failed:
		default:
			res.Outcome = relay.Deferred
		}
		if res.At.IsZero() {
			res.At = at
		}
		results = append(results, res)
	}
	return results
}

// conclude settles what the results mean. The order is the promise of the package.
func (d *Drain) conclude(ctx context.Context, item queue.Item, results []relay.Result, step queue.Step) {
	var delivered, failed, deferred []relay.Result
	for _, res := range results {
		switch {
		case res.Outcome == relay.Delivered:
			delivered = append(delivered, res)
		case res.Outcome == relay.Failed || step == queue.StepGiveUp:
			res.Outcome = relay.Failed // with the last reply of the remote kept
			failed = append(failed, res)
		default:
			deferred = append(deferred, res)
		}
	}
	d.tell(item, delivered)
	d.reportRelayed(ctx, item, delivered)
	d.reportAfterAll(ctx, item, delivered)
	late := asked(item.Envelope, deferred, relay.NotifyDelay)
	warn := len(late) > 0 && d.mayHear(item.Envelope) && d.Schedule().Owes(step, &item)
	if len(delivered) > 0 && (len(failed) > 0 || warn) {
		d.settle(ctx, item, delivered, false)
		d.Step("attempt: partly settled")
		delivered = nil
	}
	failed = d.reportFailed(ctx, item, failed)
	d.tell(item, failed)
	d.tell(item, deferred)
	warned := warn && d.reportDelayed(ctx, item, deferred)
	d.settle(ctx, item, slices.Concat(delivered, failed, deferred), warned)
	d.Step("attempt: settled")
}

// tell logs what came of each recipient.
func (d *Drain) tell(item queue.Item, results []relay.Result) {
	for _, res := range results {
		d.log.Info(string(res.Outcome), "id", item.ID, "from", item.From, "rcpt", res.Rcpt, "mx", res.Host, "tls", res.TLS,
			"code", res.Reply.Code, "status", res.Reply.Status, "err", errText(res), "attempt", item.Attempts, "size", item.Size,
			"dur", time.Since(item.Accepted).Round(time.Millisecond), "next", item.Next)
	}
}

// settle records results until the queue takes them. What is delivered and not recorded would be
// delivered again at every attempt, so a full disk is waited out here; when ctx ends it is tried
// once more and then left to the next start.
func (d *Drain) settle(ctx context.Context, item queue.Item, results []relay.Result, warned bool) {
	if len(results) == 0 {
		return
	}
	backoff := time.Second
	for {
		// Not ctx: after the grace, too, what we know is worth keeping.
		err := d.Queue.Settle(context.WithoutCancel(ctx), item.Key(), results, warned)
		// An item that is gone was dropped by the operator or set aside meanwhile.
		if err == nil || errors.Is(err, queue.ErrNotFound) || errors.Is(err, queue.ErrDamaged) || errors.Is(err, queue.ErrClosed) {
			return
		}
		d.log.Error("the outcome of an attempt cannot be recorded", "id", item.ID, "err", err, "next", backoff)
		if !pause(ctx, backoff) {
			return
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// Bounce gives letters up on the operator's word: the sender gets a report with reason, then the
// items are settled. It returns how many items it settled. Those under way at the moment and
// those whose report could not be submitted stay, and are in the error.
func (d *Drain) Bounce(ctx context.Context, f queue.Filter, reason string) (int, error) {
	// Listing ends before the first item is settled: a store may not bear both at once.
	var items []queue.Item
	var errs []error
	for item, err := range d.Queue.List(ctx, f) {
		if err != nil { // of one damaged record; the others go on
			errs = append(errs, fmt.Errorf("delivery: bounce: %w", err))
			continue
		}
		items = append(items, item)
	}
	if reason == "" {
		reason = "given up by the postmaster"
	}
	return d.bounceAll(ctx, items, reason, errs)
}

// bounceAtOnce is how many letters are given up side by side: they share the flushes of the disk.
const bounceAtOnce = 32

func (d *Drain) bounceAll(ctx context.Context, items []queue.Item, reason string, errs []error) (n int, err error) {
	var mu sync.Mutex
	var workers errgroup.Group
	workers.SetLimit(bounceAtOnce)
	for _, item := range items {
		if ctx.Err() != nil {
			break
		}
		workers.Go(func() error {
			err := d.bounce(ctx, item, reason)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, fmt.Errorf("delivery: bounce %s/%s: %w", item.ID, item.Domain, err))
			} else {
				n++
			}
			return nil
		})
	}
	workers.Wait()
	return n, errors.Join(append(errs, ctx.Err())...)
}

// ErrBusy says that an attempt at the item is under way.
var ErrBusy = errors.New("an attempt is under way, try again in a moment")

func (d *Drain) bounce(ctx context.Context, item queue.Item, reason string) error {
	if !d.claim(item.Key()) {
		return ErrBusy
	}
	defer d.release(item.Key())
	failed := failAll(item, relay.Reply{Code: 554, Status: relay.Status{5, 0, 0}, Text: reason})
	if err := d.report(ctx, item, failedReport(item, failed)); err != nil {
		return err
	}
	d.tell(item, failed)
	return d.Queue.Settle(ctx, item.Key(), failed, false)
}

func errText(res relay.Result) string {
	if res.Outcome == relay.Delivered {
		return ""
	}
	return res.Reply.String()
}
