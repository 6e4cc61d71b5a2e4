package main

import (
	"context"
	"io"
	"maps"
	"slices"
	"time"

	"relayd/delivery"
	"relayd/queue"
	"relayd/relay"
	"relayd/relay/known"
)

// remembering notes the domains that take our letters. What a route takes proves nothing of the
// domain itself: a smarthost accepts slips of the pen too.
type remembering struct {
	delivery.Deliverer
	known  *known.Memory
	routed func(relay.Domain) bool
}

// Deliver implements delivery.Deliverer.
func (r remembering) Deliver(ctx context.Context, env relay.Envelope, domain relay.Domain, body io.ReadSeeker) []relay.Result {
	results := r.Deliverer.Deliver(ctx, env, domain, body)
	took := slices.ContainsFunc(results, func(res relay.Result) bool { return res.Outcome == relay.Delivered })
	if took && !r.routed(domain) && (env.Via == "" || env.Via == relay.ViaMX) {
		r.known.Note(domain, time.Now())
	}
	return results
}

// routed says whether mail for a domain may take a route, by today's config.
func (h *house) routed(d relay.Domain) bool { return mayRoute(h.config(), d) }

// suggest names the domain that was meant by d: one written to before, or one of ours.
func (h *house) suggest(d relay.Domain) (relay.Domain, bool) {
	return h.known.Near(d, slices.Collect(maps.Keys(h.config().Domains))...)
}

// proven says whether d has taken a letter of ours before, as far back as we remember, or has a
// smarthost before it that should take any.
func (h *house) proven(d relay.Domain) bool {
	_, ok := h.known.Last(d)
	return ok || h.routed(d)
}

// reviving is the queue in the operator's hand: whoever says to try now means it, whatever is known of
// hosts that did not answer.
type reviving struct {
	*queue.Queue
	revive func()
}

// Retry implements admin.Queue.
func (r reviving) Retry(ctx context.Context, f queue.Filter) (int, error) {
	r.revive()
	return r.Queue.Retry(ctx, f)
}
