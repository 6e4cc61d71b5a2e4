package admin

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Certificates says how to learn, whenever somebody asks for the metrics, which certificates we
// show and whether their renewals are in use. Call it once.
func (m *Metrics) Certificates(shown func() []Certificate) {
	labels := []string{"name", "from"}
	m.registry.MustRegister(&certificates{
		shown: shown,
		expiry: prometheus.NewDesc("relayd_certificate_expiry_seconds",
			"Time until the TLS certificate runs out, negative after its end; 0 while there is none.", labels, nil),
		problem: prometheus.NewDesc("relayd_certificate_problem",
			"1 if a renewal of the TLS certificate failed or cannot be used; relayctl status says why.", labels, nil),
	})
}

// certificates is their collector: how many there are is known only when somebody asks.
type certificates struct {
	shown           func() []Certificate
	expiry, problem *prometheus.Desc
}

func (c *certificates) Describe(ch chan<- *prometheus.Desc) { ch <- c.expiry; ch <- c.problem }

func (c *certificates) Collect(ch chan<- prometheus.Metric) {
	for _, cert := range c.shown() {
		left, wrong := 0.0, 0.0
		if !cert.Expires.IsZero() {
			left = time.Until(cert.Expires).Seconds()
		}
		if cert.Problem != "" {
			wrong = 1
		}
		name, from := strings.ToValidUTF8(cert.Name, "?"), strings.ToValidUTF8(cert.From, "?")
		ch <- prometheus.MustNewConstMetric(c.expiry, prometheus.GaugeValue, left, name, from)
		ch <- prometheus.MustNewConstMetric(c.problem, prometheus.GaugeValue, wrong, name, from)
	}
}
