package intake

import (
	"cmp"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"relayd/relay"
	"relayd/relay/dmarc"
	"relayd/relay/gate"
)

// transaction is one letter between MAIL and its 250.
type transaction struct {
	in       *Intake
	settings *Settings
	env      relay.Envelope
	binary   bool // the body is not text yet
	named    int  // how many RCPT commands were accepted
	places   destinations
	results  string // the Authentication-Results field of a stranger's letter, with its line end
	observed *dmarc.Observation
	proven   bool // it is its author's (DMARC)
	stranger *gate.Letter
	weight   string // what the gate has found
}

// Rcpt implements relay.Transaction. A recipient that was named before, itself or through an
// alias, is accepted and gets one letter.
func (t *transaction) Rcpt(ctx context.Context, to relay.Address, p relay.RcptParams) error {
	found, err := t.settings.classify(t.env.Origin, to)
	if err == nil {
		err = t.checkDomain(ctx, found, to)
	}
	if err == nil {
		err = t.stranger.Rcpt(ctx, to)
	}
	if err == nil {
		found, err = t.ask(ctx, found, to)
	}
	if err != nil {
		t.refused(err, to)
		return err
	}
	t.named++
	for _, r := range found {
		// Where an alias leads on, the sender's wishes go along (RFC 3461 §5.2.7).
		r.Notify, r.ORcpt = p.Notify, p.ORcpt
		if !slices.ContainsFunc(t.env.Rcpts, func(have relay.Recipient) bool { return samePlace(have, r) }) {
			t.env.Rcpts = append(t.env.Rcpts, r)
		}
	}
	return nil
}

func samePlace(a, b relay.Recipient) bool {
	if a.Mailbox.IsNull() && b.Mailbox.IsNull() {
		return a.Addr == b.Addr
	}
	return a.Mailbox == b.Mailbox
}

// Receive implements relay.Transaction.
func (t *transaction) Receive(ctx context.Context, body io.Reader) (relay.ID, error) {
	if len(t.env.Rcpts) == 0 {
		return "", relay.Refuse("intake: receive", 554, "5.5.1", "no valid recipients")
	}
	start := time.Now()
	if t.binary {
		text, err := t.asText(body)
		if err != nil {
			t.refused(err, relay.Address{})
			return "", err
		}
		defer text.end()
		body = text
	}
	buf := t.in.buffers.Get().(*[]byte)
	defer func() { *buf = (*buf)[:0]; t.in.buffers.Put(buf) }()
	room := &room{places: t.in.large}
	defer room.leave()
	h, more, err := readHeader(body, *buf, room.enter)
	t.env.ID, t.env.Accepted = relay.NewID(now()), now()
	if err == nil {
		err = t.checkLoops(h)
	}
	if err == nil {
		h, err = t.putInOrder(h)
	}
	var checked *examined
	if err == nil {
		checked, err = t.examine(ctx, h, body, more)
	}
	if err == nil {
		err = t.passGate(ctx, checked)
	}
	if err == nil {
		h, checked, err = t.filter(ctx, h, body, more, checked)
	}
	if err != nil {
		t.refused(err, relay.Address{})
		return "", err
	}
	if checked != nil {
		defer checked.end()
		body = checked.body.reader()
	}
	h = h.withoutClaims(t.settings.Directory.Hostname)
	charge := t.charge(h)
	confirm := t.confirmation(h)
	size, err := t.accept(ctx, h, body, more, (*buf)[:cap(*buf)])
	if err != nil {
		charge.Refund()
		t.refused(err, relay.Address{})
		return "", err
	}
	t.accepted(size, time.Since(start))
	t.observe()
	t.stranger.Accepted(t.env)
	charge.Accepted(ctx, t.env)
	confirm(ctx)
	return t.env.ID, nil
}

// Abort implements relay.Transaction.
func (t *transaction) Abort() { t.places.end() }

// checkLoops refuses a letter that has been going round: too many hops (RFC 5321 §6.3), or one
// that an alias of ours sent away before and that is about to be sent away by it again.
func (t *transaction) checkLoops(h header) error {
	if h.received > t.settings.Limits.ReceivedFields {
		return relay.Refuse("intake: receive", 554, "5.4.6", "the message has passed too many hosts: it is in a loop")
	}
	for _, r := range t.env.Rcpts {
		alias := aliasOf(r)
		if r.Mailbox.IsNull() && !alias.IsNull() && slices.Contains(h.deliveredTo, strings.ToLower(alias.String())) {
			return relay.Refuse("intake: receive", 554, "5.4.6", "the message has come back to "+alias.String()+": it is in a loop")
		}
	}
	return nil
}

