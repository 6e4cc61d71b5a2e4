package intake

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"relayd/relay"
	"relayd/relay/dmarc"
	"relayd/relay/policy"
)

// Mode says what follows from what relay/policy finds.
type Mode int

// The modes. PolicyObserve writes the findings into the letter and the log and does nothing else.
const (
	PolicyOff Mode = iota
	PolicyObserve
	PolicyEnforce
)

// Policy is what is done about letters of strangers that are not proven to be their author's.
type Policy struct {
	Mode Mode
	// Except are senders that nothing follows for: "ann@partner.example", "partner.example",
	// "*.partner.example" for every name below one. MAIL FROM and From are compared.
	Except []string
	// ReceivedSPF writes a field Received-SPF too (RFC 7208 §9.1).
	ReceivedSPF bool
}

// fate is what becomes of a letter.
type fate int

const (
	deliver fate = iota
	junk
	refuse
)

// decide is the one place where findings have consequences.
func (p Policy) decide(f policy.Findings, h header, from relay.Address) fate {
	switch wish := f.DMARC.Wish; {
	case p.Mode != PolicyEnforce, wish == policy.WishNone, p.excepts(h, from):
		return deliver
	case wish == policy.WishReject && h.list && f.Proven:
		// A mailing list changes letters, and so breaks their writers' signatures. Refusing them
		// would throw our people off the list (RFC 9989 §7.4); its own proof only spares it that.
		return junk
	case wish == policy.WishReject:
		return refuse
	}
	return junk
}

func (p Policy) excepts(h header, from relay.Address) bool {
	if len(p.Except) == 0 {
		return false
	}
	senders := append(authors(h.from), from)
	return slices.ContainsFunc(senders, func(a relay.Address) bool {
		return a.Domain != "" && slices.ContainsFunc(p.Except, func(pattern string) bool { return isSender(pattern, a) })
	})
}

func isSender(pattern string, a relay.Address) bool {
	if parent, below := strings.CutPrefix(pattern, "*."); below {
		return strings.HasSuffix(string(a.Domain), "."+parent)
	}
	return pattern == string(a.Domain) || strings.EqualFold(pattern, a.String())
}

// isStranger says whether a letter is to be checked. Our own people and networks pass by, and so does
// this machine: where a letter through it came from first, its address does not say.
func (t *transaction) isStranger() bool {
	o := t.env.Origin
	client := o.Client.Addr().Unmap()
	return t.in.dns != nil && client.IsValid() && client != localhost4 && client != localhost6 &&
		!o.Trusted && !t.settings.submitted(o)
}

var (
	localhost4 = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	localhost6 = netip.IPv6Loopback()
)

// examined is a letter that is being checked: its body has to be read to its end before it is known
// what becomes of it, and what its header will say.
type examined struct {
	check *policy.Check // nil where only filters look at it
	body  heldBody
}

// end frees what is held, whether or not the check was finished.
func (e *examined) end() {
	if e != nil {
		if e.check != nil {
			e.check.Cancel()
		}
		e.body.close()
	}
}

// examine checks a stranger's letter, reads its body aside, and decides. Everybody else's letter
// comes back nil, and nothing of it has been read.
func (t *transaction) examine(ctx context.Context, h header, body io.Reader, more bool) (*examined, error) {
	p := t.settings.Policy
	if p.Mode == PolicyOff || !t.isStranger() {
		return nil, nil
	}
	if !h.whole && len(h.raw) < maxHeader {
		// There was no room to look, which passes. Junk would not: whoever takes all the room could
		// have the mail of others thrown there, and his own in unchecked.
		return nil, relay.Fail("intake: examine", relay.ScopeMessage,
			relay.Reply{Code: 451, Status: relay.Status{4, 3, 2}, Text: "too many large headers at a time, please try again later"}, nil)
	}
	if !h.whole {
		// What we did not see might be the From that counts. Acceptance does not depend on it, but
		// nobody hides from the question by a header larger than ours.
		t.env.Junk = p.Mode == PolicyEnforce
		t.results = policy.Field(t.settings.Directory.Hostname, nil)
		return nil, nil
	}
	e := &examined{body: heldBody{dir: t.in.disk.path, pool: &t.in.held}}
	writers := authors(h.from)
	e.check = policy.Begin(ctx, t.in.dns, policy.Letter{
		Client: t.env.Origin.Client.Addr(), Helo: t.env.Origin.Helo, From: t.env.From,
		Header: h.raw[:h.end], Fields: len(h.from), Authors: domains(writers),
	})
	text := h.raw[h.end:]
	if len(text) >= 2 && text[0] == '\r' && text[1] == '\n' {
		text = text[2:]
	}
	e.check.Write(text)
	if more {
		if err := e.body.fill(body, e.check); err != nil {
			e.end()
			return nil, err
		}
	}
	f := e.check.Finish()
	t.env.Auth = f.String()
	t.proven = f.DMARC.Result == policy.Pass
	t.results = policy.Field(t.settings.Directory.Hostname, f.All)
	if p.ReceivedSPF {
		t.results = f.ReceivedSPF(t.settings.Directory.Hostname) + t.results
	}
	what := p.decide(f, h, t.env.From)
	t.observed = p.observed(f, what, p.excepts(h, t.env.From))
	if t.observed != nil {
		t.observed.Report = t.proven && isAggregateReport(h.subject)
	}
	switch what {
	case junk:
		t.env.Junk = true
	case refuse:
		e.end()
		return nil, t.refuseForged(f)
	}
	return e, nil
}

