// Package policy, on the way in: relay/intake hands it a letter and where it came from, and gets
// Findings, which say what SPF (RFC 7208), DKIM (RFC 6376, 8301, 8463), DMARC (RFC 9989) and the
// client's name (RFC 8601 §3) come to, and the text of the Authentication-Results field. What is
// done about them is intake's to decide; nothing here knows a reply.
//
// The rule of the way in: a stranger decides how much there is to look at, so everything is
// bounded: signatures, keys, fields, questions, and the time for all of them together. What could
// not be asked is a temporary error and is never held against a letter.
package policy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"relayd/relay"
	"relayd/relay/dmarc"
)

// Letter is what is known of a letter before its body comes.
type Letter struct {
	Client netip.Addr
	Helo   string
	From   relay.Address // of MAIL; null for reports
	// Header is all of it, with CRLF line ends and without the empty line behind.
	Header []byte
	// Fields is how many From fields there are, Authors the domains in them, those of each domain
	// once, in the order of the letter.
	Fields  int
	Authors []relay.Domain
}

// Findings is what the checks came to.
type Findings struct {
	All   []Finding // as Field wants them
	DMARC DMARC
	// Proven says that SPF or DKIM has proven some domain, whether or not it is the author's.
	Proven bool
	// Why says in a few words what failed; for the writer of a letter that is refused.
	Why string
	// Observed is the letter as the report to its author's domain counts it, but for what becomes of
	// it; nil where nobody asks for a report, or there is no one author.
	Observed *dmarc.Observation

	sender spfSender
}

// DMARC is what the domain in From asks for.
type DMARC struct {
	Result Result
	Domain string // in From
	Wish   Wish   // of the domain's owner, for this letter; WishNone unless Result is Fail
	asked  policy
}

