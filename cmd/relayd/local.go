package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"relayd/delivery/dsn"
	"relayd/relay"
	"relayd/relay/admin"
	"relayd/relay/drop"
)

// local is a letter of a program on this machine on its way to intake.
type local struct {
	h       *house
	order   drop.Order
	account string        // of who runs the program
	from    relay.Address // the envelope's
	shown   relay.Address // for a From field
	tx      relay.Transaction
	rcpts   int
	refused []admin.Refused
}

// submitLocal takes a letter from the control socket: all of it or, where anybody is refused,
// nothing.
func (h *house) submitLocal(ctx context.Context, o drop.Order, letter io.Reader) (admin.Submitted, error) {
	l, err := h.beginLocal(ctx, o)
	if l != nil {
		defer l.tx.Abort()
	}
	if err == nil && len(l.refused) > 0 {
		return admin.Submitted{Refused: l.refused}, nil
	}
	if err == nil {
		var id relay.ID
		if id, err = l.receive(ctx, letter); err == nil {
			return admin.Submitted{ID: id}, nil
		}
	}
	r, known := refusalOf("", err)
	if !known {
		h.log.Error("a program's letter was not accepted", "err", err)
	}
	return admin.Submitted{Refused: []admin.Refused{r}}, nil
}

// collectLocal takes a letter from the drop directory. Nobody waits for an answer any more, so
// whoever can have it gets it, and the sender a report about the others.
func (h *house) collectLocal(ctx context.Context, o drop.Order, letter io.Reader) error {
	head := &headOf{r: drop.Text(letter)}
	l, err := h.beginLocal(ctx, o)
	if l == nil {
		if r, _ := refusalOf("", err); r.Code >= 500 {
			err = fmt.Errorf("%w: %w", drop.ErrRejected, err)
		}
		return err
	}
	defer l.tx.Abort()
	if i := slices.IndexFunc(l.refused, func(r admin.Refused) bool { return r.Code < 500 }); i >= 0 {
		return fmt.Errorf("%s: %d %s", l.refused[i].Rcpt, l.refused[i].Code, l.refused[i].Text)
	}
	if l.rcpts == 0 {
		io.Copy(io.Discard, io.LimitReader(head, maxHead))
	} else if _, err := l.receive(ctx, head); err != nil {
		r, _ := refusalOf("", err)
		if r.Code < 500 {
			return err
		}
		l.refuseAll(r)
	}
	return l.reportUntilDone(ctx, head.kept)
}

// refuseAll says that nobody has it, for one reason.
func (l *local) refuseAll(r admin.Refused) {
	l.refused = nil
	for _, rcpt := range l.order.Rcpts {
		r.Rcpt = rcpt
		l.refused = append(l.refused, r)
	}
}

// reportUntilDone does not give the letter back for another try, because some may have it by now.
func (l *local) reportUntilDone(ctx context.Context, head []byte) error {
	for {
		err := l.report(ctx, head)
		if err == nil || errors.Is(err, drop.ErrRejected) {
			return err
		}
		l.h.log.Error("a report could not be submitted, trying again", "from", l.from, "err", err)
		if !relay.Sleep(ctx, 10*time.Second) {
			return err
		}
	}
}

// beginLocal resolves who sends to whom; refusals of single recipients are kept.
func (h *house) beginLocal(ctx context.Context, o drop.Order) (*local, error) {
	l := &local{h: h, order: o, account: accountName(o.UID)}
	if err := l.resolveSender(); err != nil {
		return nil, err
	}
	utf8 := !l.from.IsASCII()
	for _, r := range o.Rcpts {
		utf8 = utf8 || !(relay.Address{Local: r}).IsASCII()
	}
	var err error
	if l.tx, err = h.intake.BeginLocal(ctx, l.account, l.from, utf8, 0); err != nil {
		return nil, err
	}
	for _, r := range o.Rcpts {
		to, err := l.complete(r)
		if err == nil {
			err = l.tx.Rcpt(ctx, to, relay.RcptParams{})
		}
		if err != nil {
			refusal, _ := refusalOf(r, err)
			l.refused = append(l.refused, refusal)
			continue
		}
		l.rcpts++
	}
	return l, nil
}

// accountName is what this machine calls a user, made safe for a header.
func accountName(uid int) string {
	name := "uid" + strconv.Itoa(uid)
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		name = u.Username
	}
	return strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("._-", c) {
			return c
		}
		return '-'
	}, name[:min(len(name), 64)])
}

func (l *local) resolveSender() (err error) {
	if l.order.From == "<>" {
		l.shown, err = l.address(l.account)
		return err
	}
	text := l.order.From
	if text == "" {
		text = l.account
	}
	if l.shown, err = l.address(text); err != nil {
		return err
	}
	l.from = l.shown
	if !strings.Contains(text, "@") && !l.h.intake.Knows(l.from) {
		// root and www-data have no mailbox, and a report must reach somebody.
		l.from = relay.Address{Local: relay.Postmaster.Local, Domain: l.from.Domain}
	}
	return nil
}

// complete is the address of a recipient. One that is only the name of an account here, and no
// mailbox of ours, is the postmaster: what cron has to tell root.
func (l *local) complete(text string) (relay.Address, error) {
	a, err := l.address(text)
	if err != nil || strings.Contains(text, "@") || l.h.intake.Knows(a) {
		return a, err
	}
	if _, err := user.Lookup(text); err == nil {
		a.Local = relay.Postmaster.Local
	}
	return a, nil
}

