package delivery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"relayd/delivery/dsn"
	"relayd/queue"
	"relayd/relay"
)

const (
	// maxHead is how much of a letter is read for its header, in octets; dsn takes no more than it needs.
	maxHead = 64 << 10
	// maxWhole bounds, in octets, the letters that go back whole to those who want them back (RET=FULL).
	maxWhole = 1 << 20
)

// reportFailed tells the sender, and returns the results to settle: as they are when the report
// is durable or not due, and deferred when it could not be submitted. Then the failed recipients
// stay in the queue and the next attempt leads here again.
func (d *Drain) reportFailed(ctx context.Context, item queue.Item, failed []relay.Result) []relay.Result {
	if len(failed) == 0 {
		return nil
	}
	if err := d.report(ctx, item, failedReport(item, failed)); err != nil {
		d.log.Error("a report could not be submitted, the letter stays", "id", item.ID, "err", err)
		for i := range failed {
			failed[i].Outcome = relay.Deferred
		}
	}
	return failed
}

// reportDelayed warns the sender, and says whether that is done.
func (d *Drain) reportDelayed(ctx context.Context, item queue.Item, deferred []relay.Result) bool {
	r := dsn.Report{Kind: dsn.Delayed, Results: asked(item.Envelope, deferred, relay.NotifyDelay), Next: item.Next}
	if s := d.Schedule().For(item.Domain); s.GiveUpAfter > 0 {
		// What our own line has cost so far does not count, nor what it may still cost.
		born := item.Born().Add(d.Lost(item.Born(), item.Now()))
		r.Until = born.Add(s.GiveUpAfter)
		// Age alone gives nothing up: a letter that was seldom tried, because the clock was set or
		// relayd stood still, is kept longer.
		if end, ok := s.End(born, item.Attempts, item.Next, item.ID); ok {
			r.Until = end
		}
	}
	if item.By.Return && item.By.At.Before(r.Until) {
		r.Until = item.By.At
	}
	if err := d.report(ctx, item, r); err != nil {
		d.log.Warn("a delay warning could not be submitted", "id", item.ID, "err", err)
		return false
	}
	return true
}

func failedReport(item queue.Item, failed []relay.Result) dsn.Report {
	return dsn.Report{Kind: dsn.Failed, Results: asked(item.Envelope, failed, relay.NotifyFailure)}
}

// reportRelayed tells a sender who asked to hear of success that the letter went to a host that will
// not tell him itself (RFC 3461 §5.2.2), or into the mailbox by LMTP. A report that cannot be submitted is given up: the letter has
// arrived and must not be sent again for it.
func (d *Drain) reportRelayed(ctx context.Context, item queue.Item, delivered []relay.Result) {
	here := map[dsn.Kind][]relay.Result{}
	for _, res := range delivered {
		switch {
		case res.Arrived:
			here[dsn.Delivered] = append(here[dsn.Delivered], res)
		case !res.DSN || item.By.Trace:
			here[dsn.Relayed] = append(here[dsn.Relayed], res)
		}
	}
	for kind, results := range here {
		r := dsn.Report{Kind: kind, Results: asked(item.Envelope, results, relay.NotifySuccess)}
		if item.By.Trace { // every relay reports, whoever else does (RFC 2852 §4)
			r.Results = notNever(item.Envelope, results)
		}
		if err := d.report(ctx, item, r); err != nil {
			d.log.Warn("a report of success could not be submitted", "id", item.ID, "err", err)
		}
	}
}

// reportAfterAll tells a sender who was warned of a delay that it is over. Like reportRelayed it gives
// up a report that cannot be submitted.
func (d *Drain) reportAfterAll(ctx context.Context, item queue.Item, delivered []relay.Result) {
	if !item.Warned {
		return
	}
	var silent []relay.Result // those who get no other report of success
	for _, res := range asked(item.Envelope, delivered, relay.NotifyDelay) {
		if len(asked(item.Envelope, []relay.Result{res}, relay.NotifySuccess)) == 0 {
			silent = append(silent, res)
		}
	}
	if err := d.report(ctx, item, dsn.Report{Kind: dsn.AfterAll, Results: silent}); err != nil {
		d.log.Warn("the end of a delay could not be reported", "id", item.ID, "err", err)
	}
}

// ReportDelivered tells the sender of a letter that it lies in the mailboxes of env.Rcpts, as far as he
// asked to hear of it. head is the beginning of the letter. It waits for the disk.
func (d *Drain) ReportDelivered(ctx context.Context, env relay.Envelope, head []byte) error {
	results := make([]relay.Result, 0, len(env.Rcpts))
	for _, r := range env.Rcpts {
		known := func(res relay.Result) bool { return res.Rcpt == r.Addr }
		if !slices.ContainsFunc(results, known) { // an alias may lead to several mailboxes
			results = append(results, relay.Result{Rcpt: r.Addr, Outcome: relay.Delivered, At: env.Accepted,
				Reply: relay.Reply{Code: 250, Status: relay.Status{2, 1, 5}, Text: "in the mailbox"}})
		}
	}
	r := dsn.Report{Kind: dsn.Delivered, Results: asked(env, results, relay.NotifySuccess), OriginalHeader: head}
	return d.reportOn(ctx, env, r)
}

