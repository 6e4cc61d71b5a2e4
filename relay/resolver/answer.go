package resolver

import (
	"errors"
	"fmt"
	"time"

	"github.com/miekg/dns"

	"relayd/relay"
)

// How long answers are believed at most, whatever their TTL says. The negative limit is short
// because people mend a missing record and try again.
const (
	maxPositive = time.Hour
	maxNegative = 5 * time.Minute
)

// answer is what the DNS said: records, or negative, which wraps relay.ErrNoRecord.
type answer struct {
	rrs      []dns.RR
	negative error
	ttl      time.Duration // 0: not to be kept
	secure   bool          // DNSSEC vouches for it, by the word of a server we believe
}

var (
	errNoName = fmt.Errorf("NXDOMAIN: %w", relay.ErrNoName)
	errNoData = fmt.Errorf("the name has no record of this type: %w", relay.ErrNoRecord)

	// A server that only points to other servers has not said that the record does not exist
	// (RFC 2308 §2.2.1). Taking it for NODATA would bounce mail.
	errReferral = errors.New("the server gave a referral instead of an answer: it is not recursive")
)

// read takes from m, a reply with NOERROR or NXDOMAIN, the records of type qtype that name has,
// directly or at the end of its aliases. When the chain of aliases leaves m, next is where to
// ask on.
func read(m *dns.Msg, name string, qtype uint16) (ans answer, next string, err error) {
	end, ttl := name, maxPositive
	if qtype != dns.TypeCNAME { // an alias itself is asked for, not what it leads to
		if end, ttl, err = chase(m.Answer, name); err != nil {
			return answer{}, "", err
		}
	}
	for _, rr := range m.Answer {
		if h := rr.Header(); h.Rrtype == qtype && dns.CanonicalName(h.Name) == end {
			ans.rrs = append(ans.rrs, rr)
			ttl = min(ttl, seconds(h.Ttl))
		}
	}
	switch {
	case len(ans.rrs) > 0:
		ans.ttl = ttl
	case m.Rcode == dns.RcodeNameError:
		// The RCODE is about the last name of the chain (RFC 6604 §3).
		ans.negative, ans.ttl = errNoName, min(ttl, negativeTTL(m))
	case end != name:
		return answer{ttl: ttl}, end, nil
	case isReferral(m):
		return answer{}, "", errReferral
	default:
		ans.negative, ans.ttl = errNoData, min(ttl, negativeTTL(m))
	}
	return ans, "", nil
}

// chase follows the CNAMEs among rrs from name to the last target, with the lowest TTL on the way.
func chase(rrs []dns.RR, name string) (end string, ttl time.Duration, err error) {
	ttl = maxPositive
	for range maxAliases + 1 {
		target := ""
		for _, rr := range rrs {
			if c, ok := rr.(*dns.CNAME); ok && dns.CanonicalName(c.Hdr.Name) == name {
				target = dns.CanonicalName(c.Target)
				ttl = min(ttl, seconds(c.Hdr.Ttl))
				break
			}
		}
		if target == "" {
			return name, ttl, nil
		}
		name = target
	}
	return "", 0, errors.New("too many aliases, or aliases in a circle")
}

func isReferral(m *dns.Msg) bool {
	ns := false
	for _, rr := range m.Ns {
		switch rr.(type) {
		case *dns.SOA:
			return false
		case *dns.NS:
			ns = true
		}
	}
	return ns && !m.Authoritative
}

// negativeTTL is RFC 2308 §5: the lesser of the SOA's own TTL and its minimum; without an SOA
// the answer is not kept.
func negativeTTL(m *dns.Msg) time.Duration {
	for _, rr := range m.Ns {
		if soa, ok := rr.(*dns.SOA); ok {
			return min(seconds(min(soa.Hdr.Ttl, soa.Minttl)), maxNegative)
		}
	}
	return 0
}

// seconds is a TTL; the topmost bit makes it zero (RFC 2181 §8).
func seconds(ttl uint32) time.Duration {
	if ttl > 1<<31-1 {
		return 0
	}
	return time.Duration(ttl) * time.Second
}
