package intake

import (
	"context"
	"slices"

	"relayd/relay"
)

// Asker asks the server that keeps a domain whether it has a recipient. relay/callout does.
type Asker interface {
	// Ask returns an error when nobody can tell.
	Ask(ctx context.Context, rcpt relay.Address) (exists bool, err error)
}

// ask takes those out of found whom the server that keeps their domain does not have. Where it cannot
// be asked, a stranger is to come again: taking the letter would mean to report its failure later, to
// somebody who may never have sent it. Letters of our own people and reports are taken.
func (t *transaction) ask(ctx context.Context, found []relay.Recipient, to relay.Address) ([]relay.Recipient, error) {
	dir, o := t.settings.Directory, t.env.Origin
	if !slices.ContainsFunc(found, func(r relay.Recipient) bool { return r.Mailbox.IsNull() && dir.unsure(o, r.Addr) }) {
		return found, nil
	}
	ownPeople := dir.mayRelay(o)
	var kept []relay.Recipient
	var unknown error
	for _, r := range found {
		exists := true
		if r.Mailbox.IsNull() && dir.unsure(o, r.Addr) {
			var err error
			if exists, err = t.in.asker.Ask(ctx, r.Addr); err != nil {
				unknown, exists = err, ownPeople
			}
		}
		if exists {
			kept = append(kept, r)
		}
	}
	switch {
	case len(kept) > 0:
		return kept, nil
	case unknown != nil:
		return nil, relay.Fail("intake: rcpt", relay.ScopeRecipient, relay.Reply{Code: 451, Status: relay.Status{4, 4, 3},
			Text: "we cannot find out now whether there is a mailbox " + to.String() + ", please try again later"}, unknown)
	}
	return nil, relay.Refuse("intake: rcpt", 550, "5.1.1", "there is no mailbox "+to.String()+" here")
}
