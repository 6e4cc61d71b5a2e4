package admin

import (
	"context"
	"net/http"

	"relayd/queue"
)

// checkQueue answers with a queue.Report.
func (s *Server) checkQueue(w http.ResponseWriter, r *http.Request) {
	report, err := s.cfg.Queue.Inspect(r.Context())
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, report)
}

// repairQueue answers with a queue.Repaired.
func (s *Server) repairQueue(w http.ResponseWriter, r *http.Request) {
	done, err := s.cfg.Queue.Repair(r.Context())
	s.log.Info("operator repaired the queue", "count", len(done.Mended), "err", err)
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, done)
}

// Check asks what is wrong with the queue. It reads every letter, which may take a while.
func (c *Client) Check(ctx context.Context) (queue.Report, error) {
	var report queue.Report
	err := c.get(ctx, "/v1/check", &report)
	return report, err
}

// Repair mends what Check finds, as far as that can be done while relayd runs.
func (c *Client) Repair(ctx context.Context) (queue.Repaired, error) {
	var done queue.Repaired
	err := c.post(ctx, "/v1/repair", struct{}{}, &done)
	return done, err
}
