package admin

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// ContentFilter is one program that looks at letters.
type ContentFilter struct {
	Name     string           `json:"name"`
	Address  string           `json:"address"`
	WhenDown string           `json:"when_down"` // "accept" or "defer": what becomes of letters it does not see
	Down     time.Time        `json:"down_since,omitzero"`
	Problem  string           `json:"problem,omitempty"` // why it is down
	Letters  map[string]int64 `json:"letters"`           // by what it wanted: pass junk quarantine defer reject; unseen: it was not asked, or failed
}

// Filters says how to learn, whenever somebody asks for the metrics, how the programs are that look
// at letters. Call it once.
func (m *Metrics) Filters(shown func() []ContentFilter) {
	m.registry.MustRegister(&filters{
		shown: shown,
		up:    prometheus.NewDesc("relayd_filter_up", "1 if the filter answers, 0 while it is down.", []string{"filter"}, nil),
		letters: prometheus.NewDesc("relayd_filter_letters_total",
			"Letters by what the filter wanted; unseen: it was down, failed, or the letter was too large for it.", []string{"filter", "result"}, nil),
	})
}

type filters struct {
	shown       func() []ContentFilter
	up, letters *prometheus.Desc
}

func (c *filters) Describe(ch chan<- *prometheus.Desc) { ch <- c.up; ch <- c.letters }

func (c *filters) Collect(ch chan<- prometheus.Metric) {
	for _, f := range c.shown() {
		up := 1.0
		if !f.Down.IsZero() {
			up = 0
		}
		ch <- prometheus.MustNewConstMetric(c.up, prometheus.GaugeValue, up, f.Name)
		for result, n := range f.Letters {
			ch <- prometheus.MustNewConstMetric(c.letters, prometheus.CounterValue, float64(n), f.Name, result)
		}
	}
}
