package admin_test

import (
	"context"
	"testing"

	"relayd/relay"
	"relayd/relay/admin"
)

// told is the reports of a fake.
type told struct{ asked relay.Domain }

func (r *told) List() []admin.TLSCount {
	return []admin.TLSCount{{Day: "2026-11-21", Domain: "partner.example", Policy: relay.TLSPolicySTS, Good: 3, Bad: 1,
		Failures: []admin.TLSFailures{{TLSFailure: relay.TLSFailure{Result: relay.TLSExpired, Host: "mx.partner.example"}, Count: 1}}}}
}

func (r *told) Send(_ context.Context, d relay.Domain) ([]admin.TLSReportSent, error) {
	r.asked = d
	return []admin.TLSReportSent{{Domain: d, Day: "2026-11-21", Error: "it asks for no reports"}}, nil
}

func TestTLSReports(t *testing.T) {
	t.Parallel()
	r := &told{}
	c, _ := serve(t, admin.Config{Queue: twoLetters(t), TLSReports: r})
	list, err := c.TLSReports(t.Context())
	if err != nil || len(list) != 1 || list[0].Good != 3 || list[0].Failures[0].Result != relay.TLSExpired || list[0].Failures[0].Count != 1 {
		t.Errorf("%+v, %v", list, err)
	}
	sent, err := c.SendTLSReports(t.Context(), "partner.example")
	if err != nil || len(sent) != 1 || sent[0].Error == "" || r.asked != "partner.example" {
		t.Errorf("%+v, %v, asked for %q", sent, err, r.asked)
	}
	without, _ := serve(t, admin.Config{Queue: twoLetters(t)})
	if _, err := without.TLSReports(t.Context()); err == nil {
		t.Error("a relayd without reports lists some")
	}
	if _, err := without.SendTLSReports(t.Context(), ""); err == nil {
		t.Error("a relayd without reports sends some")
	}
}
