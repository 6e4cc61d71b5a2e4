package admin

import (
	"context"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"

	"relayd/relay"
)

// Gate answers GET /v1/gate: what relay/gate has refused since the start, and how its lists are.
type Gate struct {
	Mode    string     `json:"mode"` // enforce, observe or off
	Rules   []GateRule `json:"rules"`
	Lists   []GateList `json:"lists"`
	Known   int        `json:"known"`   // clients and senders whose letters were accepted lately
	Waiting int        `json:"waiting"` // letters asked to come again that have not
}

// GateRule is how often a rule has refused, and how often it would have while mode was "observe".
type GateRule struct {
	Rule     string `json:"rule"`
	Refused  int64  `json:"refused"`
	Observed int64  `json:"observed"`
}

// GateList is one list of addresses in the DNS.
type GateList struct {
	Zone    relay.Domain `json:"zone"`
	Weight  int          `json:"weight"`
	Answers []string     `json:"answers,omitempty"` // those that count; none: all
	Hits    int64        `json:"hits"`              // clients that its zone lists
	Ignored string       `json:"ignored,omitempty"` // why
}

func (s *Server) showGate(w http.ResponseWriter, _ *http.Request) {
	if s.cfg.Gate == nil {
		writeError(w, refuse(http.StatusNotImplemented, "this relayd has no gate"))
		return
	}
	writeJSON(w, http.StatusOK, s.cfg.Gate())
}

// Gate asks what the gate has refused, and how its lists are.
func (c *Client) Gate(ctx context.Context) (Gate, error) {
	var g Gate
	err := c.get(ctx, "/v1/gate", &g)
	return g, err
}

// Gate says how to learn, whenever somebody asks for the metrics, what the gate has refused. Call it
// once.
func (m *Metrics) Gate(shown func() Gate) {
	m.registry.MustRegister(&gateCounts{
		shown: shown,
		rules: prometheus.NewDesc("relayd_gate_total",
			"Strangers that broke a rule of the gate; outcome is refused, or observed where nothing follows.", []string{"rule", "outcome"}, nil),
		hits: prometheus.NewDesc("relayd_gate_list_hits_total",
			"Clients that a zone of the DNS lists.", []string{"zone"}, nil),
		ignored: prometheus.NewDesc("relayd_gate_list_ignored",
			"1 if a zone is not in order and therefore not asked; relayctl gate says why.", []string{"zone"}, nil),
	})
}

// gateCounts is the collector: which lists there are is known only when somebody asks.
type gateCounts struct {
	shown                func() Gate
	rules, hits, ignored *prometheus.Desc
}

func (c *gateCounts) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.rules
	ch <- c.hits
	ch <- c.ignored
}

func (c *gateCounts) Collect(ch chan<- prometheus.Metric) {
	g := c.shown()
	for _, r := range g.Rules {
		ch <- prometheus.MustNewConstMetric(c.rules, prometheus.CounterValue, float64(r.Refused), r.Rule, "refused")
		ch <- prometheus.MustNewConstMetric(c.rules, prometheus.CounterValue, float64(r.Observed), r.Rule, "observed")
	}
	seen := map[relay.Domain]bool{} // several lists may read one zone
	for _, l := range g.Lists {
		if seen[l.Zone] {
			continue
		}
		seen[l.Zone] = true
		ignored := 0.0
		if l.Ignored != "" {
			ignored = 1
		}
		ch <- prometheus.MustNewConstMetric(c.hits, prometheus.CounterValue, float64(l.Hits), string(l.Zone))
		ch <- prometheus.MustNewConstMetric(c.ignored, prometheus.GaugeValue, ignored, string(l.Zone))
	}
}
