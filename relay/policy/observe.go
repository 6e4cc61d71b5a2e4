package policy

import (
	"cmp"
	"context"
	"slices"

	"relayd/relay"
	"relayd/relay/dmarc"
)

// Organization is the Organizational Domain of name (RFC 9989 §4.10.2). An error means that the DNS
// could not be asked.
func Organization(ctx context.Context, dns relay.Resolver, name string) (string, error) {
	t := &tree{dns: dns, seen: map[string]*found{}}
	return t.organization(ctx, name)
}

// observe is the letter in the terms of an aggregate report (RFC 9990 §3.1.1).
func (c *Check) observe(author string, j authorship) *dmarc.Observation {
	o := &dmarc.Observation{Published: j.policy.published(), RUA: j.policy.rua}
	o.Source, o.HeaderFrom, o.EnvelopeFrom = c.letter.Client.String(), author, string(c.letter.From.Domain)
	o.DKIM, o.SPF = passOrFail(j.dkim), passOrFail(j.spf)
	o.Disposition = "none"
	switch {
	case j.result == TempError:
		o.Reasons = []dmarc.Reason{{Type: dmarc.Other, Comment: "the DNS could not be asked"}}
	case j.result == Pass && j.policy.wish > WishNone:
		o.Disposition = "pass"
	case j.result == Fail && j.policy.full != j.policy.wish:
		o.Reasons = []dmarc.Reason{{Type: dmarc.TestMode}}
	}
	o.AuthDKIM = c.signaturesOf(author)
	for _, p := range c.proofs() {
		if p.spf {
			// A null path is checked as postmaster at HELO, and is the same identity (RFC 7208 §2.4).
			o.AuthSPF = []dmarc.AuthSPF{{Domain: p.domain, Scope: "mfrom", Result: string(p.result)}}
		}
	}
	return o
}

func passOrFail(pass bool) string {
	if pass {
		return string(Pass)
	}
	return string(Fail)
}

// signaturesOf are the signatures, those first that say most about the author (RFC 9990 §3.1.3).
func (c *Check) signaturesOf(author string) (all []dmarc.AuthDKIM) {
	for _, s := range c.signatures {
		if s.domain != "" {
			all = append(all, dmarc.AuthDKIM{Domain: s.domain, Selector: s.selector, Result: string(s.result), Human: s.reason})
		}
	}
	rank := func(a dmarc.AuthDKIM) int {
		switch {
		case a.Result != string(Pass):
			return 3
		case a.Domain == author:
			return 0
		case related(a.Domain, author):
			return 1
		}
		return 2
	}
	slices.SortStableFunc(all, func(a, b dmarc.AuthDKIM) int { return cmp.Compare(rank(a), rank(b)) })
	return all
}

// published is the record with its defaults filled in.
func (p policy) published() dmarc.Published {
	mode := map[bool]string{true: "s", false: "r"}
	return dmarc.Published{
		Domain: p.at, Discovery: "treewalk", P: p.p.String(), SP: p.sp.String(), NP: p.np.String(), FO: cmp.Or(p.fo, "0"),
		ADKIM: mode[p.strictDKIM], ASPF: mode[p.strictSPF], Testing: map[bool]string{true: "y", false: "n"}[p.testing],
	}
}
