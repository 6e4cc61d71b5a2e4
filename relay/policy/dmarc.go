package policy

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"relayd/relay"
)

// Wish is what a domain asks receivers to do with letters that are not proven to be its own.
type Wish int

// The wishes, the mildest first.
const (
	WishNone Wish = iota
	WishQuarantine
	WishReject
)

var wishes = map[string]Wish{"none": WishNone, "quarantine": WishQuarantine, "reject": WishReject}

func (w Wish) String() string { return [...]string{"none", "quarantine", "reject"}[w] }

// record is a DMARC policy record (RFC 9989 §4.7).
type record struct {
	p, sp, np       Wish // sp and np fall back to p
	strictDKIM      bool // adkim=s
	strictSPF       bool // aspf=s
	testing         bool // t=y
	public, private bool // psd=y: names are registered below; psd=n: this is an organization's own
	useless         bool // neither a valid p= nor anywhere to report to: no policy is in force
	rua, fo         string
}

// parseRecord reads one TXT record; ok is false where it is no DMARC record at all.
func parseRecord(text string) (r record, ok bool) {
	first, _, _ := strings.Cut(text, ";")
	name, value, _ := strings.Cut(first, "=")
	if !strings.EqualFold(strings.Trim(name, " \t"), "v") || strings.Trim(value, " \t") != "DMARC1" {
		return record{}, false
	}
	t := map[string]string{}
	for part := range strings.SplitSeq(text, ";") {
		name, value, _ := strings.Cut(part, "=")
		name = strings.ToLower(strings.Trim(name, " \t\r\n"))
		if _, twice := t[name]; twice {
			continue
		}
		value = strings.Trim(value, " \t\r\n")
		if name == "rua" {
			r.rua = value // the local part of an address has its case
		}
		t[name] = strings.ToLower(value)
	}
	r.fo = t["fo"]
	r.strictDKIM, r.strictSPF, r.testing = t["adkim"] == "s", t["aspf"] == "s", t["t"] == "y"
	r.public, r.private = t["psd"] == "y", t["psd"] == "n"
	valid := true
	wish := func(name string, otherwise Wish) Wish {
		text, given := t[name]
		w, known := wishes[text]
		if given && known {
			return w
		}
		valid = valid && !given
		return otherwise
	}
	_, hasP := t["p"]
	r.p = wish("p", WishNone)
	r.sp = wish("sp", r.p)
	r.np = wish("np", r.sp)
	if !hasP || !valid {
		// Somebody who asks for reports is still trying; anybody else has no policy (§4.7, §4.10.1).
		r.p, r.sp, r.np = WishNone, WishNone, WishNone
		r.useless = !strings.Contains(t["rua"], "mailto:")
	}
	return r, true
}

// found is what _dmarc of a name answered.
type found struct {
	record
	ok   bool
	err  error // could not ask
	done chan struct{}
}

// maxWalk bounds the questions of one walk (RFC 9989 §4.10).
const maxWalk = 8

// tree asks for DMARC records, each name once for a letter however many walks pass it.
type tree struct {
	dns  relay.Resolver
	mu   sync.Mutex
	seen map[string]*found
}

func (t *tree) at(ctx context.Context, name string) *found {
	t.mu.Lock()
	f, asked := t.seen[name]
	if !asked {
		f = &found{done: make(chan struct{})}
		t.seen[name] = f
	}
	t.mu.Unlock()
	if asked {
		<-f.done // whoever asks has our deadline
		return f
	}
	defer close(f.done)
	texts, err := t.dns.TXT(ctx, "_dmarc."+name)
	if err != nil {
		if !errors.Is(err, relay.ErrNoRecord) {
			f.err = err
		}
		return f
	}
	n := 0
	for _, text := range texts {
		if r, ok := parseRecord(text); ok {
			f.record = r
			n++
		}
	}
	f.ok = n == 1 // two records are none
	return f
}

// steps are the names a walk asks about: the name itself and those above it, of a long name only
// the seven shortest (RFC 9989 §4.10).
func steps(name string) []string {
	all := []string{name}
	labels := strings.Split(name, ".")
	for i := max(1, len(labels)-(maxWalk-1)); i < len(labels); i++ {
		all = append(all, strings.Join(labels[i:], "."))
	}
	return all
}

// ask starts the questions of a walk beside each other.
func (t *tree) ask(ctx context.Context, name string, start func(func())) {
	for _, step := range steps(name) {
		start(func() { t.at(ctx, step) })
	}
}

// organization is the Organizational Domain of name (RFC 9989 §4.10.2).
func (t *tree) organization(ctx context.Context, name string) (string, error) {
	org, below := name, name
	for i, step := range steps(name) {
		f := t.at(ctx, step)
		if f.err != nil {
			return "", f.err
		}
		switch {
		case f.ok && f.private:
			return step, nil
		case f.ok && f.public && i > 0:
			return below, nil
		case f.ok:
			org = step
		}
		below = below1(name, step)
	}
	return org, nil
}

