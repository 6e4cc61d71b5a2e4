package admin

import (
	"context"
	"net/http"
	"net/url"

	"relayd/relay"
	"relayd/relay/records"
)

func (s *Server) checkRecords(w http.ResponseWriter, r *http.Request) {
	d, err := relay.ParseDomain(r.PathValue("domain"))
	if err != nil {
		writeError(w, refuse(http.StatusBadRequest, "%s: %v", r.PathValue("domain"), err))
		return
	}
	if s.cfg.Records == nil {
		writeError(w, refuse(http.StatusNotImplemented, "this relayd does not look at the DNS"))
		return
	}
	lines, err := s.cfg.Records(r.Context(), d)
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, lines)
}

// Records asks which records a domain of ours should have, and what the DNS has of them.
func (c *Client) Records(ctx context.Context, d relay.Domain) ([]records.Line, error) {
	var lines []records.Line
	err := c.get(ctx, "/v1/dns/"+url.PathEscape(string(d)), &lines)
	return lines, err
}
