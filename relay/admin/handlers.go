package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"relayd/queue"
)

// flushEvery is how many lines of a list are sent at once. The first goes out alone, so that the
// operator of a long queue sees it at once.
const flushEvery = 256

// listQueue streams Items, or summaries where the client prefers them. The status is sent with the first line; what fails later becomes a line
// of its own.
func (s *Server) listQueue(w http.ResponseWriter, r *http.Request) {
	f, err := ParseFilter(r.URL.Query())
	if err != nil {
		writeError(w, err)
		return
	}
	qf, err := resolve(r.Context(), s.cfg.Queue, f)
	if err != nil {
		writeError(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := newStream(w)
	brief := r.Header.Get("Prefer") == preferSummary
	for it, err := range s.reader.list(r.Context(), qf) {
		var line any = &it
		switch {
		case err == nil && brief:
			line = summary{Item: &it}
		case err != nil:
			line = &Error{Message: err.Error()}
		}
		if out.send(line) != nil {
			return // the client has gone
		}
	}
	out.flush()
}

// stream writes JSON lines, each piece with a deadline of its own.
type stream struct {
	buf *bufio.Writer
	enc *json.Encoder
	rc  *http.ResponseController
	n   int
}

func newStream(w http.ResponseWriter) *stream {
	rc := http.NewResponseController(w)
	buf := bufio.NewWriterSize(w, 64<<10)
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)
	return &stream{buf: buf, enc: enc, rc: rc}
}

func (s *stream) send(v any) error {
	if s.n%flushEvery <= 1 {
		if err := s.rc.SetWriteDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
	}
	if err := s.enc.Encode(v); err != nil {
		return err
	}
	if s.n++; s.n == 1 || s.n%flushEvery == 0 {
		return s.flush()
	}
	return nil
}

func (s *stream) flush() error {
	if err := s.buf.Flush(); err != nil {
		return err
	}
	return s.rc.Flush()
}

// showQueue answers for one letter, and for its text where the path ends in /body. The name is an
// id or id/domain; no domain is called "body", because that has no dot.
func (s *Server) showQueue(w http.ResponseWriter, r *http.Request) {
	name, body := strings.CutSuffix(r.PathValue("name"), "/body")
	if body {
		s.sendBody(w, r, name)
		return
	}
	items, err := s.reader.Get(r.Context(), name)
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, items)
}

func (s *Server) sendBody(w http.ResponseWriter, r *http.Request, name string) {
	body, err := s.reader.Body(r.Context(), name)
	if err != nil {
		writeError(w, err)
		return
	}
	defer body.Close()
	w.Header().Set("Content-Type", "message/rfc822")
	rc := http.NewResponseController(w)
	chunk := make([]byte, 64<<10)
	for {
		n, err := body.Read(chunk)
		rc.SetWriteDeadline(time.Now().Add(patience))
		if _, werr := w.Write(chunk[:n]); werr != nil || err == io.EOF {
			return
		}
		if err != nil {
			s.log.Error("reading a letter for the operator failed", "id", name, "err", err)
			// Half a letter must not look whole: the client sees a broken transfer.
			panic(http.ErrAbortHandler)
		}
	}
}

// changeQueue does one of the verbs.
func (s *Server) changeQueue(w http.ResponseWriter, r *http.Request) {
	verb, reason, act := s.verb(r.PathValue("verb"))
	if act == nil {
		writeError(w, refuse(reason, "relayd cannot %.40q letters", verb))
		return
	}
	var order Order
	if err := readJSON(w, r, &order); err != nil {
		writeError(w, err)
		return
	}
	if order.IsZero() && !order.All {
		writeError(w, refuse(http.StatusBadRequest, "%s what? name letters, a filter, or all of them", verb))
		return
	}
	if err := checkReason(order.Reason); err != nil {
		writeError(w, err)
		return
	}
	f, err := resolve(r.Context(), s.cfg.Queue, order.Filter)
	if err != nil {
		writeError(w, err)
		return
	}
	switch verb {
	case "schedule":
		act = s.reschedule(order.At)
	case "route":
		act = s.reroute(order.Via)
	}
	n, err := act(r.Context(), f, order.Reason)
	s.log.Info("operator changed the queue", "verb", verb, "count", n, "err", err)
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, Done{Count: n})
}

type action func(ctx context.Context, f queue.Filter, reason string) (int, error)

