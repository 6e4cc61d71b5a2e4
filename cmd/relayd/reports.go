package main

import (
	"context"

	"relayd/relay"
)

// reportDelivered tells a sender who asked for it that his letter lies in mailboxes here. The letter
// is ours by then and its client waits for the 250: a report that cannot be written is given up.
func (h *house) reportDelivered(ctx context.Context, env relay.Envelope, head []byte) {
	if err := h.drain.ReportDelivered(ctx, env, head); err != nil {
		h.log.Warn("a report of success could not be submitted", "id", env.ID, "err", err)
	}
}

// isLocal says whether a domain of ours holds the address.
func (h *house) isLocal(a relay.Address) bool {
	_, ours := h.config().Domains[a.Domain]
	return ours
}

// language is that in which people of the address's domain read reports.
func (h *house) language(a relay.Address) string { return h.config().Domains[a.Domain].Language }
