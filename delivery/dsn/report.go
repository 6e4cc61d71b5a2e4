package dsn

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"slices"
	"time"

	"relayd/relay"
)

// Kind is what a report tells of (RFC 3464 §2.3.3, Action).
type Kind string

// The kinds. Relayed means that the letter went to a server that sends no reports itself; AfterAll,
// that one whose sender was told of a delay did so, which its Action calls relayed too.
const (
	Failed    Kind = "failed"
	Delayed   Kind = "delayed"
	Relayed   Kind = "relayed"
	Delivered Kind = "delivered"
	AfterAll  Kind = "after all"
)

// ErrNullSender: nobody is told about a letter without a sender (RFC 5321 §6.1).
var ErrNullSender = errors.New("dsn: no report about a letter with a null sender")

// Report is everything a report says.
type Report struct {
	Kind         Kind
	ID           relay.ID       // the report's own; becomes its Message-ID and part boundary
	Now          time.Time      // becomes its Date
	ReportingMTA relay.Domain   // our host name
	Envelope     relay.Envelope // of the letter it is about
	Results      []relay.Result // one for each recipient it is about; a Failed one whose reply is temporary has expired
	Next         time.Time      // Delayed: the next attempt, if known
	Until        time.Time      // Delayed: when we give up
	Mute         bool           // with Stead: the sender's address takes no mail
	Stead        relay.Address  // who reads it in place of a sender who must not be told; null: the sender does
	Language     string         // of the part for people, one of Languages; others are English

	// OriginalHeader is the header of the letter, or the beginning of the letter; what goes
	// beyond the header or 32 KiB is left out.
	OriginalHeader []byte
	// Whole says that OriginalHeader is the whole letter, and that its sender wants it back (RFC
	// 3461 §4.3). One that every server on the way could not carry as it is goes back as its header;
	// EightBit says that they carry octets above 127.
	Whole, EightBit bool
}

// Compose writes the report as a letter with CRLF line ends. The only errors are ErrNullSender,
// a report without results, and those of w.
func Compose(w io.Writer, r Report) error {
	if r.Envelope.From.IsNull() {
		return ErrNullSender
	}
	if len(r.Results) == 0 {
		return fmt.Errorf("dsn: report about %s without a result", r.Envelope.ID)
	}
	r = r.localised()
	original := parseOriginal(r.OriginalHeader)
	human, status := r.human(original), r.status()
	b := &builder{boundary: boundary(r.ID, human, status, original.text, r.OriginalHeader)}
	b.header(r, original)
	b.part("text/plain; charset=utf-8"+r.contentLanguage(), "Notification", human)
	b.part(r.statusType(), "Delivery report", status)
	if transfer := r.wholeTransfer(); transfer != "" {
		b.whole(original.wholeType(), transfer, r.OriginalHeader)
	} else if len(original.text) > 0 {
		b.part(original.mediaType(), "Header of the message", original.text)
	}
	fmt.Fprintf(b, "\r\n--%s--\r\n", b.boundary)
	if _, err := w.Write(b.Bytes()); err != nil {
		return fmt.Errorf("dsn: %w", err)
	}
	return nil
}

// contentLanguage names the language of a part that is not English, as a field behind its type (RFC 3282).
func (r Report) contentLanguage() string {
	if lang := language(r.Language); lang > 0 {
		return "\r\nContent-Language: " + Languages[lang]
	}
	return ""
}

// localised is the report with all times in the zone of its Date, which is the one people here
// live by; stored times come in UTC.
func (r Report) localised() Report {
	zone := r.Now.Location()
	r.Envelope.Accepted, r.Next, r.Until = r.Envelope.Accepted.In(zone), r.Next.In(zone), r.Until.In(zone)
	r.Results = slices.Clone(r.Results)
	for i := range r.Results {
		r.Results[i].At = r.Results[i].At.In(zone)
	}
	return r
}

// builder is the letter as it grows.
type builder struct {
	bytes.Buffer
	boundary string
}

func (b *builder) header(r Report, original original) {
	from := relay.Address{Local: "postmaster", Domain: r.ReportingMTA}
	to := r.Envelope.From
	if !r.Stead.IsNull() {
		to = r.Stead
	}
	if to.Domain == "" { // <postmaster>, which a header field cannot say
		to.Domain = r.ReportingMTA
	}
	b.field("From", `"Mail Delivery System" <`+from.String()+">")
	// Not folded: the address may hold blanks between quotes, and it is bounded.
	fmt.Fprintf(b, "To: %s\r\n", to)
	b.field("Subject", mime.QEncoding.Encode("utf-8", r.subject()))
	b.field("Date", r.Now.Format(time.RFC1123Z))
	b.field("Message-ID", fmt.Sprintf("<%s.report@%s>", r.ID, r.ReportingMTA))
	if original.messageID != "" {
		b.field("In-Reply-To", original.messageID)
		b.field("References", original.messageID)
	}
	b.field("Auto-Submitted", "auto-replied")
	b.field("MIME-Version", "1.0")
	if r.wholeTransfer() == "8bit" {
		b.field("Content-Transfer-Encoding", "8bit") // as one of its parts (RFC 2045 §6.4)
	}
	fmt.Fprintf(b, "Content-Type: multipart/report; report-type=delivery-status;\r\n boundary=\"%s\"\r\n", b.boundary)
	b.WriteString("\r\nThis is a report about the delivery of a message, in MIME format.\r\n")
}

func (b *builder) field(name, value string) { b.WriteString(fold(name + ": " + value)) }

// part adds one part, as it is where it is plain enough for every server on the way, otherwise
// quoted-printable.
func (b *builder) part(mediaType, description string, content []byte) {
	fmt.Fprintf(b, "\r\n--%s\r\nContent-Type: %s\r\nContent-Description: %s\r\n", b.boundary, mediaType, description)
	if !plain(content) {
		b.WriteString("Content-Transfer-Encoding: quoted-printable\r\n\r\n")
		b.quotedPrintable(content)
		return
	}
	b.WriteString("Content-Transfer-Encoding: 7bit\r\n\r\n")
	b.Write(content)
}

// boundary is text that occurs in none of the parts.
func boundary(id relay.ID, parts ...[]byte) string {
	s := "report=_" + string(id)
	for all := bytes.Join(parts, nil); bytes.Contains(all, []byte(s)); {
		s += "_"
	}
	return s
}
