package relaytest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// Fault is what a DNS server does instead of answering.
type Fault string

// The faults. FaultTruncate answers UDP with the TC bit and nothing else, TCP rightly.
const (
	FaultNone     Fault = ""
	FaultServfail Fault = "servfail"
	FaultRefused  Fault = "refused"
	FaultNXDomain Fault = "nxdomain"
	FaultDrop     Fault = "drop"
	FaultTruncate Fault = "truncate"
)

// maxAliases bounds the chase of CNAMEs, as recursive servers do.
const maxAliases = 16

// zone is the parsed text of one or more zones. names holds every name that exists, the empty
// non-terminals too: asking those for a record is NODATA, not NXDOMAIN (RFC 8020).
type zone struct {
	records map[string][]dns.RR
	names   map[string]bool
	faults  map[string]Fault
	signed  []string // names; what they are and what is below them
}

// parseZone reads RFC 1035 zone text. Names without a final dot are relative to $ORIGIN, which
// starts as the root, so `office.example MX 10 mail.office.example` is complete. Records without
// a TTL have TTL 0, so that a change of the zone shows at once. A line
// `;fault NAME [TYPE] WHAT` makes NAME misbehave; `;signed NAME` has the answers of NAME and below say
// that DNSSEC vouches for them (AD), to whoever asks with AD or DO.
func parseZone(text string) (*zone, error) {
	text = dedent(text)
	z := &zone{records: map[string][]dns.RR{}, names: map[string]bool{".": true}, faults: map[string]Fault{}}
	for line := range strings.Lines(text) {
		if name, ok := strings.CutPrefix(line, ";signed "); ok {
			z.signed = append(z.signed, dns.CanonicalName(strings.TrimSpace(name)))
		}
		if rest, ok := strings.CutPrefix(line, ";fault "); ok {
			if err := z.addFault(strings.Fields(rest)); err != nil {
				return nil, err
			}
		}
	}
	parser := dns.NewZoneParser(strings.NewReader(text), ".", "zone")
	parser.SetDefaultTTL(0)
	for rr, ok := parser.Next(); ok; rr, ok = parser.Next() {
		z.add(rr)
	}
	if err := parser.Err(); err != nil {
		return nil, fmt.Errorf("relaytest: %w", err)
	}
	return z, nil
}

func (z *zone) add(rr dns.RR) {
	name := dns.CanonicalName(rr.Header().Name)
	z.records[name] = append(z.records[name], rr)
	for off, end := 0, false; !end; off, end = dns.NextLabel(name, off) {
		z.names[name[off:]] = true
	}
}

func (z *zone) addFault(words []string) error {
	if len(words) != 2 && len(words) != 3 {
		return fmt.Errorf("relaytest: ;fault wants NAME [TYPE] WHAT, got %q", words)
	}
	fault := Fault(words[len(words)-1])
	switch fault {
	case FaultServfail, FaultRefused, FaultNXDomain, FaultDrop, FaultTruncate:
	default:
		return fmt.Errorf("relaytest: unknown fault %q", fault)
	}
	z.faults[faultKey(strings.Join(words[:len(words)-1], " "))] = fault
	return nil
}

// faultKey is the one form of "NAME" and "NAME TYPE".
func faultKey(target string) string {
	name, typ, _ := strings.Cut(target, " ")
	return strings.TrimSpace(dns.CanonicalName(name) + " " + strings.ToUpper(typ))
}

func (z *zone) fault(q dns.Question) Fault {
	name := dns.CanonicalName(q.Name)
	if f, ok := z.faults[name+" "+dns.TypeToString[q.Qtype]]; ok {
		return f
	}
	return z.faults[name]
}

// vouches says whether q and every name in m's answer are signed.
func (z *zone) vouches(m *dns.Msg, q dns.Question) bool {
	names := []string{q.Name}
	for _, rr := range m.Answer {
		names = append(names, rr.Header().Name)
	}
	return !slices.ContainsFunc(names, func(name string) bool {
		return !slices.ContainsFunc(z.signed, func(parent string) bool { return dns.IsSubDomain(parent, name) })
	})
}

// answer fills in m as a recursive server would that knows only this zone.
func (z *zone) answer(m *dns.Msg, q dns.Question) {
	name := dns.CanonicalName(q.Name)
	for range maxAliases {
		var alias *dns.CNAME
		found := false
		for _, rr := range z.records[name] {
			if rr.Header().Rrtype == q.Qtype {
				m.Answer = append(m.Answer, rr)
				found = true
			}
			if c, ok := rr.(*dns.CNAME); ok {
				alias = c
			}
		}
		if found || alias == nil {
			z.finish(m, name, found)
			return
		}
		m.Answer = append(m.Answer, alias)
		name = dns.CanonicalName(alias.Target)
	}
	m.Rcode = dns.RcodeServerFailure // a loop of aliases
}

// finish makes the negative answers of RFC 2308, with the SOA that says how long they hold.
func (z *zone) finish(m *dns.Msg, name string, found bool) {
	if found {
		return
	}
	if !z.names[name] {
		m.Rcode = dns.RcodeNameError
	}
	m.Ns = append(m.Ns, z.soa(name))
}

func (z *zone) soa(name string) dns.RR {
	for off, end := 0, false; !end; off, end = dns.NextLabel(name, off) {
		for _, rr := range z.records[name[off:]] {
			if rr.Header().Rrtype == dns.TypeSOA {
				return rr
			}
		}
	}
	return &dns.SOA{
		Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeSOA, Class: dns.ClassINET},
		Ns:  ".", Mbox: ".", Serial: 1,
	}
}

// dedent takes away the indentation that all lines share, so that zone text can be written
// indented in Go source: at the start of a line a blank means "the owner before" (RFC 1035 §5.1).
func dedent(text string) string {
	shared, first := "", true
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) == "" {
			continue
		}
		indent := line[:len(line)-len(strings.TrimLeft(line, " \t"))]
		if first {
			shared, first = indent, false
		}
		for !strings.HasPrefix(indent, shared) {
			shared = shared[:len(shared)-1]
		}
	}
	var b strings.Builder
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, shared); ok {
			b.WriteString(rest)
		} else {
			b.WriteString(strings.TrimLeft(line, " \t"))
		}
	}
	return b.String()
}
