package intake

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"

	"relayd/relay"
	"relayd/relay/filter"
)

// Filters are programs of others that look at letters. relay/filter has them; cmd/relayd hands them
// to Settings.
type Filters interface {
	// Asks says whether any is to see a letter of our own people, or of others.
	Asks(ours bool) bool
	// Writes says whether only filters may write the field of this name, in lower case.
	Writes(name string) bool
	// Check shows the letter to all of them. An error is temporary, and ours.
	Check(ctx context.Context, l filter.Letter) ([]filter.Verdict, error)
}

// follow is, beside decide, the place where findings have consequences: what becomes of a letter that
// filters have looked at. The verdict is the weightiest one. Other than decide it knows no exceptions:
// what a filter passes by is for the filter to say. With mode "off" it is filters alone that decide.
func (p Policy) follow(all []filter.Verdict) (fate, filter.Verdict) {
	var worst filter.Verdict
	for _, v := range all {
		if v.Action > worst.Action {
			worst = v
		}
	}
	switch {
	case p.Mode == PolicyObserve, worst.Action == filter.Pass:
		return deliver, worst
	case worst.Action >= filter.Defer:
		return refuse, worst
	}
	return junk, worst
}

// filter shows the letter to the filters, decides, and writes what they found into the header. Where
// the body had to be read for that, it comes back in the examined.
func (t *transaction) filter(ctx context.Context, h header, body io.Reader, more bool, e *examined) (header, *examined, error) {
	filters := t.settings.Filters
	o := t.env.Origin
	own := !o.Client.IsValid() && o.Service != ServiceLocal // a report of ours
	if filters == nil || own {
		return h, e, nil
	}
	h = h.edited(nil, filters.Writes)
	ours := o.Trusted || t.settings.submitted(o)
	if !filters.Asks(ours) {
		return h, e, nil
	}
	if e == nil {
		e = &examined{body: heldBody{dir: t.in.disk.path, pool: &t.in.held}}
		if more {
			if err := e.body.fill(body, io.Discard); err != nil {
				e.end()
				return h, nil, err
			}
		}
	}
	verdicts, err := filters.Check(ctx, filter.Letter{
		Env: t.env, Ours: ours, Header: h.raw[:h.end], Whole: h.whole,
		Body: func() io.Reader {
			return io.MultiReader(bytes.NewReader(h.raw[h.end:]), bytes.NewReader(h.rest), e.body.reader())
		},
		Size: int64(len(h.raw)+len(h.rest)) + e.body.size(),
	})
	if err != nil {
		// The disk, or the client has gone, or we are about to.
		err = relay.Fail("intake: filters", relay.ScopeMessage,
			relay.Reply{Code: 451, Status: relay.Status{4, 3, 0}, Text: "please try again later"}, err)
	} else {
		t.env.Filter = filter.String(verdicts)
		err = t.apply(ctx, verdicts, h.whole)
	}
	if err != nil {
		e.end()
		return h, nil, err
	}
	return t.written(h, verdicts), e, nil
}

// apply does with the letter what follows. An error refuses it.
func (t *transaction) apply(ctx context.Context, verdicts []filter.Verdict, whole bool) error {
	fate, worst := t.settings.Policy.follow(verdicts)
	if fate == refuse {
		return relay.Fail("intake: "+worst.Filter, relay.ScopeMessage, worst.Reply, fmt.Errorf("%s: %s", t.env.Filter, cmp.Or(worst.Detail, worst.Word)))
	}
	if t.settings.Policy.Mode == PolicyObserve {
		return nil
	}
	if !whole {
		// Nobody hides forged findings in a header larger than we look at.
		t.env.Junk = true
	}
	for i := range t.env.Rcpts {
		r := &t.env.Rcpts[i]
		r.Junk = !r.Mailbox.IsNull() && t.isJunk(*r, verdicts)
	}
	for _, v := range verdicts {
		if v.Action == filter.Quarantine || len(v.Aside) > 0 {
			t.env.Hold = cmp.Or(t.env.Hold, "the filter "+v.Filter+" has set it aside")
		}
		t.copies(ctx, v)
	}
	return nil
}

