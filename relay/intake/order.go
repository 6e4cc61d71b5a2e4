package intake

import (
	"bytes"
	"fmt"
	"strings"

	"relayd/relay"
)

// submitted says whether a letter comes from one of our own people's mail programs (RFC 6409) or
// machines, who expect it to be put in order. Everybody else's letters are passed on octet for octet.
func (s *Settings) submitted(o relay.Origin) bool {
	return s.device(o) != nil || o.Service == ServiceLocal || o.User != "" || strings.HasPrefix(o.Service, "submission")
}

// maxCompleted bounds how many names of one letter are given a domain.
const maxCompleted = 1000

// tidying puts the header of one submitted letter in order (RFC 6409 §8).
type tidying struct {
	dir       *Directory
	device    *Device // nil for other programs
	env       relay.Envelope
	home      relay.Domain // what a name without a domain belongs to
	kept      bytes.Buffer
	seen      map[string]bool
	completed int
}

// putInOrder checks who a submitted letter claims to be from, adds From, Date and Message-ID where
// they are missing, removes Bcc, and completes names of ours that stand without a domain. The
// header is held in memory, hence its limit.
func (t *transaction) putInOrder(h header) (header, error) {
	if !t.settings.submitted(t.env.Origin) {
		return h, nil
	}
	if !h.whole {
		return h, relay.Refuse("intake: receive", 552, "5.3.4", fmt.Sprintf("the header is larger than %d KiB", maxHeader>>10))
	}
	dir := t.settings.Directory
	home := dir.userOf(t.env.Origin).Domain
	if home == "" {
		home = dir.Default
	}
	device := t.settings.device(t.env.Origin)
	if !device.rewritten() {
		if err := dir.checkFrom(t.env.Origin, h.from, home); err != nil {
			return h, err
		}
	}
	y := tidying{dir: dir, device: device, env: t.env, home: home, seen: map[string]bool{}}
	for field := range fields(h.raw[:h.end]) {
		y.field(field)
	}
	missing := y.missing()
	if device != nil {
		missing += y.deviceMissing(bytes.TrimPrefix(h.raw[h.end:], []byte("\r\n")))
	}
	head := append([]byte(missing), y.kept.Bytes()...)
	if startsFolded(h.raw) {
		head = append(head, "\r\n"...) // see divider
	}
	ordered := scanHeader(head)
	ordered.raw, ordered.rest, ordered.end, ordered.whole = head, h.raw[h.end:], len(head), true
	return ordered, nil
}

func (y *tidying) field(field []byte) {
	name, value, ok := bytes.Cut(field, []byte(":"))
	if !ok {
		y.kept.Write(field)
		return
	}
	key := fieldName(name)
	if y.device.rewritten() && (key == "from" || key == "sender") {
		y.kept.WriteString("X-Original-")
		y.kept.Write(field)
		return
	}
	y.seen[key] = true
	switch key {
	case "bcc", "resent-bcc":
		return
	case "from", "sender", "reply-to", "to", "cc":
		y.kept.Write(field[:len(field)-len(value)])
		y.kept.WriteString(y.complete(string(value)))
	default:
		y.kept.Write(field)
	}
}

// complete gives the names in an address field that are ours their domain. What it cannot read it
// leaves alone.
func (y *tidying) complete(value string) string {
	found, _ := mailboxes(value)
	var b strings.Builder
	done := 0
	for _, m := range found {
		if strings.Contains(m.text, "@") || y.completed == maxCompleted {
			continue
		}
		a, err := m.address(y.home)
		if err != nil {
			continue
		}
		y.completed++
		// A word that nobody here is called by may be half of a name with a comma in it.
		if _, err := y.dir.Classify(relay.Origin{}, a); err != nil && !y.isAccount(m.text) {
			continue
		}
		b.WriteString(value[done:m.end] + "@" + string(y.home))
		done = m.end
	}
	return b.String() + value[done:]
}

// missing is what the writer's program should have written and did not.
func (y *tidying) missing() string {
	var b strings.Builder
	if a := y.writer(); !y.seen["from"] && !a.IsNull() {
		fmt.Fprintf(&b, "From: %s\r\n", a)
	}
	if !y.seen["date"] {
		fmt.Fprintf(&b, "Date: %s\r\n", y.env.Accepted.Format(dateFormat))
	}
	if !y.seen["message-id"] {
		fmt.Fprintf(&b, "Message-ID: <%s@%s>\r\n", y.env.ID, y.dir.Hostname)
	}
	return b.String()
}

// writer is who a letter without From is from.
func (y *tidying) writer() relay.Address {
	a := y.env.From
	if a.IsNull() {
		a = y.dir.userOf(y.env.Origin)
	}
	if !a.IsASCII() && !y.env.UTF8 {
		return relay.Address{}
	}
	return a
}

// dateFormat is that of RFC 5322 §3.3.
const dateFormat = "Mon, 2 Jan 2006 15:04:05 -0700"

// fieldName is the name in front of a field's colon, in lower case.
func fieldName(name []byte) string { return strings.ToLower(strings.TrimRight(string(name), " \t")) }
