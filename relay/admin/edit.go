package admin

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"relayd/queue"
	"relayd/relay"
)

// Edit orders that letters go on under another envelope.
type Edit struct {
	Filter
	Sender  *string `json:"sender,omitempty"`   // the new reverse-path; "": the null path
	OldRcpt string  `json:"old_rcpt,omitempty"` // of these recipients; empty: all that are left
	NewRcpt string  `json:"new_rcpt,omitempty"` // the new one in their place; empty: they stay
	AddRcpt string  `json:"add_rcpt,omitempty"` // one more, once for each letter
	CutRcpt string  `json:"cut_rcpt,omitempty"` // these leave; one must stay
	All     bool    `json:"all,omitempty"`
	Dry     bool    `json:"dry_run,omitempty"`
}

// Edited answers POST /v1/edit.
type Edited struct {
	Count int        `json:"count"` // letters
	IDs   []relay.ID `json:"ids"`   // their new names
}

func (s *Server) edit(w http.ResponseWriter, r *http.Request) {
	var order Edit
	if s.cfg.Stage == nil {
		writeError(w, refuse(http.StatusNotImplemented, "this relayd edits nothing"))
		return
	}
	err := readJSON(w, r, &order)
	var change func(*relay.Envelope) bool
	if err == nil {
		change, err = s.envelopeChange(order)
	}
	if err == nil && order.IsZero() && !order.All {
		err = refuse(http.StatusBadRequest, "edit what? name letters, or a filter")
	}
	var f queue.Filter
	if err == nil {
		f, err = resolve(r.Context(), s.cfg.Queue, order.Filter)
	}
	if err != nil {
		writeError(w, err)
		return
	}
	done, err := s.editAll(r.Context(), f, change, order.Dry)
	s.log.Info("operator edited the queue", "count", done.Count, "err", err)
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, done)
}

// envelopeChange checks the new addresses, as strictly as at the front door, and says how an
// envelope changes; false: it does not.
func (s *Server) envelopeChange(o Edit) (func(*relay.Envelope) bool, error) {
	var from, to relay.Address
	var err error
	if o.Sender != nil && *o.Sender != "" {
		if from, err = relay.ParseAddress(*o.Sender, true); err != nil {
			return nil, refuse(http.StatusBadRequest, "%.80q is not an address: %v", *o.Sender, err)
		}
	}
	if o.NewRcpt != "" {
		if to, err = relay.ParseAddress(o.NewRcpt, true); err != nil {
			return nil, refuse(http.StatusBadRequest, "%.80q is not an address: %v", o.NewRcpt, err)
		}
	}
	var more relay.Address
	if o.AddRcpt != "" {
		if more, err = relay.ParseAddress(o.AddRcpt, true); err != nil {
			return nil, refuse(http.StatusBadRequest, "%.80q is not an address: %v", o.AddRcpt, err)
		}
	}
	if o.Sender == nil && o.NewRcpt+o.AddRcpt+o.CutRcpt == "" {
		return nil, refuse(http.StatusBadRequest, "edit to what? a new sender, or another recipient, or one less")
	}
	lists := editedList(o.CutRcpt, more)
	return func(env *relay.Envelope) bool {
		changed := lists(env)
		changed = changed || o.Sender != nil && env.From != from
		if o.Sender != nil {
			env.From = from
			env.UTF8 = env.UTF8 || !from.IsASCII()
		}
		if o.NewRcpt == "" {
			return changed
		}
		var rcpts []relay.Recipient
		for _, rc := range env.Rcpts {
			if rc.Addr != to && (o.OldRcpt == "" || relay.MatchText(o.OldRcpt, rc.Addr.String(), false)) {
				rc.Addr, rc.Orig, changed = to, to.String(), true
			}
			if !slices.ContainsFunc(rcpts, func(have relay.Recipient) bool { return have.Addr == rc.Addr }) {
				rcpts = append(rcpts, rc)
			}
		}
		env.Rcpts = rcpts
		return changed
	}, nil
}

// editedList takes recipients away and adds one, whom several items of a letter get once.
func editedList(cut string, more relay.Address) func(*relay.Envelope) bool {
	added := map[relay.ID]bool{}
	return func(env *relay.Envelope) (changed bool) {
		if cut != "" {
			left := slices.DeleteFunc(slices.Clone(env.Rcpts), func(rc relay.Recipient) bool { return relay.MatchText(cut, rc.Addr.String(), false) })
			changed = len(left) < len(env.Rcpts)
			env.Rcpts = left
		}
		has := slices.ContainsFunc(env.Rcpts, func(rc relay.Recipient) bool { return rc.Addr == more })
		if !more.IsNull() && !has && !added[env.ID] {
			changed = true
			env.Rcpts = append(slices.Clone(env.Rcpts), relay.Recipient{Addr: more, Orig: more.String()})
		}
		added[env.ID] = true
		return changed
	}
}

// editAll lets each item go on as a new letter. A crash between its coming and the going of the old
// one leaves both, never neither; the old one is held by then.
func (s *Server) editAll(ctx context.Context, f queue.Filter, change func(*relay.Envelope) bool, dry bool) (Edited, error) {
	done := Edited{IDs: []relay.ID{}}
	var items []queue.Item
	for it, err := range s.cfg.Queue.List(ctx, f) {
		if err == nil {
			items = append(items, it)
		}
	}
	for _, it := range items {
		was := it.Held
		if !change(&it.Envelope) {
			continue
		}
		if dry {
			done.Count++
			continue
		}
		id, err := s.editOne(ctx, it, was)
		if err != nil {
			return done, err
		}
		done.Count++
		done.IDs = append(done.IDs, id)
	}
	return done, nil
}

func (s *Server) editOne(ctx context.Context, it queue.Item, held bool) (id relay.ID, err error) {
	old := queue.Filter{Keys: []queue.Key{it.Key()}}
	if len(it.Rcpts) == 0 {
		e := refuse(http.StatusUnprocessableEntity, "nobody would be left of %s", it.Key())
		e.Hint = "relayctl queue drop " + it.Key().String() + " throws it away, queue bounce returns it"
		return "", e
	}
	if err := s.notLocal(it.Envelope); err != nil {
		return "", err
	}
	if _, err := s.cfg.Queue.Hold(ctx, old); err != nil {
		return "", err
	}
	defer func() {
		if err != nil && !held {
			_, back := s.cfg.Queue.Release(context.WithoutCancel(ctx), old)
			err = errors.Join(err, back)
		}
	}()
	if s.cfg.Busy != nil && s.cfg.Busy(it.Key()) {
		return "", refuse(http.StatusConflict, "an attempt at %s is under way, try again in a moment", it.Key())
	}
	body, err := s.cfg.Queue.Body(it.ID)
	if err != nil {
		return "", err
	}
	defer body.Close()
	if id, err = s.stageAnew(ctx, Import{Envelope: it.Envelope, Held: held}, body, "held before it was edited"); err != nil {
		return "", err
	}
	s.log.Info("operator edited a letter", "id", id, "was", it.Key(), "from", it.From)
	_, err = s.cfg.Queue.Drop(context.WithoutCancel(ctx), old)
	return id, err
}

// Edit changes envelopes and returns the new names of the letters.
func (c *Client) Edit(ctx context.Context, o Edit) (Edited, error) {
	var done Edited
	err := c.post(ctx, "/v1/edit", o, &done)
	return done, err
}