// String is the findings as a log shows them: "iprev=pass spf=fail dkim=pass dmarc=pass".
func (f Findings) String() string {
	var parts []string
	for _, one := range f.All {
		if part := one.Method + "=" + string(one.Result); !slices.Contains(parts, part) {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, " ")
}

// maxAuthors bounds how many domains in From are asked about.
const maxAuthors = 10

// deadline is how long all questions about one letter may take together; what is not answered by
// then is a temporary error.
const deadline = 10 * time.Second

// Check looks at one letter. It belongs to one goroutine, which writes the body and then asks for
// the Findings, or calls Cancel.
type Check struct {
	dns    relay.Resolver
	letter Letter
	whole  context.Context // of the letter
	ctx    context.Context // of the questions asked at its beginning
	cancel context.CancelFunc
	work   sync.WaitGroup
	tree   *tree

	iprev, mailfrom, helo Result
	signatures            []*signature
	more                  bool // there are more signatures than that
	tooMany               bool // of the authors
	content               letter
}

// Begin starts all questions beside each other. ctx ends them, and so does deadline. Finish or
// Cancel must follow.
func Begin(ctx context.Context, dns relay.Resolver, l Letter) *Check {
	l.Client = l.Client.Unmap().WithZone("")
	tooMany := len(l.Authors) > maxAuthors
	l.Authors = l.Authors[:min(len(l.Authors), maxAuthors)]
	whole := ctx
	ctx, cancel := context.WithTimeout(ctx, deadline)
	c := &Check{dns: dns, letter: l, whole: whole, tooMany: tooMany, ctx: ctx, cancel: cancel, tree: &tree{dns: dns, seen: map[string]*found{}}}
	c.content.header = fields(string(l.Header))
	c.readSignatures(time.Now())
	c.work.Go(func() { c.iprev = checkIPRev(ctx, dns, l.Client) })
	c.work.Go(c.checkSenders)
	for _, s := range c.signatures {
		if s.result == "" {
			c.work.Go(func() { s.findKey(ctx, dns) })
		}
	}
	for _, a := range l.Authors {
		c.tree.ask(ctx, string(a), c.work.Go)
		if d := string(l.From.Domain); d != "" && !l.From.Domain.IsLiteral() && d != string(a) && related(d, string(a)) {
			c.tree.ask(ctx, d, c.work.Go)
		}
	}
	return c
}

func (c *Check) readSignatures(now time.Time) {
	for _, field := range c.content.header {
		name, _, _ := strings.Cut(field, ":")
		if !strings.EqualFold(strings.TrimRight(name, " \t"), "dkim-signature") {
			continue
		}
		if len(c.signatures) == maxSignatures {
			c.more = true
			return
		}
		s := readSignature(field, now)
		if s.result == "" && c.letter.Fields != 1 {
			// The signer saw one From, and the reader may see the other (RFC 6376 §8.15).
			s.judge(judged(Policy, "there is not exactly one From field"))
		}
		c.signatures = append(c.signatures, s)
		form := 0
		if s.body {
			form = 1
		}
		if s.result == "" && c.content.bodies[form] == nil {
			c.content.bodies[form] = newBodyHash(s.body)
		}
	}
}

// checkSenders asks SPF about HELO and about MAIL FROM; a null path is postmaster at HELO (RFC 7208
// §2.4).
func (c *Check) checkSenders() {
	helo, err := relay.ParseDomain(c.letter.Helo)
	c.helo = None
	if err == nil && !helo.IsLiteral() && strings.Contains(string(helo), ".") {
		done := make(chan struct{})
		go func() {
			defer close(done)
			c.helo = checkSPF(c.ctx, c.dns, c.letter.Client, string(helo), relay.Postmaster.Local, helo)
		}()
		defer func() { <-done }()
	}
	c.mailfrom = None
	if from := c.letter.From; !from.IsNull() && !from.Domain.IsLiteral() && from.Domain != "" {
		c.mailfrom = checkSPF(c.ctx, c.dns, c.letter.Client, c.letter.Helo, from.Local, from.Domain)
	}
}

// checkIPRev says whether the client's name leads back to it (RFC 8601 §3).
func checkIPRev(ctx context.Context, dns relay.Resolver, client netip.Addr) Result {
	names, err := dns.PTR(ctx, client)
	if err != nil {
		return lookupResult(err)
	}
	result := Fail
	for _, name := range names[:min(len(names), 3)] {
		addrs, err := dns.Addrs(ctx, name)
		if err == nil && slices.ContainsFunc(addrs, func(a netip.Addr) bool { return a.Unmap() == client }) {
			return Pass
		}
		if err != nil && lookupResult(err) == TempError {
			result = TempError
		}
	}
	return result
}

func lookupResult(err error) Result {
	if errors.Is(err, relay.ErrNoRecord) {
		return Fail
	}
	return TempError
}

// Write takes the body, in pieces of any size. It never fails.
func (c *Check) Write(p []byte) (int, error) {
	for _, b := range c.content.bodies {
		if b != nil {
			b.write(p)
		}
	}
	return len(p), nil
}

// Cancel ends the questions that are under way and waits for them.
func (c *Check) Cancel() {
	c.cancel()
	c.work.Wait()
}

// Finish waits for the answers and says what they come to.
func (c *Check) Finish() Findings {
	defer c.Cancel()
	for i, b := range c.content.bodies {
		if b != nil {
			c.content.sums[i] = b.close()
		}
	}
	c.work.Wait()
	for _, s := range c.signatures {
		if s.result == "" {
			s.verify(&c.content)
		}
	}
	f := Findings{}
	f.DMARC, f.Observed = c.judge()
	f.All = c.findings(f.DMARC)
	f.Proven = c.mailfrom == Pass || slices.ContainsFunc(c.signatures, func(s *signature) bool { return s.result == Pass })
	f.Why = c.why()
	f.sender = spfSender{letter: c.letter, identity: "mailfrom", result: c.mailfrom}
	if c.letter.From.IsNull() {
		f.sender.identity, f.sender.result = "helo", c.helo
	}
	return f
}

// proofs are the domains that may speak for the author.
func (c *Check) proofs() (all []proof) {
	switch from := c.letter.From; {
	case !from.IsNull():
		all = append(all, proof{string(from.Domain), c.mailfrom, true})
	case c.helo != None:
		helo, _ := relay.ParseDomain(c.letter.Helo)
		all = append(all, proof{string(helo), c.helo, true})
	}
	for _, s := range c.signatures {
		all = append(all, proof{s.domain, s.result, false})
	}
	return all
}

// judge evaluates DMARC for every domain in From. A letter that shows more than one From field, or
// more than one domain, never passes, because nobody knows which of them its reader sees; the
// strictest wish of them all holds.
func (c *Check) judge() (DMARC, *dmarc.Observation) {
	if len(c.letter.Authors) == 0 {
		return DMARC{Result: PermError}, nil
	}
	proofs := c.proofs()
	// The body may have taken longer than the first questions were given.
	ctx, cancel := context.WithTimeout(c.whole, deadline)
	defer cancel()
	var out DMARC
	var seen *dmarc.Observation
	for i, author := range c.letter.Authors {
		j := c.tree.judgeAuthor(ctx, string(author), proofs)
		r, p := j.result, j.policy
		if p.rua != "" && c.letter.Fields == 1 && len(c.letter.Authors) == 1 {
			seen = c.observe(string(author), j)
		}
		if r == Pass && (c.letter.Fields != 1 || len(c.letter.Authors) > 1) {
			r = Fail
		}
		d := DMARC{Result: r, Domain: string(author), asked: p}
		if r == Fail {
			d.Wish = p.wish
		}
		if i == 0 {
			out = d
		} else {
			out = worst(out, d)
		}
	}
	if c.tooMany {
		// Nobody writes like that but to hide the name that would be refused.
		out = worst(out, DMARC{Result: PermError, Domain: out.Domain, Wish: WishQuarantine})
	}
	return out, seen
}

func (c *Check) findings(d DMARC) []Finding {
	all := []Finding{{Method: "iprev", Result: c.iprev, Props: []Prop{{"policy.iprev", c.letter.Client.String()}}}}
	if !c.letter.From.IsNull() {
		all = append(all, Finding{Method: "spf", Result: c.mailfrom, Props: []Prop{{"smtp.mailfrom", c.letter.From.String()}}})
	}
	all = append(all, Finding{Method: "spf", Result: c.helo, Props: []Prop{{"smtp.helo", c.letter.Helo}}})
	for _, s := range c.signatures {
		all = append(all, s.finding(c.signatures))
	}
	if c.more {
		all = append(all, Finding{Method: "dkim", Result: Policy, Reason: fmt.Sprintf("only %d signatures are looked at", maxSignatures)})
	}
	if len(c.signatures) == 0 {
		all = append(all, Finding{Method: "dkim", Result: None})
	}
	dmarc := Finding{Method: "dmarc", Result: d.Result}
	if d.asked.at != "" {
		dmarc.Comment = "p=" + d.asked.wish.String()
	}
	if d.Domain != "" {
		dmarc.Props = []Prop{{"header.from", d.Domain}}
	}
	return append(all, dmarc)
}

// finding tells a signature from the others by the beginning of b= (RFC 6008 §4).
func (s *signature) finding(all []*signature) Finding {
	f := Finding{Method: "dkim", Result: s.result, Reason: s.reason}
	b := s.value[:min(len(s.value), 8)]
	for _, other := range all {
		for other.value != s.value && len(b) < min(len(s.value), 64) && strings.HasPrefix(other.value, b) {
			b = s.value[:len(b)+1]
		}
	}
	for _, p := range []Prop{{"header.d", s.domain}, {"header.s", s.selector}, {"header.a", s.algo}, {"header.b", b}} {
		if p.Value != "" {
			f.Props = append(f.Props, p)
		}
	}
	return f
}

// why says what was tried, shortly: the reply it stands in has one line.
func (c *Check) why() string {
	spf := "SPF has nothing to say"
	if from := c.letter.From; !from.IsNull() {
		spf = fmt.Sprintf("SPF says %s of %s for %s", c.mailfrom, c.letter.Client, short(string(from.Domain)))
	} else if c.helo != None {
		spf = fmt.Sprintf("SPF says %s of %s for %s", c.helo, c.letter.Client, short(c.letter.Helo))
	}
	dkim := "there is no DKIM signature"
	if len(c.signatures) > 0 {
		s := c.signatures[0]
		for _, other := range c.signatures {
			if slices.Contains(c.letter.Authors, relay.Domain(other.domain)) {
				s = other
				break
			}
		}
		dkim = fmt.Sprintf("DKIM says %s for %s", s.result, short(s.domain))
		if s.reason != "" {
			dkim += " (" + s.reason + ")"
		}
	}
	if c.letter.Fields > 1 || len(c.letter.Authors) > 1 {
		dkim += ", and From names more than one author"
	}
	return spf + ", " + dkim
}

// short keeps a stranger's name from filling the reply.
func short(s string) string {
	s = strings.Map(func(r rune) rune {
		if r <= ' ' || r >= 0x7f {
			return '?'
		}
		return r
	}, s)
	if len(s) > 60 {
		s = "..." + s[len(s)-57:]
	}
	return s
}
