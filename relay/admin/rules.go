package admin

import (
	"context"
	"errors"
	"net/http"
	"time"

	"relayd/relay/orders"
)

// Ruled answers POST /v1/holds and /v1/holds/rm.
type Ruled struct {
	orders.Rule
	Changed bool `json:"changed"` // it was not so before
}

func (s *Server) listRules(w http.ResponseWriter, _ *http.Request) {
	list := []orders.Rule{}
	if s.cfg.Orders != nil {
		list = append(list, s.cfg.Orders.Rules()...)
	}
	writeJSON(w, http.StatusOK, list)
}

func (s *Server) addRule(w http.ResponseWriter, r *http.Request)    { s.rule(w, r, false) }
func (s *Server) removeRule(w http.ResponseWriter, r *http.Request) { s.rule(w, r, true) }

func (s *Server) rule(w http.ResponseWriter, r *http.Request, remove bool) {
	if s.cfg.Orders == nil {
		writeError(w, refuse(http.StatusNotImplemented, "this relayd knows no rules"))
		return
	}
	var rule orders.Rule
	err := readJSON(w, r, &rule)
	if err == nil {
		err = checkReason(rule.Reason)
	}
	if err == nil {
		err = checkReason(rule.String())
	}
	if err != nil {
		writeError(w, err)
		return
	}
	rule.Since = time.Now().UTC().Truncate(time.Second)
	var changed bool
	if remove {
		changed, err = s.cfg.Orders.RemoveRule(rule)
	} else {
		changed, err = s.cfg.Orders.AddRule(rule)
		changed = !changed
	}
	s.log.Info("operator ordered", "verb", map[bool]string{true: "hold rm", false: "hold add"}[remove], "what", rule.String(), "err", err)
	switch {
	case errors.Is(err, orders.ErrBad) || errors.Is(err, orders.ErrFull):
		writeError(w, refuse(http.StatusBadRequest, "%v", err))
	case err != nil:
		writeError(w, err)
	default:
		writeJSON(w, http.StatusOK, Ruled{Rule: rule, Changed: changed})
	}
}

// Rules returns the hold rules in force.
func (c *Client) Rules(ctx context.Context) ([]orders.Rule, error) {
	var list []orders.Rule
	err := c.get(ctx, "/v1/holds", &list)
	return list, err
}

// AddRule puts a hold rule in force.
func (c *Client) AddRule(ctx context.Context, r orders.Rule) (Ruled, error) {
	var done Ruled
	err := c.post(ctx, "/v1/holds", r, &done)
	return done, err
}

// RemoveRule ends one.
func (c *Client) RemoveRule(ctx context.Context, r orders.Rule) (Ruled, error) {
	var done Ruled
	err := c.post(ctx, "/v1/holds/rm", r, &done)
	return done, err
}
