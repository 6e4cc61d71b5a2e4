package admin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"relayd/queue"
	"relayd/relay"
)

// Exported is what of a waiting letter stands beside its text: the JSON of queue export.
type Exported struct {
	relay.Envelope          // Rcpts are those who have not got it yet
	Held           bool     `json:"held,omitempty"` // some of it was
	Keys           []string `json:"keys"`           // the items it was
}

// Export is a letter's envelope with the recipients of the items that name names, see Get.
func (r *Reader) Export(ctx context.Context, name string) (Exported, error) {
	k, err := find(ctx, r.q, name)
	if err != nil {
		return Exported{}, err
	}
	items, err := r.q.Get(ctx, k.ID)
	if err != nil && !isNotFound(err) {
		return Exported{}, err
	}
	var out Exported
	for _, it := range items {
		if k.Domain != "" && it.Domain != k.Domain {
			continue
		}
		rcpts := out.Rcpts
		if len(out.Keys) == 0 {
			out.Envelope = it.Envelope
		}
		out.Rcpts = append(rcpts, it.Rcpts...)
		out.Held = out.Held || it.Held
		out.Keys = append(out.Keys, it.Key().String())
	}
	if len(out.Keys) == 0 {
		return out, notQueued(name)
	}
	out.Hold = ""
	return out, nil
}

// Import orders that a letter be taken into the queue as a new one.
type Import struct {
	relay.Envelope
	Held bool     `json:"held,omitempty"` // keep it until it is released
	Keys []string `json:"keys,omitempty"` // not looked at
}

// Imported answers POST /v1/import.
type Imported struct {
	ID relay.ID `json:"id"`
}

func (s *Server) exportLetter(w http.ResponseWriter, r *http.Request) {
	e, err := s.reader.Export(r.Context(), r.PathValue("name"))
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, e)
}

// importLetter reads a line of JSON, an Import, and the letter behind it.
func (s *Server) importLetter(w http.ResponseWriter, r *http.Request) {
	if s.cfg.Stage == nil {
		writeError(w, refuse(http.StatusNotImplemented, "this relayd imports nothing"))
		return
	}
	http.NewResponseController(w).SetReadDeadline(time.Now().Add(patience))
	in := bufio.NewReaderSize(r.Body, 64<<10)
	line, err := readOrderLine(in)
	if err != nil {
		writeError(w, err)
		return
	}
	var order Import
	if err := json.Unmarshal(line, &order); err != nil {
		writeError(w, refuse(http.StatusBadRequest, "the envelope cannot be read: %v", err))
		return
	}
	id, err := s.restage(r.Context(), order, in)
	s.log.Info("operator imported a letter", "id", id, "was", order.ID, "err", err)
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, Imported{ID: id})
}

// maxEnvelope bounds the JSON of one Import.
const maxEnvelope = 64 << 20

func readOrderLine(in *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		piece, err := in.ReadSlice('\n')
		line = append(line, piece...)
		switch {
		case err == nil:
			return line, nil
		case err != bufio.ErrBufferFull:
			return nil, refuse(http.StatusBadRequest, "the envelope ends in the middle: %v", err)
		case len(line) > maxEnvelope:
			return nil, refuse(http.StatusRequestEntityTooLarge, "the envelope is larger than %d octets", maxEnvelope)
		}
	}
}

// restage takes a letter in under a new ID of its old age. When it returns one, the letter is
// durable.
func (s *Server) restage(ctx context.Context, order Import, letter io.Reader) (relay.ID, error) {
	if err := s.checkImport(ctx, order.Envelope); err != nil {
		return "", err
	}
	return s.stageAnew(ctx, order, letter, "imported, and not released yet")
}

// stageAnew stages a letter under a new ID; held is why, where the order asks for a hold.
func (s *Server) stageAnew(ctx context.Context, order Import, letter io.Reader, held string) (relay.ID, error) {
	env := order.Envelope
	now := time.Now()
	if env.Accepted.IsZero() || env.Accepted.After(now) {
		env.Accepted = now
	}
	env.ID, env.Hold = relay.NewID(env.Accepted), ""
	if order.Held {
		env.Hold = held
	}
	size := env.Size
	st, err := s.cfg.Stage.Stage(ctx, env)
	if err != nil {
		return "", err
	}
	n, err := io.Copy(st, letter)
	// A transfer that broke off must not become half a letter.
	if err == nil && n != size {
		err = refuse(http.StatusBadRequest, "the letter has %d octets, and its envelope says %d", n, size)
	}
	if err == nil {
		err = st.Commit(ctx)
	}
	if err != nil {
		st.Abort()
		return "", err
	}
	return env.ID, nil
}

func (s *Server) checkImport(ctx context.Context, env relay.Envelope) error {
	if err := s.notLocal(env); err != nil {
		return err
	}
	if items, err := s.cfg.Queue.Get(ctx, env.ID); err == nil && slices.ContainsFunc(items, func(it queue.Item) bool {
		return slices.ContainsFunc(env.Rcpts, func(rc relay.Recipient) bool {
			return slices.ContainsFunc(it.Rcpts, func(have relay.Recipient) bool { return have.Addr == rc.Addr })
		})
	}) {
		e := refuse(http.StatusConflict, "%s still waits in this queue: it would be sent twice", env.ID)
		e.Hint = "relayctl queue drop " + string(env.ID) + " first"
		return e
	}
	return nil
}

// notLocal refuses recipients who are not for the queue: it would send their mail to ourselves.
func (s *Server) notLocal(env relay.Envelope) error {
	if len(env.Rcpts) == 0 {
		return refuse(http.StatusBadRequest, "the letter has no recipients")
	}
	for _, rc := range env.Rcpts {
		if rc.Addr.Domain == "" || !rc.Mailbox.IsNull() || s.cfg.IsLocal != nil && s.cfg.IsLocal(rc.Addr) {
			e := refuse(http.StatusUnprocessableEntity, "%.80q is not for the queue: it is delivered here", rc.Addr.String())
			e.Hint = "relayctl mail send takes a letter to a mailbox of ours"
			return e
		}
	}
	return nil
}

// Export asks for a letter's envelope; see Reader.Export.
func (c *Client) Export(ctx context.Context, name string) (Exported, error) {
	var e Exported
	k, _, err := parseName(name)
	if err != nil {
		return e, err
	}
	err = c.get(ctx, "/v1/export/"+string(k.ID)+map[bool]string{true: "/" + string(k.Domain)}[k.Domain != ""], &e)
	return e, err
}

// Import has a letter taken into the queue under a new ID. When it returns one, the letter is
// durable.
func (c *Client) Import(ctx context.Context, o Import, letter io.Reader) (relay.ID, error) {
	line, err := json.Marshal(o)
	if err != nil {
		return "", fmt.Errorf("admin: %w", err)
	}
	body, err := c.do(ctx, http.MethodPost, "/v1/import", io.MultiReader(bytes.NewReader(append(line, '\n')), letter))
	if err != nil {
		return "", err
	}
	defer body.Close()
	var done Imported
	return done.ID, decode(body, &done)
}
