package intake

import (
	"slices"

	"relayd/relay"
)

// leavesLater says whether the sender lets the letter go at a time to come (RFC 4865). Until then it
// waits in the queue, for our own mailboxes too: there delivery hands it over, and confirms it.
func (t *transaction) leavesLater() bool { return t.env.Release.After(t.env.Accepted) }

// asWaiting is the part of a letter for mailboxes of ours as the queue takes it. Where another part goes
// elsewhere, with another trace, it is a letter of its own. The limits on what a login sends elsewhere do
// not hold it.
func asWaiting(env relay.Envelope, anew bool) relay.Envelope {
	if anew {
		env.ID = relay.NewID(env.Accepted)
	}
	env.Hold = ""
	env.Rcpts = slices.Clone(env.Rcpts)
	for i, r := range env.Rcpts {
		if r.Addr.Domain == "" { // <postmaster>: the queue sorts by domain
			env.Rcpts[i].Addr = r.Mailbox
		}
	}
	return env
}
