package tlsrpt

import (
	"slices"
	"time"

	"relayd/relay"
)

// Bounds of what is counted. The first is in octets, roughly, of all there is.
const (
	maxSize     = 4 << 20
	maxPolicies = 20  // of a domain and day
	maxDetails  = 100 // of a policy; further failures are in its summary alone
	maxLines    = 50  // of a policy's text
	maxText     = 4 << 10
)

// Counts is how the sessions of one day with the hosts of one domain went, and where its report stands.
type Counts struct {
	Day      time.Time    `json:"day"` // its beginning, UTC
	Domain   relay.Domain `json:"domain"`
	Policies []Policy     `json:"policies"`
	Sent     []string     `json:"sent,omitempty"` // where the report has arrived, of several places
	Next     time.Time    `json:"next,omitzero"`  // of the next try, after one that failed

	size int
}

// Policy counts the sessions that were held against one policy, in the form of a report (RFC 8460 §4.4).
type Policy struct {
	Policy  relay.TLSPolicy `json:"policy"`
	Summary Summary         `json:"summary"`
	Details []Detail        `json:"failure-details,omitempty"`
}

// Summary is the number of sessions.
type Summary struct {
	Good int64 `json:"total-successful-session-count"`
	Bad  int64 `json:"total-failure-session-count"`
}

// Detail counts one way of failing.
type Detail struct {
	relay.TLSFailure
	Count int64 `json:"failed-session-count"`
}

// sum is the sessions of all policies.
func (c *Counts) sum() (s Summary) {
	for _, p := range c.Policies {
		s.Good += p.Summary.Good
		s.Bad += p.Summary.Bad
	}
	return s
}

// add counts a session. Its policy or its failure may be new where there is room for so many octets;
// add returns how many it took.
func (c *Counts) add(s relay.TLSSession, room int) int {
	took := 0
	i := slices.IndexFunc(c.Policies, func(p Policy) bool { return same(p.Policy, s.Policy) })
	if i < 0 {
		size := sizeOf(s.Policy)
		if len(c.Policies) >= maxPolicies || size > room {
			return 0
		}
		i, took = len(c.Policies), size
		c.Policies = append(c.Policies, Policy{Policy: s.Policy})
	}
	p := &c.Policies[i]
	if s.Failure.Result == "" {
		p.Summary.Good++
		return took
	}
	p.Summary.Bad++
	for j := range p.Details {
		if p.Details[j].TLSFailure == s.Failure {
			p.Details[j].Count++
			return took
		}
	}
	if size := detailSize(s.Failure); len(p.Details) < maxDetails && took+size <= room {
		p.Details = append(p.Details, Detail{s.Failure, 1})
		took += size
	}
	return took
}

func same(a, b relay.TLSPolicy) bool {
	return a.Type == b.Type && a.Domain == b.Domain && slices.Equal(a.Text, b.Text) && slices.Equal(a.MX, b.MX)
}

// What a part of Counts takes in memory, roughly.
const (
	countsSize = 200
	policySize = 200
)

func sizeOf(p relay.TLSPolicy) int {
	n := policySize + len(p.Domain)
	for _, line := range slices.Concat(p.Text, p.MX) {
		n += 20 + len(line)
	}
	return n
}

func detailSize(f relay.TLSFailure) int {
	return 150 + len(f.Host) + len(f.Reason)
}

func (c *Counts) measure() {
	c.size = countsSize + len(c.Domain)
	for _, p := range c.Policies {
		c.size += sizeOf(p.Policy)
		for _, d := range p.Details {
			c.size += detailSize(d.TLSFailure)
		}
	}
}

// bounded cuts a policy that is longer than a report should be. TLSA records may hold certificates.
func bounded(p relay.TLSPolicy) relay.TLSPolicy {
	size := 0
	cut := func(lines []string) []string {
		for i, line := range lines {
			if size += len(line); i == maxLines || size > maxText {
				return slices.Clip(lines[:i])
			}
		}
		return lines
	}
	p.Text = cut(p.Text)
	p.MX = cut(p.MX)
	return p
}