// observed is the letter as the report to its author's domain counts it, with what became of it and
// why that is not what the domain wishes (RFC 9990 §3.1.1.9 and §3.1.6).
func (p Policy) observed(f policy.Findings, what fate, excepted bool) *dmarc.Observation {
	o := f.Observed
	if o == nil {
		return nil
	}
	switch {
	case what == junk:
		o.Disposition = "quarantine"
		if f.DMARC.Wish == policy.WishReject {
			o.Reasons = append(o.Reasons, dmarc.Reason{Type: dmarc.MailingList})
		}
	case what == refuse:
		o.Disposition = "reject"
	case f.DMARC.Wish != policy.WishNone && excepted:
		o.Reasons = append(o.Reasons, dmarc.Reason{Type: dmarc.LocalPolicy, Comment: "the sender is excepted"})
	case f.DMARC.Wish != policy.WishNone:
		o.Reasons = append(o.Reasons, dmarc.Reason{Type: dmarc.LocalPolicy, Comment: "nothing is refused here"})
	}
	return o
}

// isAggregateReport says whether a Subject is that of a DMARC aggregate report (RFC 9990 §3.5.2), as
// those write it who stick to its words and not to its spaces and capitals.
func isAggregateReport(subject string) bool {
	words := strings.ToLower(strings.Join(strings.Fields(subject), " "))
	return strings.Contains(words, "report domain:") && strings.Contains(words, "report-id:")
}

// observe counts the letter for the report, once it is known that it will not come again.
func (t *transaction) observe() {
	if t.observed != nil && t.in.observe != nil {
		t.in.observe(*t.observed)
	}
	t.observed = nil
}

// refuseForged says which check failed and whom to ask: the writer, who may be honest, reads it in a
// report.
func (t *transaction) refuseForged(f policy.Findings) error {
	dir := t.settings.Directory
	home := dir.Default
	if home == "" {
		home = dir.Hostname
	}
	author := f.DMARC.Domain
	if len(author) > 60 {
		author = "..." + author[len(author)-57:]
	}
	return relay.Refuse("intake: receive", 550, "5.7.26", fmt.Sprintf(
		"%s asks to refuse mail that is not proven to be its own (DMARC): %s; ask whoever runs the mail of %s, or postmaster@%s from another address",
		author, f.Why, author, home))
}

// authors are the addresses in From. Where it cannot be read as the RFC says, everything behind an
// "@" counts: a reader's program may be less strict than we are.
func authors(from []string) (all []relay.Address) {
	for _, value := range from {
		found, ok := mailboxes(value)
		for _, m := range found {
			if a, err := m.address(""); err == nil {
				all = append(all, a)
			}
		}
		if !ok {
			all = append(all, behindAt(value)...)
		}
	}
	return all
}

// maxBehindAt bounds what is made of a From that cannot be read.
const maxBehindAt = 100

func behindAt(value string) (all []relay.Address) {
	for part := range strings.SplitSeq(value, "@") {
		end := strings.IndexFunc(part, func(r rune) bool {
			return !(r == '.' || r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= 0x80)
		})
		if end >= 0 {
			part = part[:end]
		}
		if d, err := relay.ParseDomain(strings.Trim(part, ".")); err == nil && strings.Contains(string(d), ".") && len(all) < maxBehindAt {
			all = append(all, relay.Address{Domain: d})
		}
	}
	return all
}

func domains(all []relay.Address) (out []relay.Domain) {
	for _, a := range all {
		if a.Domain != "" && !a.Domain.IsLiteral() && !slices.Contains(out, a.Domain) {
			out = append(out, a.Domain)
		}
	}
	return out
}

func isFindings(name string) bool { return name == "authentication-results" || name == gateField }

// withoutClaims takes out of the header what somebody else wrote under our name: our readers would
// believe it (RFC 8601 §5).
func (h header) withoutClaims(id relay.Domain) header {
	if !h.results {
		return h
	}
	var kept []byte
	forged := false
	for field := range fields(h.raw[:h.end]) {
		name, value, ok := strings.Cut(string(field), ":")
		if ok && isFindings(fieldName([]byte(name))) && policy.Claims(value, id) {
			forged = true
			continue
		}
		kept = append(kept, field...)
	}
	if !forged {
		return h
	}
	h.rest = append(h.raw[h.end:len(h.raw):len(h.raw)], h.rest...)
	h.raw, h.end = kept, len(kept)
	return h
}
