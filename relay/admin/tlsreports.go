package admin

import (
	"context"
	"net/http"
	"time"

	"relayd/relay"
)

// TLSReports is what the operator sees and does of the reports on TLS to other domains (RFC 8460).
type TLSReports interface {
	// List returns what has been counted and not been reported, by day and domain.
	List() []TLSCount
	// Send reports it now, to one domain or, where d is empty, to all.
	Send(ctx context.Context, d relay.Domain) ([]TLSReportSent, error)
}

// TLSCount is how the sessions of one day with the hosts of one domain went, as they were held against one
// policy. GET /v1/tls-reports answers a list.
type TLSCount struct {
	Day      string              `json:"day"` // 2026-11-21, UTC
	Domain   relay.Domain        `json:"domain"`
	Policy   relay.TLSPolicyType `json:"policy"`
	Good     int64               `json:"successful"`
	Bad      int64               `json:"failed"`
	Failures []TLSFailures       `json:"failures,omitempty"`
	Next     time.Time           `json:"next"`           // when the report is sent
	Sent     []string            `json:"sent,omitempty"` // where it has arrived
}

// TLSFailures counts sessions that failed in one way.
type TLSFailures struct {
	relay.TLSFailure
	Count int64 `json:"count"`
}

// TLSReportSent is what became of one report.
type TLSReportSent struct {
	Domain relay.Domain `json:"domain"`
	Day    string       `json:"day"`
	To     string       `json:"to,omitempty"`
	Error  string       `json:"error,omitempty"` // why it was not sent
}

// TLSReportOrder is the body of POST /v1/tls-reports; an empty Domain means all.
type TLSReportOrder struct {
	Domain relay.Domain `json:"domain,omitempty"`
}

var errNoTLSReports = refuse(http.StatusNotImplemented, "this relayd makes no TLS reports")

func (s *Server) listTLSReports(w http.ResponseWriter, _ *http.Request) {
	if s.cfg.TLSReports == nil {
		writeError(w, errNoTLSReports)
		return
	}
	list := s.cfg.TLSReports.List()
	if list == nil {
		list = []TLSCount{}
	}
	writeJSON(w, http.StatusOK, list)
}

func (s *Server) sendTLSReports(w http.ResponseWriter, r *http.Request) {
	var order TLSReportOrder
	if err := readJSON(w, r, &order); err != nil {
		writeError(w, err)
		return
	}
	if s.cfg.TLSReports == nil {
		writeError(w, errNoTLSReports)
		return
	}
	list, err := s.cfg.TLSReports.Send(r.Context(), order.Domain)
	if err != nil {
		writeError(w, err)
		return
	}
	if list == nil {
		list = []TLSReportSent{}
	}
	writeJSON(w, http.StatusOK, list)
}

// TLSReports asks what has been counted of TLS with other servers.
func (c *Client) TLSReports(ctx context.Context) ([]TLSCount, error) {
	var list []TLSCount
	err := c.get(ctx, "/v1/tls-reports", &list)
	return list, err
}

// SendTLSReports has it reported now, to d or, where that is empty, to all.
func (c *Client) SendTLSReports(ctx context.Context, d relay.Domain) ([]TLSReportSent, error) {
	var list []TLSReportSent
	err := c.post(ctx, "/v1/tls-reports", TLSReportOrder{d}, &list)
	return list, err
}
