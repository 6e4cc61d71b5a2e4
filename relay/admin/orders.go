package admin

import (
	"errors"
	"fmt"
	"net/http"

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

// listOrders answers with the orders of one kind that are in force: [] for none.
func listOrders[T any](s *Server, w http.ResponseWriter, of func(Orders) []T) {
	list := []T{}
	if s.cfg.Orders != nil {
		list = append(list, of(s.cfg.Orders)...)
	}
	writeJSON(w, http.StatusOK, list)
}

// readOrder reads an order, one with the given field for the operator's note.
func (s *Server) readOrder(w http.ResponseWriter, r *http.Request, order any, reason *string) error {
	if s.cfg.Orders == nil {
		return refuse(http.StatusNotImplemented, "this relayd takes no such orders")
	}
	if err := readJSON(w, r, order); err != nil {
		return err
	}
	return checkReason(*reason)
}

// logOrder says what became of an order, and returns err as the client shall see it.
func (s *Server) logOrder(verb string, what fmt.Stringer, err error) error {
	s.log.Info("operator ordered", "verb", verb, "what", what.String(), "err", err)
	if errors.Is(err, orders.ErrBad) || errors.Is(err, orders.ErrFull) {
		return refuse(http.StatusBadRequest, "%v", err)
	}
	return err
}
