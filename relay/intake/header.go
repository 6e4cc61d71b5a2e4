package intake

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"relayd/relay"
)

// maxHeader bounds what is held in memory of a letter, and looked at, in octets. The trace fields
// that give a loop away stand at the top of a header, so what lies beyond is taken unseen.
const maxHeader = 256 << 10

// header is what intake looks at in a letter before it stages it. Acceptance never depends on
// the header being well-formed; only loops refuse.
type header struct {
	raw         []byte // the header and, unless it is in rest, whatever of the body was read along with it
	rest        []byte
	end         int  // where in raw the header ends
	whole       bool // all of it was seen
	received    int
	deliveredTo []string // lower case
	from        []string // the values of From, of which there should be one
	visible     string   // what To and Cc say, lower case
	nonASCII    bool
	list        bool   // a mailing list has sent it (RFC 2919)
	results     bool   // there are fields that say what somebody found about the letter
	subject     string // of the first Subject, at most maxSubject octets
}

// maxSubject bounds what is kept of a Subject, in octets.
const maxSubject = 500

// readHeader reads until the empty line that ends the header, the end of the letter, or
// maxHeader; buf is scratch space to begin with, and room is asked before it grows: without room
// what fits into buf is all that is looked at. io.EOF is not an error here: more says whether the
// letter goes on.
func readHeader(body io.Reader, buf []byte, room func() bool) (h header, more bool, err error) {
	more = true
	end, scanned := -1, 0
	for end < 0 && more && len(buf) < maxHeader {
		if len(buf) == cap(buf) {
			if !room() {
				break
			}
			buf = slices.Grow(buf, min(len(buf)+1, maxHeader-len(buf)))
		}
		n, err := body.Read(buf[len(buf):min(cap(buf), maxHeader)])
		buf = buf[:len(buf)+n]
		switch {
		case err == io.EOF:
			more = false
		case err != nil:
			return header{}, false, err
		}
		end = headerEnd(buf, scanned)
		scanned = max(0, len(buf)-3)
	}
	whole := end >= 0 || !more
	if end < 0 {
		end = len(buf)
	}
	h = scanHeader(buf[:end])
	h.raw, h.end, h.whole = buf, end, whole
	// What was not seen may hold anything.
	h.nonASCII = h.nonASCII || !whole
	return h, more, nil
}

// room is a transaction's place among the few whose header may be large. Were there one for
// everybody, a thousand clients with such headers would take hundreds of megabytes.
type room struct {
	places chan struct{}
	inside bool
}

// enter takes a place if one is free and the transaction has none.
func (r *room) enter() bool {
	if !r.inside {
		select {
		case r.places <- struct{}{}:
			r.inside = true
		default:
		}
	}
	return r.inside
}

func (r *room) leave() {
	if r.inside {
		<-r.places
	}
}

// headerEnd finds the octet behind the header's last CRLF, looking from `from` on.
func headerEnd(b []byte, from int) int {
	if bytes.HasPrefix(b, []byte("\r\n")) || startsFolded(b) {
		return 0
	}
	if i := bytes.Index(b[from:], []byte("\r\n\r\n")); i >= 0 {
		return from + i + 2
	}
	return -1
}

// startsFolded says whether the letter begins with a continuation line, which continues nothing:
// the letter has no header (RFC 5322 §2.2.3).
func startsFolded(b []byte) bool { return len(b) > 0 && (b[0] == ' ' || b[0] == '\t') }

func scanHeader(b []byte) header {
	var h header
	var visible strings.Builder
	for field := range fields(b) {
		name, value, ok := bytes.Cut(field, []byte(":"))
		if !ok {
			continue
		}
		switch fieldName(name) {
		case "from":
			h.from = append(h.from, string(value))
		case "subject":
			if h.subject == "" {
				h.subject = string(value[:min(len(value), maxSubject)])
			}
		case "received":
			h.received++
		case "list-id":
			h.list = true
		case "authentication-results", gateField:
			h.results = true
		case "delivered-to":
			h.deliveredTo = append(h.deliveredTo, strings.ToLower(string(bytes.TrimSpace(value))))
		case "to", "cc":
			visible.Write(bytes.ToLower(value))
		}
	}
	h.visible = visible.String()
	h.nonASCII = bytes.ContainsFunc(b, func(r rune) bool { return r >= 0x80 })
	return h
}

// fields yields the header's fields with their folded lines.
func fields(b []byte) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(b) > 0 {
			end := 0
			for {
				i := bytes.Index(b[end:], []byte("\r\n"))
				if i < 0 {
					end = len(b)
					break
				}
				end += i + 2
				if end >= len(b) || b[end] != ' ' && b[end] != '\t' {
					break
				}
			}
			if !yield(b[:end]) {
				return
			}
			b = b[end:]
		}
	}
}

