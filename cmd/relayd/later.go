package main

import (
	"context"
	"errors"
	"io"
	"time"

	"relayd/delivery"
	"relayd/relay"
)

// mailboxes delivers what the queue has for our own mailboxes: letters that their senders let go later
// (RFC 4865). All others go to the Deliverer.
type mailboxes struct {
	delivery.Deliverer
	local relay.Stager
}

// Deliver implements delivery.Deliverer. The mailboxes of an item get the letter all at once, or none.
func (m mailboxes) Deliver(ctx context.Context, env relay.Envelope, domain relay.Domain, body io.ReadSeeker) []relay.Result {
	if !env.InHouse() {
		return m.Deliverer.Deliver(ctx, env, domain, body)
	}
	env.Accepted = time.Now() // the time that the mailbox shows
	res := relay.Result{Outcome: relay.Delivered, Arrived: true, At: env.Accepted,
		Reply: relay.Reply{Code: 250, Status: relay.Status{2, 1, 5}, Text: "in the mailbox"}}
	if err := m.put(ctx, env, body); err != nil {
		res.Outcome, res.Arrived, res.Reply = relay.Deferred, false, relay.Reply{Code: 451, Status: relay.Status{4, 3, 0}, Text: "the mailbox cannot be written"}
		if f, ok := errors.AsType[*relay.Failure](err); ok {
			res.Reply = f.Reply
		}
	}
	results := make([]relay.Result, 0, len(env.Rcpts))
	for _, r := range env.Rcpts {
		res.Rcpt = r.Addr
		results = append(results, res)
	}
	return results
}

func (m mailboxes) put(ctx context.Context, env relay.Envelope, body io.ReadSeeker) error {
	if _, err := body.Seek(0, io.SeekStart); err != nil {
		return err
	}
	st, err := m.local.Stage(ctx, env)
	if err != nil {
		return err
	}
	if _, err = io.Copy(st, body); err == nil {
		err = st.Commit(ctx)
	}
	if err != nil {
		return errors.Join(err, st.Abort())
	}
	return nil
}
