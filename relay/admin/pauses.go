package admin

import (
	"context"
	"errors"
	"net/http"
	"time"

	"relayd/relay/orders"
)

// Orders keeps what the operator ordered until further notice; *orders.Book.
type Orders interface {
	Pauses() []orders.Pause
	Pause(p orders.Pause) (was bool, err error)
	Resume(p orders.Pause) (was bool, err error)
	Rules() []orders.Rule
	AddRule(r orders.Rule) (was bool, err error)
	RemoveRule(r orders.Rule) (was bool, err error)
}

// Paused answers POST /v1/pause and /v1/resume.
type Paused struct {
	orders.Pause
	Changed bool           `json:"changed"` // it was not so before
	Left    []orders.Pause `json:"left"`    // all that rests now
}

func (s *Server) listPauses(w http.ResponseWriter, _ *http.Request) {
	list := []orders.Pause{}
	if s.cfg.Orders != nil {
		list = append(list, s.cfg.Orders.Pauses()...)
	}
	writeJSON(w, http.StatusOK, list)
}

func (s *Server) pause(w http.ResponseWriter, r *http.Request)  { s.order(w, r, false) }
func (s *Server) resume(w http.ResponseWriter, r *http.Request) { s.order(w, r, true) }

func (s *Server) order(w http.ResponseWriter, r *http.Request, resume bool) {
	if s.cfg.Orders == nil {
		writeError(w, refuse(http.StatusNotImplemented, "this relayd cannot pause"))
		return
	}
	var p orders.Pause
	err := readJSON(w, r, &p)
	if err == nil {
		err = checkReason(p.Reason)
	}
	if err != nil {
		writeError(w, err)
		return
	}
	p.Since = time.Now().UTC().Truncate(time.Second)
	was := false
	if resume {
		was, err = s.cfg.Orders.Resume(p)
		was = !was
	} else {
		was, err = s.cfg.Orders.Pause(p)
	}
	s.log.Info("operator ordered", "verb", map[bool]string{true: "resume", false: "pause"}[resume], "what", p.String(), "err", err)
	switch {
	case errors.Is(err, orders.ErrBad) || errors.Is(err, orders.ErrFull):
		writeError(w, refuse(http.StatusBadRequest, "%v", err))
	case err != nil:
		writeError(w, err)
	default:
		writeJSON(w, http.StatusOK, Paused{Pause: p, Changed: !was, Left: append([]orders.Pause{}, s.cfg.Orders.Pauses()...)})
	}
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
