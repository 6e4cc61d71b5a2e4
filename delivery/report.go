package delivery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"relayd/delivery/dsn"
	"relayd/queue"
	"relayd/relay"
)

// maxHead is how much of a letter is read for its header, in octets; dsn takes no more than it needs.
const maxHead = 64 << 10

// reportFailed tells the sender, and returns the results to settle: as they are when the report
// is durable or not due, and deferred when it could not be submitted. Then the failed recipients
// stay in the queue and the next attempt leads here again.
func (d *Drain) reportFailed(ctx context.Context, item queue.Item, failed []relay.Result) []relay.Result {
	if len(failed) == 0 {
		return nil
	}
	if err := d.report(ctx, item, failedReport(failed)); err != nil {
		d.log.Error("a report could not be submitted, the letter stays", "id", item.ID, "err", err)
		for i := range failed {
			failed[i].Outcome = relay.Deferred
		}
	}
	return failed
}

// reportDelayed warns the sender, once for each item, and says whether that is done.
func (d *Drain) reportDelayed(ctx context.Context, item queue.Item, deferred []relay.Result) bool {
	r := dsn.Report{Kind: dsn.Delayed, Results: deferred, Next: item.Next}
	if s := d.Schedule(); s.GiveUpAfter > 0 {
		r.Until = item.Accepted.Add(s.GiveUpAfter)
	}
	if err := d.report(ctx, item, r); err != nil {
		d.log.Warn("a delay warning could not be submitted", "id", item.ID, "err", err)
		return false
	}
	return true
}

func failedReport(failed []relay.Result) dsn.Report {
	return dsn.Report{Kind: dsn.Failed, Results: failed}
}

// report completes r, which knows its kind and results, and submits it to the sender of item.
// nil means that it is durable, or that there is nobody to tell: a null sender, or one that the
// front door refuses for good.
func (d *Drain) report(ctx context.Context, item queue.Item, r dsn.Report) error {
	if item.From.IsNull() {
		return nil
	}
	now := time.Now()
	r.ID, r.Now, r.ReportingMTA, r.Envelope = relay.NewID(now), now, d.Hostname, item.Envelope
	r.OriginalHeader = d.head(item.ID)
	var letter bytes.Buffer
	if err := dsn.Compose(&letter, r); err != nil {
		return err
	}
	env := relay.Envelope{
		ID: r.ID, Rcpts: []relay.Recipient{{Addr: item.From}}, Accepted: now,
		Size: int64(letter.Len()), UTF8: !item.From.IsASCII(),
	}
	d.Step("report: composed")
	err := d.submit(ctx, env, &letter)
	if f, ok := errors.AsType[*relay.Failure](err); ok && f.Reply.Permanent() {
		d.log.Warn("nobody to report to", "id", item.ID, "from", item.From, "err", err)
		return nil
	}
	d.Step("report: submitted")
	if err == nil {
		d.log.Info("reported", "id", item.ID, "from", item.From, "kind", string(r.Kind), "report", env.ID)
	}
	return err
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
func (d *Drain) head(id relay.ID) []byte {
	body, err := d.Queue.Body(id)
	if err != nil {
		return nil
	}
	defer body.Close()
	head, err := io.ReadAll(io.LimitReader(body, maxHead))
	if err != nil {
		d.log.Error("the header of a letter cannot be read", "id", id, "err", err)
	}
	return head
}
