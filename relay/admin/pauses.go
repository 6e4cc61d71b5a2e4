package admin

import (
	"context"
	"net/http"
	"time"

	"relayd/relay/orders"
)

// Paused answers POST /v1/pause and /v1/resume.
type Paused struct {
	orders.Pause
	Changed bool           `json:"changed"` // it was not so before
	Left    []orders.Pause `json:"left"`    // all that rests now
}

func (s *Server) listPauses(w http.ResponseWriter, _ *http.Request) { listOrders(s, w, Orders.Pauses) }

func (s *Server) pause(w http.ResponseWriter, r *http.Request) {
	s.changePauses(w, r, "pause", func(p orders.Pause) (changed bool, err error) {
		was, err := s.cfg.Orders.Pause(p)
		return !was, err
	})
}

func (s *Server) resume(w http.ResponseWriter, r *http.Request) {
	s.changePauses(w, r, "resume", func(p orders.Pause) (changed bool, err error) { return s.cfg.Orders.Resume(p) })
}

func (s *Server) changePauses(w http.ResponseWriter, r *http.Request, verb string, change func(orders.Pause) (changed bool, err error)) {
	var p orders.Pause
	if err := s.readOrder(w, r, &p, &p.Reason); err != nil {
		writeError(w, err)
		return
	}
	p.Since = time.Now().UTC().Truncate(time.Second)
	changed, err := change(p)
	if err := s.logOrder(verb, p, err); err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, Paused{Pause: p, Changed: changed, Left: append([]orders.Pause{}, s.cfg.Orders.Pauses()...)})
}

// Pauses returns all that rests.
func (c *Client) Pauses(ctx context.Context) ([]orders.Pause, error) {
	var list []orders.Pause
	err := c.get(ctx, "/v1/pauses", &list)
	return list, err
}

// Pause makes something rest; Resume ends that.
func (c *Client) Pause(ctx context.Context, p orders.Pause) (Paused, error) {
	var done Paused
	err := c.post(ctx, "/v1/pause", p, &done)
	return done, err
}

// Resume ends a Pause.
func (c *Client) Resume(ctx context.Context, p orders.Pause) (Paused, error) {
	var done Paused
	err := c.post(ctx, "/v1/resume", p, &done)
	return done, err
}
