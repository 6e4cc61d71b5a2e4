package relay

import (
	"fmt"
	"strings"
	"time"
)

// STSMode is what is to be done with a mail host that does not meet its domain's policy (RFC 8461 §5).
type STSMode string

// The modes. The zero STSMode is that of a domain without a policy, and means STSNone.
const (
	STSEnforce STSMode = "enforce" // no mail goes there
	STSTesting STSMode = "testing" // it gets its mail, and somebody is told
	STSNone    STSMode = "none"
)

// STSPolicy is what a domain says about its mail hosts (RFC 8461 §3.2). delivery/mtasts finds it
// and delivery/mx obeys.
type STSPolicy struct {
	Mode STSMode
	MX   []string      // canonical domains, or "*." and one
	Age  time.Duration // for how long it holds once fetched
	// Problem says that what the domain has now cannot be had, in a word of RFC 8460 §4.3 such as
	// TLSSTSFetch; the rest is then what was known before, if anything.
	Problem string
}

// Lines is the policy as its domain writes it (RFC 8461 §3.2); none for a domain without one.
func (p STSPolicy) Lines() []string {
	if p.Mode == "" {
		return nil
	}
	lines := []string{"version: STSv1", "mode: " + string(p.Mode)}
	for _, mx := range p.MX {
		lines = append(lines, "mx: "+mx)
	}
	return append(lines, fmt.Sprintf("max_age: %d", p.Age/time.Second))
}

// Allows says whether host is one of the policy's. A star stands for one label (RFC 8461 §4.1).
func (p STSPolicy) Allows(host Domain) bool {
	_, parent, _ := strings.Cut(string(host), ".")
	for _, pattern := range p.MX {
		below, star := strings.CutPrefix(pattern, "*.")
		if star && parent == below || !star && pattern == string(host) {
			return true
		}
	}
	return false
}