// accept stages the letter on every route, copies the body to all of them, and commits. It
// returns the size of the letter without our trace fields.
func (t *transaction) accept(ctx context.Context, h header, body io.Reader, more bool, buf []byte) (size int64, err error) {
	routes, err := t.stage(ctx, h)
	defer func() {
		if err != nil {
			for _, r := range routes {
				r.Abort()
			}
		}
	}()
	if err != nil {
		return 0, err
	}
	t.in.step("accept: staged")
	out := fanout(routes)
	if _, err := out.Write(h.raw); err != nil {
		return 0, err
	}
	if _, err := out.Write(h.rest); err != nil {
		return 0, err
	}
	size = int64(len(h.raw) + len(h.rest))
	if more {
		// Both have been written, so their buffer may be used again.
		n, err := io.CopyBuffer(writerOnly{out}, readerOnly{body}, buf)
		if size += n; err != nil {
			return 0, err
		}
	}
	if err := t.seal(routes); err != nil {
		return 0, err
	}
	t.in.step("accept: written")
	for _, r := range routes {
		if err := r.Commit(ctx); err != nil {
			return 0, err
		}
		t.in.step("accept: route committed")
	}
	return size, nil
}

// stage opens the routes, the maildirs before the queue: a letter that could not be queued after
// all can be taken back from a maildir, but not from the drain.
func (t *transaction) stage(ctx context.Context, h header) (routes []relay.Staged, err error) {
	only := ""
	if t.named == 1 {
		only = t.env.Rcpts[0].Orig
	}
	hide := t.settings.HideClient && t.settings.submitted(t.env.Origin)
	received := t.results + receivedField(t.env, t.settings.Directory.Hostname, only, hide)
	local, foreign := t.env, t.env
	local.Rcpts, foreign.Rcpts = split(t.env.Rcpts)
	foreign.Junk = false // elsewhere others decide
	if len(local.Rcpts) > 0 {
		trace, to := localTrace(local, h, received), t.in.local
		if t.leavesLater() {
			local, to = asWaiting(local, len(foreign.Rcpts) > 0), t.in.foreign
		}
		if routes, err = open(ctx, routes, to, local, trace); err != nil {
			return routes, err
		}
	}
	if len(foreign.Rcpts) > 0 {
		trace := foreignTrace(foreign, h, received)
		// A recipient's address makes no international letter of it for the others: delivery/mx
		// looks at each.
		foreign.UTF8 = t.env.UTF8 && (h.nonASCII || !foreign.From.IsASCII() || !isASCII(trace))
		return t.openForeign(ctx, routes, foreign, h, trace)
	}
	return routes, nil
}

func open(ctx context.Context, routes []relay.Staged, to relay.Stager, env relay.Envelope, trace string) ([]relay.Staged, error) {
	s, err := to.Stage(ctx, env)
	if err != nil {
		return routes, err
	}
	_, err = io.WriteString(s, trace)
	return append(routes, s), err
}

func split(rcpts []relay.Recipient) (local, foreign []relay.Recipient) {
	for _, r := range rcpts {
		if r.Mailbox.IsNull() {
			foreign = append(foreign, r)
		} else {
			local = append(local, r)
		}
	}
	return local, foreign
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf })
}

func (t *transaction) accepted(size int64, took time.Duration) {
	local, _ := split(t.env.Rcpts)
	log := t.in.log.With("id", t.env.ID)
	line := log
	if t.env.Auth != "" {
		line = log.With("auth", t.env.Auth)
	}
	if t.env.Filter != "" {
		line = line.With("filter", t.env.Filter)
	}
	if t.weight != "" {
		line = line.With("gate", t.weight)
	}
	line.Info("accepted", "from", t.env.From, "rcpt", len(t.env.Rcpts), "size", size, "client", client(t.env.Origin),
		"helo", t.env.Origin.Helo, "user", t.env.Origin.User, "dur", took.Round(time.Microsecond))
	if t.leavesLater() {
		local = nil // it will be
	}
	for _, r := range local {
		line := log
		if t.env.Junk || r.Junk {
			line = log.With("folder", "Junk")
		}
		line.Info("delivered", "rcpt", r.Addr, "mailbox", r.Mailbox)
	}
}

func (t *transaction) refused(err error, rcpt relay.Address) {
	code := 451
	if f, ok := errors.AsType[*relay.Failure](err); ok {
		code = cmp.Or(f.Reply.Code, code)
	}
	if code >= 500 {
		t.observe() // whoever refused it, it has been seen (RFC 9990 §3.1)
	}
	log := t.in.log
	if t.env.Auth != "" {
		log = log.With("auth", t.env.Auth)
	}
	log.Info("refused", "from", t.env.From, "rcpt", rcpt, "client", client(t.env.Origin), "helo", t.env.Origin.Helo,
		"user", t.env.Origin.User, "code", code, "err", err)
}

// client is the address for the log; letters of our own have none.
func client(o relay.Origin) string {
	if !o.Client.IsValid() {
		return ""
	}
	return o.Client.Addr().Unmap().String()
}

// fanout writes to every route; the first error ends the letter.
type fanout []relay.Staged

func (f fanout) Write(p []byte) (int, error) {
	for _, s := range f {
		if _, err := s.Write(p); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// writerOnly and readerOnly keep io.CopyBuffer from going around the buffer it was given.
type writerOnly struct{ io.Writer }
type readerOnly struct{ io.Reader }