// shows says whether To or Cc name the address, so that naming it again gives nothing away.
func (h header) shows(a relay.Address) bool {
	text, rest := strings.ToLower(a.String()), h.visible
	for {
		before, after, ok := strings.Cut(rest, text)
		if !ok {
			return false
		}
		// joann@ does not show ann@, and office.example.org does not show office.example.
		if !endsInAddress(before) && !startsInAddress(after) {
			return true
		}
		rest = after
	}
}

func endsInAddress(s string) bool   { return s != "" && inAddress(s[len(s)-1]) }
func startsInAddress(s string) bool { return s != "" && inAddress(s[0]) }

func inAddress(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c >= 0x80 || strings.IndexByte("!#$%&'*+-/=?^_`{|}~.", c) >= 0
}

// localTrace is what stands before a letter in a maildir (RFC 5321 §4.4).
func localTrace(env relay.Envelope, h header, received string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Return-Path: %s\r\n", env.From.Path())
	for _, a := range nameable(env.Rcpts, h, func(r relay.Recipient) relay.Address { return r.Addr }) {
		fmt.Fprintf(&b, "Delivered-To: %s\r\n", a)
	}
	b.WriteString(received + h.divider())
	return b.String()
}

// foreignTrace is what stands before a letter that leaves. Where an alias of ours sends it on,
// Delivered-To names the alias: if the letter ever comes back to it, that is a loop.
func foreignTrace(env relay.Envelope, h header, received string) string {
	var b strings.Builder
	for _, a := range nameable(env.Rcpts, h, aliasOf) {
		fmt.Fprintf(&b, "Delivered-To: %s\r\n", a)
	}
	b.WriteString(received + h.divider())
	return b.String()
}

// divider stands between our trace and the letter. One that begins with a continuation line would
// otherwise go on with our Received field, and a stranger's words would look like ours.
func (h header) divider() string {
	if startsFolded(h.raw) {
		return "\r\n"
	}
	return ""
}

// aliasOf is the alias through which a foreign recipient was reached; null when the client named
// the recipient itself.
func aliasOf(r relay.Recipient) relay.Address {
	if orig, err := relay.ParseAddress(r.Orig, true); err == nil && orig != r.Addr {
		return orig
	}
	return relay.Address{}
}

// nameable picks the addresses that Delivered-To may name. All recipients of a letter share one
// file, so where they differ only those are named that To and Cc show anyway: anything more
// would tell one blind recipient of another.
func nameable(rcpts []relay.Recipient, h header, of func(relay.Recipient) relay.Address) []relay.Address {
	var all []relay.Address
	for _, r := range rcpts {
		if a := of(r); !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	if len(all) > 1 {
		all = slices.DeleteFunc(all, func(a relay.Address) bool { return !h.shows(a) })
	}
	return slices.DeleteFunc(all, relay.Address.IsNull)
}

// receivedField is our trace field (RFC 5321 §4.4). The recipient is named only when RCPT TO
// named no other, and the client only when it is not to be hidden.
func receivedField(env relay.Envelope, hostname relay.Domain, only string, hide bool) string {
	var b strings.Builder
	b.WriteString("Received: ")
	if o := env.Origin; o.Client.IsValid() && !hide {
		fmt.Fprintf(&b, "from %s (", o.Helo)
		if o.Name != "" {
			b.WriteString(o.Name + " ")
		}
		fmt.Fprintf(&b, "%s)\r\n\t", literal(o))
	}
	fmt.Fprintf(&b, "by %s (relayd", hostname)
	if name := account(env.Origin); name != "" && !hide {
		b.WriteString(", from the account " + name)
	}
	b.WriteString(")")
	if env.Origin.Proto != "" {
		fmt.Fprintf(&b, " with %s", env.Origin.Proto)
	}
	if env.Origin.TLS != "" {
		fmt.Fprintf(&b, "\r\n\t(%s)", env.Origin.TLS)
	}
	fmt.Fprintf(&b, " id %s", env.ID)
	if only != "" {
		fmt.Fprintf(&b, "\r\n\tfor <%s>", only)
	}
	fmt.Fprintf(&b, "; %s\r\n", env.Accepted.Format(dateFormat))
	return b.String()
}

func literal(o relay.Origin) string {
	addr := o.Client.Addr().Unmap().WithZone("")
	if addr.Is6() {
		return "[IPv6:" + addr.String() + "]"
	}
	return "[" + addr.String() + "]"
}

// now is the time of acceptance, without the monotonic clock so that it survives a record.
func now() time.Time { return time.Now().Round(0) }
