package admin

import (
	"context"
	"net/http"
	"time"

	"relayd/relay/dmarc"
)

// Reports are the DMARC reports that are being gathered.
type Reports interface {
	Pending() []dmarc.Account
	// Send sends them now; left are those that something temporary keeps.
	Send(ctx context.Context) (sent, left int)
}

// PendingReport is what has been gathered for one domain, as GET /v1/dmarc tells it.
type PendingReport struct {
	Domain  string    `json:"domain"`
	RUA     string    `json:"rua"`
	Begin   time.Time `json:"begin"`
	End     time.Time `json:"end,omitzero"` // it is to be sent; zero while letters are counted
	Letters int       `json:"letters"`
	Failed  int       `json:"failed"` // of those, DMARC did not pass
	Rows    int       `json:"rows"`
}

// SentReports is the answer to POST /v1/dmarc/send.
type SentReports struct {
	Done int `json:"done"` // sent, or nobody takes them
	Left int `json:"left"` // the DNS or the queue was in the way: they are tried again
}

var errNoReports = refuse(http.StatusNotImplemented, "this relayd sends no reports")

func (s *Server) listReports(w http.ResponseWriter, _ *http.Request) {
	if s.cfg.Reports == nil {
		writeError(w, errNoReports)
		return
	}
	list := []PendingReport{}
	for _, a := range s.cfg.Reports.Pending() {
		p := PendingReport{Domain: a.Published.Domain, RUA: a.RUA, Begin: a.Begin, End: a.End, Letters: a.Letters(), Rows: len(a.Rows)}
		for _, r := range a.Rows {
			if !r.Passes() {
				p.Failed += r.Count
			}
		}
		list = append(list, p)
	}
	writeJSON(w, http.StatusOK, list)
}

func (s *Server) sendReports(w http.ResponseWriter, r *http.Request) {
	if s.cfg.Reports == nil {
		writeError(w, errNoReports)
		return
	}
	done, left := s.cfg.Reports.Send(r.Context())
	writeJSON(w, http.StatusOK, SentReports{Done: done, Left: left})
}

// PendingReports asks what has been gathered for DMARC reports.
func (c *Client) PendingReports(ctx context.Context) ([]PendingReport, error) {
	var list []PendingReport
	err := c.get(ctx, "/v1/dmarc", &list)
	return list, err
}

// SendReports has the reports sent now.
func (c *Client) SendReports(ctx context.Context) (SentReports, error) {
	var sent SentReports
	err := c.post(ctx, "/v1/dmarc/send", struct{}{}, &sent)
	return sent, err
}
