package admin_test

import (
	"testing"

	"relayd/relay/admin"
)

// What the gate refuses is counted by rule, and a zone that two lists read is there once.
func TestGate(t *testing.T) {
	t.Parallel()
	m := admin.NewMetrics()
	shown := admin.Gate{
		Rules: []admin.GateRule{{Rule: "early", Refused: 3, Observed: 1}, {Rule: "score"}},
		Lists: []admin.GateList{
			{Zone: "a.example", Weight: 5, Hits: 2}, {Zone: "a.example", Weight: 3, Hits: 2},
			{Zone: "b.example", Weight: 5, Ignored: "it does not answer"},
		},
	}
	m.Gate(func() admin.Gate { return shown })
	wantLines(t, scrape(t, m), `relayd_gate_total{outcome="refused",rule="early"} 3`, `relayd_gate_total{outcome="observed",rule="early"} 1`,
		`relayd_gate_total{outcome="refused",rule="score"} 0`, `relayd_gate_list_hits_total{zone="a.example"} 2`,
		`relayd_gate_list_ignored{zone="a.example"} 0`, `relayd_gate_list_ignored{zone="b.example"} 1`)
}
