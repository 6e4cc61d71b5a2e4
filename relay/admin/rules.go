package admin

import (
	"context"
	"net/http"
	"time"

	"relayd/relay/orders"
)

// Ruled answers POST /v1/holds and /v1/holds/rm.
type Ruled struct {
	orders.Rule
	Changed bool `json:"changed"` // it was not so before
}

func (s *Server) listRules(w http.ResponseWriter, _ *http.Request) { listOrders(s, w, Orders.Rules) }

func (s *Server) addRule(w http.ResponseWriter, r *http.Request) {
	s.changeRules(w, r, "hold add", func(rule orders.Rule) (changed bool, err error) {
		was, err := s.cfg.Orders.AddRule(rule)
		return !was, err
	})
}

func (s *Server) removeRule(w http.ResponseWriter, r *http.Request) {
	s.changeRules(w, r, "hold rm", func(rule orders.Rule) (changed bool, err error) { return s.cfg.Orders.RemoveRule(rule) })
}

func (s *Server) changeRules(w http.ResponseWriter, r *http.Request, verb string, change func(orders.Rule) (changed bool, err error)) {
	var rule orders.Rule
	err := s.readOrder(w, r, &rule, &rule.Reason)
	if err == nil {
		err = checkReason(rule.String())
	}
	if err != nil {
		writeError(w, err)
		return
	}
	rule.Since = time.Now().UTC().Truncate(time.Second)
	changed, err := change(rule)
	if err := s.logOrder(verb, rule, err); err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, Ruled{Rule: rule, Changed: changed})
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
