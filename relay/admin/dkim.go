package admin

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"relayd/relay"
)

// Keys is what the operator does to the keys that sign letters.
type Keys interface {
	// List returns every key; fresh: after a look at the DNS.
	List(ctx context.Context, fresh bool) ([]Key, error)
	// Change does a KeyOrder and returns the keys it is about.
	Change(ctx context.Context, o KeyOrder) ([]Key, error)
}

// Key is one DKIM key and the record that belongs in the DNS for it. GET /v1/dkim answers a list.
type Key struct {
	Domain    relay.Domain `json:"domain"`
	Selector  string       `json:"selector"`
	Algorithm string       `json:"algorithm"` // as in a signature: rsa-sha256, ed25519-sha256
	Role      string       `json:"role"`      // active, next, old
	Made      time.Time    `json:"made"`
	Since     time.Time    `json:"since"`   // it has its role
	Visible   bool         `json:"visible"` // the DNS has its record
	Checked   time.Time    `json:"checked,omitzero"`
	Problem   string       `json:"problem,omitempty"` // why it is not visible
	Name      string       `json:"name"`              // of the TXT record
	Record    string       `json:"record"`            // its text
	Strings   string       `json:"strings"`           // the same for a zone file, cut and quoted
	Needed    time.Time    `json:"needed,omitzero"`   // old: until then letters it signed may be under way
}

// KeyOrder is the body of POST /v1/dkim.
type KeyOrder struct {
	Verb     string       `json:"verb"` // new, rotate, retire
	Domain   relay.Domain `json:"domain"`
	Selector string       `json:"selector,omitempty"` // retire
	Force    bool         `json:"force,omitempty"`    // retire: letters that are under way are given up
}

var errNoKeys = refuse(http.StatusNotImplemented, "this relayd signs nothing")

func (s *Server) listKeys(w http.ResponseWriter, r *http.Request) {
	if s.cfg.Keys == nil {
		writeError(w, errNoKeys)
		return
	}
	list, err := s.cfg.Keys.List(r.Context(), r.URL.Query().Has("fresh"))
	answerKeys(w, list, err)
}

func (s *Server) changeKeys(w http.ResponseWriter, r *http.Request) {
	var order KeyOrder
	if err := readJSON(w, r, &order); err != nil {
		writeError(w, err)
		return
	}
	if s.cfg.Keys == nil {
		writeError(w, errNoKeys)
		return
	}
	list, err := s.cfg.Keys.Change(r.Context(), order)
	answerKeys(w, list, err)
}

func answerKeys(w http.ResponseWriter, list []Key, err error) {
	if err != nil {
		writeError(w, err)
		return
	}
	if list == nil {
		list = []Key{}
	}
	writeJSON(w, http.StatusOK, list)
}

// Keys asks for the keys that sign letters; fresh has their records looked for first.
func (c *Client) Keys(ctx context.Context, fresh bool) ([]Key, error) {
	path := "/v1/dkim"
	if fresh {
		path += "?" + url.Values{"fresh": {"1"}}.Encode()
	}
	var list []Key
	err := c.get(ctx, path, &list)
	return list, err
}

// ChangeKeys makes, rotates or retires keys.
func (c *Client) ChangeKeys(ctx context.Context, o KeyOrder) ([]Key, error) {
	var list []Key
	err := c.post(ctx, "/v1/dkim", o, &list)
	return list, err
}
