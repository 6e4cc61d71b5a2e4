package main

import (
	"context"
	"path/filepath"
	"time"

	"relayd/config"
	"relayd/delivery/tlsrpt"
	"relayd/relay"
	"relayd/relay/admin"
)

// openReports opens what is counted of TLS with other servers.
func (h *house) openReports(cfg *config.Config) {
	h.reports = tlsrpt.Open(tlsrpt.Options{
		Path: filepath.Join(cfg.DataDir, "tls-reports"), Hostname: cfg.Hostname, Resolver: h.dns, Submit: h.intake,
		AllowLoopback: cfg.Outbound.AllowLoopback, Log: h.log,
	})
	h.later(h.reports.Close)
}

// noteSession is who hears of the sessions with other servers: nobody where reports are off.
func (h *house) noteSession(cfg *config.Config) func(relay.TLSSession) {
	if !cfg.Outbound.TLSReports {
		return nil
	}
	return h.reports.Note
}

// tlsReports shows the reports to the operator.
type tlsReports struct{ h *house }

// List implements admin.TLSReports.
func (r tlsReports) List() (list []admin.TLSCount) {
	for _, c := range r.h.reports.List() {
		for _, p := range c.Policies {
			shown := admin.TLSCount{Day: c.Day.Format(time.DateOnly), Domain: c.Domain, Policy: p.Policy.Type,
				Good: p.Summary.Good, Bad: p.Summary.Bad, Next: r.h.reports.Due(c), Sent: c.Sent}
			for _, d := range p.Details {
				shown.Failures = append(shown.Failures, admin.TLSFailures{TLSFailure: d.TLSFailure, Count: d.Count})
			}
			list = append(list, shown)
		}
	}
	return list
}

// Send implements admin.TLSReports.
func (r tlsReports) Send(ctx context.Context, d relay.Domain) (list []admin.TLSReportSent, err error) {
	for _, s := range r.h.reports.Send(ctx, d) {
		list = append(list, admin.TLSReportSent{Domain: s.Domain, Day: s.Day.Format(time.DateOnly), To: s.To, Error: s.Err})
	}
	return list, nil
}