// isJunk says whether a mailbox's copy goes into its folder Junk. A threshold of its owner takes the
// place of what the spam filter thinks spam.
func (t *transaction) isJunk(r relay.Recipient, verdicts []filter.Verdict) bool {
	threshold, own := 0.0, false
	if t.settings.JunkScore != nil {
		threshold, own = t.settings.JunkScore(r.Mailbox)
	}
	for _, v := range verdicts {
		name := cmp.Or(r.Orig, r.Addr.String())
		switch {
		case v.Action == filter.Quarantine, contains(v.Aside, name):
			return true
		case v.Scored && own && v.Score >= threshold, v.Action == filter.Junk && !(v.Scored && own):
			return true
		}
	}
	return false
}

func contains(all []string, one string) bool {
	for _, s := range all {
		if s == one {
			return true
		}
	}
	return false
}

// maxCopies bounds how many recipients filters may add to one letter.
const maxCopies = 20

// copies adds the recipients a filter wants, as if the client had named them: what a stranger may not
// write to, a filter may not send a stranger's letters to either.
func (t *transaction) copies(ctx context.Context, v filter.Verdict) {
	for _, to := range v.Copies[:min(len(v.Copies), maxCopies)] {
		a, err := relay.ParseAddress(to, false)
		if err == nil {
			err = t.Rcpt(ctx, a, relay.RcptParams{Notify: relay.NotifyNever})
		}
		if err != nil {
			t.in.log.Warn("a filter wants a copy to go where none can", "id", t.env.ID, "filter", v.Filter, "rcpt", to, "err", err)
		}
	}
}

// written is the header as the filters want it; what they add stands above the letter. In mode
// "observe" nothing of the letter itself is changed.
func (t *transaction) written(h header, verdicts []filter.Verdict) header {
	var changes []filter.Edit
	for _, v := range verdicts {
		for _, e := range v.Edits {
			switch {
			case strings.EqualFold(e.Name, "Authentication-Results") && t.results != "":
				// We have asked ourselves, and two answers in one name would be one too many.
			case e.Op == filter.Add:
				t.results += e.Name + ": " + e.Value + "\r\n"
			case t.settings.Policy.Mode != PolicyObserve:
				changes = append(changes, e)
			}
		}
	}
	if len(changes) == 0 {
		return h
	}
	edited := h.edited(changes, func(string) bool { return false })
	for _, e := range changes {
		if e.Op == filter.Change && h.count(e.Name) < max(e.Index, 1) {
			t.results += e.Name + ": " + e.Value + "\r\n"
		}
	}
	return edited
}

func (h header) count(name string) (n int) {
	for field := range fields(h.raw[:h.end]) {
		if have, _, ok := bytes.Cut(field, []byte(":")); ok && fieldName(have) == strings.ToLower(name) {
			n++
		}
	}
	return n
}

// edited is the header without the fields that unwanted names, and with these changes made, each to
// the fields as they stand in h. What is not whole is left alone.
func (h header) edited(changes []filter.Edit, unwanted func(name string) bool) header {
	if !h.whole {
		return h
	}
	var kept []byte
	changed := false
	seen := map[string]int{}
	for field := range fields(h.raw[:h.end]) {
		name, _, ok := bytes.Cut(field, []byte(":"))
		key := fieldName(name)
		if ok && unwanted(key) {
			changed = true
			continue
		}
		if ok && len(changes) > 0 {
			seen[key]++
			if e := editOf(changes, key, seen[key]); e != nil {
				changed = true
				if e.Op == filter.Change {
					kept = append(append(kept, name...), ": "+e.Value+"\r\n"...)
				}
				continue
			}
		}
		kept = append(kept, field...)
	}
	if !changed {
		return h
	}
	next := scanHeader(kept)
	next.rest = append(h.raw[h.end:len(h.raw):len(h.raw)], h.rest...)
	next.raw, next.end, next.whole = kept, len(kept), true
	return next
}

// editOf is the last change of the nth field of a name; nil: it stays.
func editOf(changes []filter.Edit, name string, nth int) (found *filter.Edit) {
	for i := range changes {
		if e := &changes[i]; strings.ToLower(e.Name) == name && (e.Index == nth || e.Index == 0) {
			found = e
		}
	}
	return found
}
