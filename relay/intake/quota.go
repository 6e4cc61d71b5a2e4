package intake

import (
	"cmp"
	"context"
	"slices"

	"relayd/relay"
)

// Quota bounds what one login may send elsewhere; relay/quota stands behind it.
type Quota interface {
	// Count enters a letter to n recipients elsewhere. It is called before the letter is staged, so
	// that many sessions at once cannot outrun it.
	Count(user relay.Address, n int, subject string) Charge
}

// Charge is one letter that was counted. Exactly one of Accepted and Refund follows.
type Charge interface {
	// Hold says why the letter must be held instead of being sent; empty lets it go.
	Hold() string
	// Accepted is told that the letter is durable, before the client is.
	Accepted(ctx context.Context, env relay.Envelope)
	// Refund is told that the letter was not accepted.
	Refund()
}

// charge counts the letter against whoever logged in, and marks it when it must be held. What
// goes to mailboxes here is neither counted nor held.
func (t *transaction) charge(h header) Charge {
	_, foreign := split(t.env.Rcpts)
	dir := t.settings.Directory
	foreign = slices.DeleteFunc(slices.Clone(foreign), func(r relay.Recipient) bool { return dir.Domains[r.Addr.Domain].Elsewhere })
	if t.in.quota == nil || t.env.Origin.User == "" || len(foreign) == 0 {
		return free{}
	}
	user := t.settings.Directory.userOf(t.env.Origin)
	if user.IsNull() {
		return free{}
	}
	c := t.in.quota.Count(user, len(foreign), h.subject)
	t.env.Hold = cmp.Or(c.Hold(), t.env.Hold)
	return c
}

// free is the charge of a letter that nobody counts.
type free struct{}

func (free) Hold() string                             { return "" }
func (free) Accepted(context.Context, relay.Envelope) {}
func (free) Refund()                                  {}
