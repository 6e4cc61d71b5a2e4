package dsn

import (
	"bytes"
	"strings"
	"time"
	"unicode/utf8"

	"relayd/relay"
)

// maxDiagnostic bounds a remote's words in the fields, in octets.
const maxDiagnostic = 2000

// expired is X.4.7, delivery time expired (RFC 3463 §3.5). The class stays 4: what stopped the
// letter was never final.
var expired = relay.Status{4, 4, 7}

// international says whether the letter had addresses beyond ASCII: whoever reads a report about it
// knows the types of RFC 6533.
func (r Report) international() bool {
	if r.Envelope.UTF8 || !r.Envelope.From.IsASCII() {
		return true
	}
	for _, rcpt := range r.Envelope.Rcpts {
		if strings.HasPrefix(rcpt.ORcpt, "utf-8;") {
			return true
		}
	}
	for _, res := range r.Results {
		if !res.Rcpt.IsASCII() {
			return true
		}
	}
	return false
}

// statusType is the type of the part for programs. The letter stays ASCII all the same, because the
// international type may be coded for the way (RFC 6533 §4).
func (r Report) statusType() string {
	if r.international() {
		return "message/global-delivery-status"
	}
	return "message/delivery-status"
}

// status is the part for programs (RFC 3464 §2).
func (r Report) status() []byte {
	var b bytes.Buffer
	field := func(name, value string) {
		if value != "" {
			b.WriteString(fold(name + ": " + value))
		}
	}
	field("Original-Envelope-Id", ascii(r.Envelope.EnvID, relay.MaxEnvID))
	field("Reporting-MTA", "dns; "+string(r.ReportingMTA))
	field("X-Relayd-Queue-ID", string(r.Envelope.ID))
	field("X-Relayd-Sender", r.typedAddress(r.Envelope.From.String()))
	field("Arrival-Date", date(r.Envelope.Accepted))
	if !r.Envelope.Release.IsZero() {
		field("Future-Release-Request", "until; "+r.Envelope.Release.UTC().Format(time.RFC3339)) // RFC 4865 §8
	}
	field("Deliver-By-Date", date(r.Envelope.By.At)) // RFC 2852 §6
	for _, res := range r.Results {
		b.WriteString("\r\n")
		field("Original-Recipient", r.originalRecipient(res.Rcpt))
		field("Final-Recipient", r.typedAddress(res.Rcpt.String()))
		field("Action", string(r.action()))
		field("Status", r.statusOf(res).String())
		field("Remote-MTA", remoteMTA(res.Host))
		field("Diagnostic-Code", diagnostic(res))
		field("Last-Attempt-Date", date(res.At))
		if r.Kind == Delayed {
			field("Will-Retry-Until", date(r.Until))
		}
	}
	return b.Bytes()
}

func (r Report) action() Kind {
	switch r.Kind {
	case Delayed, Relayed, Delivered:
		return r.Kind
	case AfterAll:
		return Relayed
	}
	return Failed
}

// originalRecipient is what the sender's own server called the recipient (RFC 3461 §4.2), or what the
// sender said to us.
func (r Report) originalRecipient(rcpt relay.Address) string {
	for _, known := range r.Envelope.Rcpts {
		kind, addr, ok := strings.Cut(known.ORcpt, ";")
		switch {
		case known.Addr != rcpt || !ok:
		case kind == "utf-8":
			return r.typedAddress(addr)
		default:
			return ascii(kind, 40) + "; " + ascii(addr, relay.MaxORcpt)
		}
	}
	if orig := r.orig(rcpt); orig != "" {
		return r.typedAddress(orig)
	}
	return ""
}

// orig is what the sender called the recipient, where that is not the address we sent to.
func (r Report) orig(rcpt relay.Address) string {
	for _, known := range r.Envelope.Rcpts {
		orig := strings.TrimSuffix(strings.TrimPrefix(known.Orig, "<"), ">")
		if known.Addr == rcpt && orig != "" && !strings.EqualFold(orig, rcpt.String()) {
			return printable(orig, relay.MaxPath)
		}
	}
	return ""
}

// statusOf is the status of the remote where it gave one of the right class, otherwise one that
// says no more than we know.
func (r Report) statusOf(res relay.Result) relay.Status {
	class := map[Kind]int{Failed: 5, Delayed: 4, Relayed: 2, Delivered: 2}[r.action()]
	switch {
	case r.action() == Failed && isExpired(res):
		return expired
	case res.Reply.Status[0] == class:
		return res.Reply.Status
	}
	return relay.Status{class, 0, 0}
}

// isExpired: a letter that failed though the last reply allowed another attempt ran out of time.
func isExpired(res relay.Result) bool {
	return res.Outcome == relay.Failed && res.Reply.Temporary()
}

// typedAddress is an address with its type (RFC 6533 §3): as it is where the part is international,
// otherwise with escapes for what is not ASCII, which every program can carry.
func (r Report) typedAddress(addr string) string {
	isASCII := true
	for _, c := range addr {
		isASCII = isASCII && c < utf8.RuneSelf
	}
	if isASCII {
		// Blanks between quotes would be folded, and folding would be unfolded to one blank again.
		return "rfc822; " + addr
	}
	if r.international() {
		return "utf-8; " + addr
	}
	return "utf-8; " + relay.UnicodeXtext(addr)
}

// remoteMTA is the name out of "mx1.partner.example[192.0.2.7]:25", or the address.
func remoteMTA(host string) string {
	host, _, _ = strings.Cut(ascii(host, relay.MaxDomain), " ")
	name, addr, _ := strings.Cut(host, "[")
	if name == "" && addr != "" {
		name, _, _ = strings.Cut("["+addr, "]")
		name += "]"
	}
	if name == "" || name[0] == '/' { // a socket here
		return ""
	}
	return "dns; " + name
}

// diagnostic is the reply of the remote; our own words get a type of our own.
func diagnostic(res relay.Result) string {
	text := ascii(res.Reply.String(), maxDiagnostic)
	switch {
	case text == "":
		return ""
	case res.Host == "" || res.Reply.Code == 0:
		return "x-relayd; " + text
	}
	return "smtp; " + text
}

func date(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Format(time.RFC1123Z)
}
