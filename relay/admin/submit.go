package admin

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"

	"relayd/relay"
	"relayd/relay/drop"
)

// Submitted answers POST /v1/submit, whose body is a drop.Order with its letter behind it. Where
// anybody is refused, nobody gets anything.
type Submitted struct {
	ID      relay.ID  `json:"id,omitzero"`
	Refused []Refused `json:"refused,omitempty"`
}

// Refused is the refusal of one recipient, or of the letter.
type Refused struct {
	Rcpt   string       `json:"rcpt,omitzero"` // empty: the letter
	Code   int          `json:"code"`
	Status relay.Status `json:"status,omitzero"`
	Text   string       `json:"text"`
}

func (s *Server) submit(w http.ResponseWriter, r *http.Request) {
	if s.cfg.Submit == nil {
		writeError(w, refuse(http.StatusNotImplemented, "this relayd takes no letters here"))
		return
	}
	letter := bufio.NewReader(r.Body)
	o, err := drop.Read(letter)
	if err != nil {
		writeError(w, refuse(http.StatusBadRequest, "%v", err))
		return
	}
	done, err := s.cfg.Submit(r.Context(), o, letter)
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, done)
}

// Submit hands a letter to the daemon. When it returns an ID, the letter is durable.
func (c *Client) Submit(ctx context.Context, o drop.Order, letter io.Reader) (Submitted, error) {
	var done Submitted
	line, err := o.Encode()
	if err != nil {
		return done, err
	}
	body, err := c.do(ctx, http.MethodPost, "/v1/submit", io.MultiReader(bytes.NewReader(line), letter))
	if err != nil {
		return done, err
	}
	defer body.Close()
	return done, decode(body, &done)
}
