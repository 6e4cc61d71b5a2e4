package intake

import (
	"context"
	"slices"

	"relayd/relay"
)

// confirmation is what to do once the letter is durable: tell a sender who asked for it that the letter
// lies in mailboxes here. It keeps a copy of the header, whose buffer the body takes over.
func (t *transaction) confirmation(h header) func(context.Context) {
	env := t.env
	env.Rcpts, _ = split(t.env.Rcpts)
	env.Rcpts = slices.DeleteFunc(env.Rcpts, func(r relay.Recipient) bool { return !r.Notify.Wants(relay.NotifySuccess) })
	if t.in.success == nil || t.leavesLater() || env.From.IsNull() || len(env.Rcpts) == 0 {
		return func(context.Context) {}
	}
	head := slices.Clone(h.raw)
	return func(ctx context.Context) { t.in.success(ctx, env, head) }
}