// asked picks the results that their sender wants to hear of.
func asked(env relay.Envelope, results []relay.Result, outcome relay.Notify) []relay.Result {
	wants := make(map[relay.Address]bool, len(env.Rcpts))
	for _, r := range env.Rcpts {
		wants[r.Addr] = r.Notify.Wants(outcome)
	}
	var out []relay.Result
	for _, res := range results {
		if wants[res.Rcpt] {
			out = append(out, res)
		}
	}
	return out
}

// notNever picks the results of recipients of whom the sender does not refuse to hear.
func notNever(env relay.Envelope, results []relay.Result) (out []relay.Result) {
	for _, res := range results {
		if !slices.ContainsFunc(env.Rcpts, func(r relay.Recipient) bool { return r.Addr == res.Rcpt && r.Notify == relay.NotifyNever }) {
			out = append(out, res)
		}
	}
	return out
}

// report completes r with the letter of item, see reportOn. A letter that must not cross a line in the clear
// goes back as its header, and so does the report, under the same condition (RFC 8689 §5).
func (d *Drain) report(ctx context.Context, item queue.Item, r dsn.Report) error {
	if item.From.IsNull() || len(r.Results) == 0 {
		return nil
	}
	limit := int64(maxHead)
	if r.Whole = r.Kind == dsn.Failed && item.Ret == relay.RetFull && !item.RequireTLS && item.Size <= maxWhole; r.Whole {
		limit = maxWhole
	}
	r.OriginalHeader = d.head(item.ID, limit)
	r.Whole = r.Whole && int64(len(r.OriginalHeader)) == item.Size
	return d.reportOn(ctx, item.Envelope, r)
}

// reportOn submits r, which knows its kind, its results and the letter, to the sender of item, or a
// failure to the postmaster where the sender must not hear of it, or the front door refuses his address
// for good, such as that of a machine that has no mailbox. nil means that the report is durable, or that
// there is nobody to tell: a null sender, or one that did not ask for it.
func (d *Drain) reportOn(ctx context.Context, item relay.Envelope, r dsn.Report) error {
	if item.From.IsNull() || len(r.Results) == 0 {
		return nil
	}
	mayHear := d.mayHear(item)
	if mayHear {
		err := d.submitReport(ctx, item, r, item.From)
		if f, ok := errors.AsType[*relay.Failure](err); !ok || !f.Reply.Permanent() {
			return err
		}
		d.log.Warn("the sender takes no reports", "id", item.ID, "from", item.From, "err", err)
	}
	if r.Kind != dsn.Failed {
		return nil
	}
	r.Stead, r.Mute = d.postmaster(item), mayHear
	return d.submitReport(ctx, item, r, r.Stead)
}

// submitReport completes r and submits it.
func (d *Drain) submitReport(ctx context.Context, item relay.Envelope, r dsn.Report, to relay.Address) error {
	now := time.Now()
	r.ID, r.Now, r.ReportingMTA, r.Envelope = relay.NewID(now), now, d.Hostname, item
	if d.Language != nil {
		r.Language = d.Language(to)
	}
	r.EightBit = d.Local != nil && d.Local(to)
	var letter bytes.Buffer
	if err := dsn.Compose(&letter, r); err != nil {
		return err
	}
	env := relay.Envelope{
		ID: r.ID, Rcpts: []relay.Recipient{{Addr: to}}, Accepted: now,
		Size: int64(letter.Len()), UTF8: !to.IsASCII(), RequireTLS: item.RequireTLS,
	}
	d.Step("report: composed")
	err := d.submit(ctx, env, &letter)
	d.Step("report: submitted")
	if err == nil {
		d.log.Info("reported", "id", item.ID, "from", item.From, "rcpt", to, "kind", string(r.Kind), "report", env.ID)
	}
	return err
}

// mayHear says whether the sender of a letter is told what becomes of it: whoever logged in, came from
// a network or by a listener of ours, or has an address of ours. A stranger's letter is here because
// an alias sends it on, and whom it names as its sender may never have heard of it: a report would be
// backscatter. What can be refused was refused in his session.
func (d *Drain) mayHear(env relay.Envelope) bool {
	o := env.Origin
	return !env.From.IsNull() &&
		(o.Service != strangersService || o.Submitted() || o.Trusted || d.Local != nil && d.Local(env.From))
}

// strangersService is the service by which anybody may come.
const strangersService = "smtp"

// postmaster reads in place of a stranger what became of his letter: the postmaster of the domain whose
// alias sent it on.
func (d *Drain) postmaster(env relay.Envelope) relay.Address {
	for _, r := range env.Rcpts {
		if orig, err := relay.ParseAddress(r.Orig, true); err == nil && d.Local != nil && d.Local(orig) {
			return relay.Address{Local: relay.Postmaster.Local, Domain: orig.Domain}
		}
	}
	return relay.Postmaster
}

// submit hands a report in. The front door waits for the disk; our shutdown does not hurry it,
// because a report that is half in would be written a second time.
func (d *Drain) submit(ctx context.Context, env relay.Envelope, letter io.Reader) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("delivery: panic while submitting a report: %v", p)
		}
	}()
	return d.Submit.Submit(context.WithoutCancel(ctx), env, letter)
}

// head is the beginning of a letter. A report without the original header is better than none.
func (d *Drain) head(id relay.ID, limit int64) []byte {
	body, err := d.Queue.Body(id)
	if err != nil {
		return nil
	}
	defer body.Close()
	head, err := io.ReadAll(io.LimitReader(body, limit))
	if err != nil {
		d.log.Error("the header of a letter cannot be read", "id", id, "err", err)
	}
	return head
}
