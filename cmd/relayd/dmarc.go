package main

import (
	"context"
	"slices"
	"time"

	"relayd/config"
	"relayd/relay"
	"relayd/relay/dmarc"
	"relayd/relay/intake"
	"relayd/relay/policy"
)

// dmarcSender sends the DMARC reports from the postmaster of the domain that signs our own letters.
func (h *house) dmarcSender(cfg *config.Config) *dmarc.Sender {
	own := intake.SigningDomain(cfg.Hostname, func(d relay.Domain) bool { _, ours := cfg.Domains[d]; return ours })
	return &dmarc.Sender{
		Ledger: h.gathered, Hostname: cfg.Hostname, Generator: "relayd " + version(), DNS: h.dns, Submit: h.intake,
		From:    relay.Address{Local: relay.Postmaster.Local, Domain: own},
		Enabled: h.sendsReports,
		Organization: func(ctx context.Context, name string) (string, error) {
			return policy.Organization(ctx, h.dns, name)
		},
	}
}

func (h *house) sendsReports() bool { return h.config().Policy.AggregateReports }

// observe counts a stranger's letter for the report to its author's domain.
func (h *house) observe(o dmarc.Observation) {
	if h.sendsReports() {
		h.gathered.Note(o, time.Now())
	}
}

// reporter shows the operator what has been gathered, and sends it when he says so.
type reporter struct{ h *house }

// Pending implements admin.Reports.
func (r reporter) Pending() []dmarc.Account { return r.h.gathered.Pending() }

// Send implements admin.Reports.
func (r reporter) Send(ctx context.Context) (sent, left int) {
	end := time.Now().Truncate(time.Second).Add(time.Second) // of this second too
	due := slices.DeleteFunc(r.h.gathered.Pending(), func(a dmarc.Account) bool { return !a.Begin.Before(end) })
	left = r.h.feedback.Send(ctx, end)
	return len(due) - left, left
}
