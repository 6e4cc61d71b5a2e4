package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"relayd/config"
	"relayd/queue"
	"relayd/relay"
	"relayd/relay/intake"
	"relayd/relay/orders"
	"relayd/relay/quota"
)

// fuse is the ledger as relay/intake and relay/admin see it: it knows today's limits, tells the
// postmaster and frees what was held.
type fuse struct{ h *house }

// limitOf is what a user may send, by cfg.
func limitOf(cfg *config.Config, user relay.Address) quota.Limit {
	own := cfg.Users[user]
	return quota.Limit{
		Hour: cmp.Or(own.RecipientsHour, cfg.Limits.UserRecipientsHour),
		Day:  cmp.Or(own.RecipientsDay, cfg.Limits.UserRecipientsDay),
	}
}

// Count implements intake.Quota.
func (f fuse) Count(user relay.Address, n int, subject string) intake.Charge {
	return charge{f, user, f.h.quota.Count(user, n, subject, limitOf(f.h.config(), user), time.Now())}
}

// charge implements intake.Charge.
type charge struct {
	fuse
	user relay.Address
	*quota.Charge
}

// Hold implements intake.Charge.
func (c charge) Hold() string { return c.Why() }

// Accepted implements intake.Charge. Trouble here changes nothing about the letter, which is
// durable and held; it is logged, and the postmaster is told with the next letter.
func (c charge) Accepted(ctx context.Context, env relay.Envelope) {
	outcome, err := c.Accept(time.Now())
	if err != nil {
		c.h.log.Error("that a user is held cannot be written down", "room", "quota", "user", c.user, "err", err)
	}
	switch outcome {
	case quota.Freed:
		_, err = c.h.queue.Release(context.WithoutCancel(ctx), queue.Filter{IDs: []relay.ID{env.ID}})
		c.h.log.Info("a letter is not held after all, its user was released", "room", "quota", "id", env.ID, "user", c.user, "err", err)
	case quota.Tell:
		c.tell(ctx, c.user, env.Origin.Client)
	}
}

// tell writes to the postmaster of the user's domain. The client's connection may end meanwhile.
func (f fuse) tell(ctx context.Context, user relay.Address, client netip.AddrPort) {
	for _, a := range f.h.quota.Held() {
		if a.User != user {
			continue
		}
		f.h.log.Warn("a user is over the limit: its letters are held", "room", "quota", "user", user, "client", client, "err", a.Why)
		now := time.Now()
		n := quota.Notice{ID: relay.NewID(now), Now: now, Hostname: f.h.config().Hostname, Account: a,
			To: relay.Address{Local: relay.Postmaster.Local, Domain: user.Domain}}
		if client.IsValid() {
			n.Client = client.Addr().Unmap().String()
		}
		env := relay.Envelope{ID: n.ID, Accepted: now, Rcpts: []relay.Recipient{{Addr: n.To}}}
		err := f.h.intake.Submit(context.WithoutCancel(ctx), env, bytes.NewReader(n.Compose()))
		if err = errors.Join(err, f.h.quota.Told(user, err == nil)); err != nil {
			f.h.log.Error("the postmaster may not have been told that a user is held", "room", "quota", "user", user, "err", err)
		}
		return
	}
}

// run tells of those whom a crash kept us from telling of, and writes the ledger now and then.
func (f fuse) run(ctx context.Context) error {
	for _, a := range f.h.quota.Held() {
		if !a.Told {
			f.tell(ctx, a.User, netip.AddrPort{})
		}
	}
	f.h.quota.Run(ctx)
	return nil
}

// Held implements admin.Holds.
func (f fuse) Held() []string {
	var names []string
	for _, a := range f.h.quota.Held() {
		names = append(names, a.User.String())
	}
	return names
}

// Release implements admin.Holds. The account comes first: a letter that was counted before and
// becomes durable after the queue was read finds it released, and releases itself.
func (f fuse) Release(ctx context.Context, user relay.Address) (items int, held bool, err error) {
	user, _ = f.h.users.Mailbox(user)
	if held, err = f.h.quota.Release(user); err != nil {
		return 0, held, err
	}
	yes := true
	chosen := queue.Filter{Keys: []queue.Key{}}
	for it, err := range f.h.queue.List(ctx, queue.Filter{User: user.String(), Held: &yes}) {
		// An item that cannot be read is the daemon's to mend; what an operator held by hand stays.
		if err == nil && it.Hold != "" && !orders.IsRule(it.Hold) {
			chosen.Keys = append(chosen.Keys, it.Key())
		}
	}
	if err := ctx.Err(); err != nil {
		return 0, held, fmt.Errorf("release %s: %w", user, err)
	}
	items, err = f.h.queue.Release(ctx, chosen)
	f.h.log.Info("operator released a user", "room", "quota", "user", user, "count", items, "err", err)
	return items, held, err
}