// verb finds what a verb does; without an action, code is what to answer.
func (s *Server) verb(name string) (verb string, code int, act action) {
	plain := func(f func(context.Context, queue.Filter) (int, error)) action {
		return func(ctx context.Context, qf queue.Filter, _ string) (int, error) { return f(ctx, qf) }
	}
	switch name {
	case "retry":
		return name, 0, plain(s.cfg.Queue.Retry)
	case "hold":
		return name, 0, plain(s.cfg.Queue.Hold)
	case "release":
		return name, 0, plain(s.cfg.Queue.Release)
	case "drop":
		return name, 0, plain(s.cfg.Queue.Drop)
	case "schedule":
		return name, 0, s.reschedule(time.Time{})
	case "route":
		return name, 0, s.reroute(nil)
	case "bounce":
		if s.cfg.Bouncer == nil {
			return name, http.StatusNotImplemented, nil
		}
		return name, 0, s.cfg.Bouncer.Bounce
	}
	return name, http.StatusNotFound, nil
}

// reschedule sets the next attempt. Without a time it is an error: an old client would not know.
func (s *Server) reschedule(at time.Time) action {
	return func(ctx context.Context, f queue.Filter, _ string) (int, error) {
		if at.IsZero() {
			return 0, refuse(http.StatusBadRequest, "schedule for when?")
		}
		n, err := s.cfg.Queue.Reschedule(ctx, f, at)
		if errors.Is(err, queue.ErrTooFar) {
			err = &Error{Code: http.StatusBadRequest, Message: "no attempt can be put off for more than 30 days", Hint: "relayctl queue hold keeps mail back until it is released"}
		}
		return n, err
	}
}

// maxReason keeps an operator's reason to one header-sized line of the report.
const maxReason = 500

// checkReason: the reason goes into a report's fields (RFC 3464), where a line end would begin
// another field.
func checkReason(reason string) error {
	if len(reason) > maxReason {
		return refuse(http.StatusBadRequest, "the reason is longer than %d octets", maxReason)
	}
	if strings.ContainsFunc(reason, func(c rune) bool { return !unicode.IsPrint(c) }) {
		return refuse(http.StatusBadRequest, "the reason has a line end or another control character")
	}
	return nil
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	st := Status{PID: os.Getpid(), Started: s.started, DataDir: s.cfg.DataDir,
		Open: s.cfg.Metrics.Stats().Services, Errors: []string{}}
	if s.cfg.About != nil {
		st.About = s.cfg.About()
	}
	if s.cfg.Orders != nil {
		st.Paused = s.cfg.Orders.Pauses()
	}
	if s.cfg.Holds != nil {
		st.HeldUsers = s.cfg.Holds.Held()
	}
	var broken int
	if st.Queue, broken = s.reader.Totals(r.Context()); broken > 0 {
		st.Errors = append(st.Errors, fmt.Sprintf("%d items of the queue cannot be read", broken))
	}
	var err error
	if st.Disk, err = diskOf(s.cfg.DataDir); err != nil {
		st.Errors = append(st.Errors, err.Error())
	}
	writeJSON(w, http.StatusOK, st)
}

// diskOf asks the file system of dir. Free is what is left for us, not for root alone.
func diskOf(dir string) (Disk, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return Disk{}, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return Disk{Free: int64(st.Bavail) * st.Bsize, Total: int64(st.Blocks) * st.Bsize}, nil
}

func (s *Server) stats(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, s.cfg.Metrics.Stats())
}

// reload runs one at a time, so that the older of two configurations never wins.
func (s *Server) reload(w http.ResponseWriter, r *http.Request) {
	if s.cfg.Reload == nil {
		writeError(w, refuse(http.StatusNotImplemented, "this relayd cannot reload"))
		return
	}
	s.reloading.Lock()
	defer s.reloading.Unlock()
	if err := s.cfg.Reload(r.Context()); err != nil {
		writeError(w, refuse(http.StatusUnprocessableEntity, "%v", err))
		return
	}
	writeJSON(w, http.StatusOK, struct{}{})
}

// readJSON reads a request's body, strictly.
func readJSON(w http.ResponseWriter, r *http.Request, v any) error {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return refuse(http.StatusRequestEntityTooLarge, "the order is larger than %d octets", maxBody)
	}
	return refuse(http.StatusBadRequest, "the order cannot be read: %v", err)
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(patience))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	// An error here is a client that has gone.
	_ = json.NewEncoder(w).Encode(v)
}

// writeError answers an error: an *Error as it is, everything else as 500. The operator may know
// the detail.
func writeError(w http.ResponseWriter, err error) {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		e = &Error{Code: http.StatusInternalServerError, Message: err.Error()}
	}
	writeJSON(w, e.Code, e)
}