// below1 is the name one label longer than the step that comes next, on the way to name.
func below1(name, step string) string {
	// The next step is the parent of this one, except after the first of a long name.
	labels := strings.Split(name, ".")
	n := min(len(strings.Split(step, ".")), maxWalk)
	return strings.Join(labels[len(labels)-n:], ".")
}

// policy is the record that speaks for an author's domain, and what it asks for (RFC 9989 §4.10.1).
type policy struct {
	record
	at   string // where it was found; empty: nowhere
	wish Wish
	full Wish // what it would be but for t=y
}

func (t *tree) policy(ctx context.Context, author string, exists func() (bool, error)) (policy, error) {
	own := t.at(ctx, author)
	if own.err != nil {
		return policy{}, own.err
	}
	if own.ok {
		return own.record.asked(author, own.p), nil
	}
	org, err := t.organization(ctx, author)
	if err != nil {
		return policy{}, err
	}
	at, f := org, t.at(ctx, org)
	if !f.ok {
		// The public suffix above may speak for what is registered below it.
		if _, parent, ok := strings.Cut(org, "."); ok {
			at, f = parent, t.at(ctx, parent)
		}
		if f.err != nil {
			return policy{}, f.err
		}
		if !f.ok || !f.public {
			return policy{}, nil
		}
	}
	wish := f.sp
	if f.np != f.sp {
		there, err := exists()
		if err != nil {
			return policy{}, err
		}
		if !there {
			wish = f.np
		}
	}
	return f.record.asked(at, wish), nil
}

// asked applies t=y, which means one step less (RFC 9989 §4.7).
func (r record) asked(at string, w Wish) policy {
	if r.useless {
		return policy{}
	}
	p := policy{record: r, at: at, wish: w, full: w}
	if r.testing && w > WishNone {
		p.wish--
	}
	return p
}

// aligned says whether a proven domain speaks for the author's (RFC 9989 §4.4).
func (t *tree) aligned(ctx context.Context, author, proven string, strict bool) (bool, error) {
	switch {
	case author == proven:
		return true, nil
	case strict || !related(author, proven):
		return false, nil
	}
	a, err := t.organization(ctx, author)
	if err != nil {
		return false, err
	}
	b, err := t.organization(ctx, proven)
	return a == b, err
}

// related says whether two names end in the same label, without which no walk brings them together.
func related(a, b string) bool {
	return a[strings.LastIndexByte(a, '.')+1:] == b[strings.LastIndexByte(b, '.')+1:]
}

// exists says whether there is anything at a name or below it: a domain that does not exist is one for
// which the DNS says NXDOMAIN (RFC 9989 §3.2.13), whatever records others lack.
func exists(ctx context.Context, dns relay.Resolver, name string) (bool, error) {
	_, err := dns.MX(ctx, relay.Domain(name))
	switch {
	case errors.Is(err, relay.ErrNoName):
		return false, nil
	case errors.Is(err, relay.ErrNoRecord):
		return true, nil
	}
	return err == nil, err
}

// proof is a domain that SPF or DKIM has looked at.
type proof struct {
	domain string
	result Result
	spf    bool
}

// authorship is what DMARC comes to for one domain in From.
type authorship struct {
	result    Result
	policy    policy
	dkim, spf bool // proven and aligned
}

// judgeAuthor evaluates DMARC for one domain in From.
func (t *tree) judgeAuthor(ctx context.Context, author string, proofs []proof) authorship {
	p, err := t.policy(ctx, author, func() (bool, error) { return exists(ctx, t.dns, author) })
	switch {
	case err != nil:
		return authorship{result: TempError}
	case p.at == "":
		return authorship{result: None}
	}
	j := authorship{result: Fail, policy: p}
	unsure := false
	for _, have := range proofs {
		if have.result != Pass && have.result != TempError || have.spf && j.spf || !have.spf && j.dkim {
			continue
		}
		strict := p.strictDKIM
		if have.spf {
			strict = p.strictSPF
		}
		ok, err := t.aligned(ctx, author, have.domain, strict)
		switch {
		case err != nil, ok && have.result == TempError:
			// It may have been a pass: nothing is held against the letter.
			unsure = true
		case ok && have.spf:
			j.spf = true
		case ok:
			j.dkim = true
		}
	}
	switch {
	case j.spf || j.dkim:
		j.result = Pass
	case unsure:
		j.result = TempError
	}
	return j
}

// worst orders what the domains of several authors come to: the one that asks for most counts.
func worst(a, b DMARC) DMARC {
	order := []Result{Pass, None, PermError, TempError, Fail}
	if a.Wish != b.Wish {
		if a.Wish > b.Wish {
			return a
		}
		return b
	}
	if slices.Index(order, a.Result) >= slices.Index(order, b.Result) {
		return a
	}
	return b
}