// address reads an address, which without a domain is one of our first.
func (l *local) address(text string) (relay.Address, error) {
	if !strings.Contains(text, "@") {
		cfg := l.h.config()
		domain := cfg.DefaultDomain
		if domain == "" {
			domain = cfg.Hostname
		}
		text += "@" + string(domain)
	}
	a, err := relay.ParseAddress(text, true)
	if err != nil {
		return a, relay.Fail("local: address", relay.ScopeRecipient,
			relay.Reply{Code: 553, Status: relay.Status{5, 1, 3}, Text: fmt.Sprintf("%q: %v", text, err)}, err)
	}
	return a, nil
}

// receive hands in the letter, with the From field its writer left to us.
func (l *local) receive(ctx context.Context, letter io.Reader) (relay.ID, error) {
	most := l.h.config().Limits.MessageSize
	letter = &atMost{r: drop.Text(letter), left: most}
	if l.order.Unsigned && l.order.Name != "" && l.shown.IsASCII() {
		from := fmt.Sprintf("From: %s <%s>\r\n", phrase(l.order.Name), l.shown)
		letter = io.MultiReader(strings.NewReader(from), letter)
	}
	return l.tx.Receive(ctx, letter)
}

// phrase is a display name as a header field may hold it.
func phrase(name string) string {
	name = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return -1
		}
		return c
	}, name)
	if name = name[:min(len(name), 200)]; !(relay.Address{Local: name}).IsASCII() {
		return mime.QEncoding.Encode("utf-8", strings.ToValidUTF8(name, "?"))
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(name) + `"`
}

// report tells the sender who was refused. drop.ErrRejected: there is nobody to tell.
func (l *local) report(ctx context.Context, head []byte) error {
	if len(l.refused) == 0 {
		return nil
	}
	if l.from.IsNull() {
		return fmt.Errorf("%w: %d %s", drop.ErrRejected, l.refused[0].Code, l.refused[0].Text)
	}
	now := time.Now()
	r := dsn.Report{Kind: dsn.Failed, ID: relay.NewID(now), Now: now, ReportingMTA: l.h.config().Hostname, OriginalHeader: head,
		Envelope: relay.Envelope{ID: relay.NewID(now), From: l.from, Accepted: now}}
	for _, f := range l.refused {
		to, err := l.address(f.Rcpt)
		if err != nil {
			return fmt.Errorf("%w: %w", drop.ErrRejected, err) // what cannot be named cannot be reported
		}
		r.Envelope.Rcpts = append(r.Envelope.Rcpts, relay.Recipient{Addr: to, Orig: to.String()})
		r.Results = append(r.Results, relay.Result{Rcpt: to, Outcome: relay.Failed, At: now,
			Reply: relay.Reply{Code: f.Code, Status: f.Status, Text: f.Text}})
	}
	var letter bytes.Buffer
	if err := dsn.Compose(&letter, r); err != nil {
		return err
	}
	err := l.h.intake.Submit(ctx, relay.Envelope{ID: r.ID, Rcpts: []relay.Recipient{{Addr: l.from}}, Accepted: now,
		Size: int64(letter.Len()), UTF8: !l.from.IsASCII()}, &letter)
	if f, ok := errors.AsType[*relay.Failure](err); ok && f.Reply.Permanent() {
		return fmt.Errorf("%w: %w", drop.ErrRejected, err)
	}
	if err == nil {
		l.h.log.Info("reported", "id", r.Envelope.ID, "from", l.from, "kind", string(r.Kind), "report", r.ID)
	}
	return err
}

// refusalOf is what a program is told. What is behind an error that has no reply is not for it.
func refusalOf(rcpt string, err error) (r admin.Refused, known bool) {
	f, known := errors.AsType[*relay.Failure](err)
	if !known || f.Reply.Code < 400 {
		return admin.Refused{Rcpt: rcpt, Code: 451, Status: relay.Status{4, 3, 0}, Text: "something went wrong here, please try again later"}, false
	}
	return admin.Refused{Rcpt: rcpt, Code: f.Reply.Code, Status: f.Reply.Status, Text: f.Reply.Text}, true
}

// atMost refuses a letter that is too large.
type atMost struct {
	r    io.Reader
	left int64
}

func (a *atMost) Read(p []byte) (int, error) {
	n, err := a.r.Read(p)
	if a.left -= int64(n); a.left < 0 {
		return 0, relay.Fail("local: letter", relay.ScopeMessage,
			relay.Reply{Code: 552, Status: relay.Status{5, 3, 4}, Text: "the message is larger than we take"}, nil)
	}
	return n, err
}

// maxHead is how much of a letter its report may show.
const maxHead = 32 << 10

// headOf remembers the beginning of what passes through.
type headOf struct {
	r    io.Reader
	kept []byte
}

func (h *headOf) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	h.kept = append(h.kept, p[:min(n, maxHead-len(h.kept))]...)
	return n, err
}

// collector empties the drop directory.
func (h *house) collector() *drop.Collector {
	return &drop.Collector{Dir: h.config().DropDir, Accept: h.collectLocal, Log: h.log.With("room", "drop")}
}
