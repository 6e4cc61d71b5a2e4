package admin

import (
	"context"
	"net/http"

	"relayd/relay"
)

// Holds knows whose letters are held because they wrote too many.
type Holds interface {
	Held() []string
	// Release lets a user's letters go again, counts from zero, and frees what was held of them. It
	// returns how many items that were, and whether the user was held.
	Release(ctx context.Context, user relay.Address) (items int, held bool, err error)
}

// Released is the body of POST /v1/users/release, and its answer.
type Released struct {
	User  relay.Address `json:"user"`
	Count int           `json:"count"` // items
	Held  bool          `json:"held"`  // the user was held until now
}

func (s *Server) releaseUser(w http.ResponseWriter, r *http.Request) {
	var order Released
	if err := readJSON(w, r, &order); err != nil {
		writeError(w, err)
		return
	}
	switch {
	case s.cfg.Holds == nil:
		writeError(w, refuse(http.StatusNotImplemented, "this relayd holds nobody"))
		return
	case order.User.IsNull():
		writeError(w, refuse(http.StatusBadRequest, "release whom? name a user"))
		return
	}
	n, held, err := s.cfg.Holds.Release(r.Context(), order.User)
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, Released{User: order.User, Count: n, Held: held})
}

// ReleaseUser lets a user who wrote too many letters write again, and frees those that were held.
func (c *Client) ReleaseUser(ctx context.Context, user relay.Address) (Released, error) {
	var done Released
	err := c.post(ctx, "/v1/users/release", Released{User: user}, &done)
	return done, err
}
