package admin

import (
	"context"
	"net/http"
	"net/netip"
	"time"

	"relayd/relay"
)

// Guessing is somebody who has tried wrong passwords; GET /v1/auth answers a list of them, the
// latest first.
type Guessing struct {
	Client   netip.Prefix `json:"client"` // an IPv4 address or an IPv6 /64
	User     string       `json:"user"`   // empty: names that nobody has
	All      bool         `json:"all"`    // all names tried from there together
	Failures int          `json:"failures"`
	Last     time.Time    `json:"last"`
	Until    time.Time    `json:"until,omitzero"` // refused until then; in the past: not refused any more
}

// Logins knows who guesses passwords.
type Logins interface {
	Guesses() []Guessing
	// Forgive forgets the wrong passwords of a user (null: whoever) from an address (the zero Addr:
	// anywhere).
	Forgive(user relay.Address, client netip.Addr) int
}

// Pardon is the body of POST /v1/auth/clear. An empty one needs All.
type Pardon struct {
	User   relay.Address `json:"user,omitzero"`
	Client netip.Addr    `json:"client,omitzero"`
	All    bool          `json:"all,omitempty"`
}

func (s *Server) listLogins(w http.ResponseWriter, _ *http.Request) {
	if s.cfg.Logins == nil {
		writeError(w, refuse(http.StatusNotImplemented, "this relayd does not count logins"))
		return
	}
	list := s.cfg.Logins.Guesses()
	if list == nil {
		list = []Guessing{}
	}
	writeJSON(w, http.StatusOK, list)
}

func (s *Server) clearLogins(w http.ResponseWriter, r *http.Request) {
	var p Pardon
	if err := readJSON(w, r, &p); err != nil {
		writeError(w, err)
		return
	}
	switch {
	case s.cfg.Logins == nil:
		writeError(w, refuse(http.StatusNotImplemented, "this relayd does not count logins"))
		return
	case p.User.IsNull() && !p.Client.IsValid() && !p.All:
		writeError(w, refuse(http.StatusBadRequest, "clear whom? name a user, an address, or all of them"))
		return
	}
	n := s.cfg.Logins.Forgive(p.User, p.Client)
	s.log.Info("operator cleared failed logins", "user", p.User, "client", p.Client, "count", n)
	writeJSON(w, http.StatusOK, Done{Count: n})
}

// Guesses asks who has tried wrong passwords within a day.
func (c *Client) Guesses(ctx context.Context) ([]Guessing, error) {
	var list []Guessing
	err := c.get(ctx, "/v1/auth", &list)
	return list, err
}

// Forgive lifts delays and refusals and returns how many entries of Guesses are gone.
func (c *Client) Forgive(ctx context.Context, p Pardon) (int, error) {
	var done Done
	err := c.post(ctx, "/v1/auth/clear", p, &done)
	return done.Count, err
}
