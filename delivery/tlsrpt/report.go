package tlsrpt

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"relayd/relay"
)

// report is one report (RFC 8460 §4.4).
type report struct {
	Organization string    `json:"organization-name"`
	Range        dateRange `json:"date-range"`
	Contact      string    `json:"contact-info"`
	ID           string    `json:"report-id"`
	Policies     []Policy  `json:"policies"`

	domain    relay.Domain
	submitter relay.Domain
}

type dateRange struct {
	Start time.Time `json:"start-datetime"`
	End   time.Time `json:"end-datetime"`
}

// newReport makes the report of c, up to now where its day is not over. Two tries for the same time have
// the same ID, so that who gets it twice can tell.
func newReport(c Counts, hostname relay.Domain, now time.Time) report {
	end := c.Day.Add(day - time.Second)
	if now.Before(end) {
		end = now.UTC().Truncate(time.Second)
	}
	return report{
		Organization: string(hostname), Contact: "postmaster@" + string(hostname),
		Range:    dateRange{c.Day, end},
		ID:       fmt.Sprintf("%d-%d.%s@%s", c.Day.Unix(), end.Unix(), c.Domain, hostname),
		Policies: c.Policies, domain: c.Domain, submitter: hostname,
	}
}

// file is the name of the report (RFC 8460 §5.1).
func (r report) file() string {
	return fmt.Sprintf("%s!%s!%d!%d.json.gz", r.submitter, r.domain, r.Range.Start.Unix(), r.Range.End.Unix())
}

// packed is the report as it travels: JSON in gzip.
func (r report) packed() ([]byte, error) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	out := json.NewEncoder(z)
	out.SetEscapeHTML(false)
	if err := out.Encode(r); err != nil {
		return nil, fmt.Errorf("tlsrpt: %w", err)
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("tlsrpt: %w", err)
	}
	return b.Bytes(), nil
}

// letter is the report as a letter with CRLF line ends (RFC 8460 §5.3). TLS-Required: No has it delivered
// though TLS with the domain is broken, which may be what it tells of (RFC 8689 §3).
func (r report) letter(id relay.ID, to relay.Address, now time.Time, packed []byte) []byte {
	var b bytes.Buffer
	boundary := "tlsrpt=_" + string(id) // neither base64 nor the text below has "=_"
	fmt.Fprintf(&b, "From: \"relayd\" <postmaster@%s>\r\nTo: %s\r\n", r.submitter, to)
	fmt.Fprintf(&b, "Subject: Report Domain: %s\r\n Submitter: %s\r\n Report-ID: <%s>\r\n", r.domain, r.submitter, r.ID)
	fmt.Fprintf(&b, "Date: %s\r\nMessage-ID: <%s.tlsrpt@%s>\r\n", now.Format(time.RFC1123Z), id, r.submitter)
	fmt.Fprintf(&b, "TLS-Report-Domain: %s\r\nTLS-Report-Submitter: %s\r\nTLS-Required: No\r\n", r.domain, r.submitter)
	b.WriteString("Auto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n")
	fmt.Fprintf(&b, "Content-Type: multipart/report; report-type=\"tlsrpt\";\r\n boundary=\"%s\"\r\n\r\n", boundary)
	fmt.Fprintf(&b, "--%s\r\nContent-Type: text/plain; charset=us-ascii\r\nContent-Transfer-Encoding: 7bit\r\n\r\n", boundary)
	b.WriteString(r.text())
	fmt.Fprintf(&b, "\r\n--%s\r\nContent-Type: application/tlsrpt+gzip\r\nContent-Transfer-Encoding: base64\r\n", boundary)
	fmt.Fprintf(&b, "Content-Disposition: attachment;\r\n filename=\"%s\"\r\n\r\n", r.file())
	text := base64.StdEncoding.EncodeToString(packed)
	for len(text) > 0 {
		n := min(len(text), 76)
		b.WriteString(text[:n] + "\r\n")
		text = text[n:]
	}
	fmt.Fprintf(&b, "\r\n--%s--\r\n", boundary)
	return b.Bytes()
}

// text is the part for people.
func (r report) text() string {
	c := Counts{Policies: r.Policies}
	sum := c.sum()
	return fmt.Sprintf("This is a report of the mail server %s about TLS with the mail\r\n"+
		"servers of %s (RFC 8460), from %s\r\nto %s.\r\n\r\n"+
		"Sessions that went as they should: %d\r\nSessions that failed:              %d\r\n\r\n"+
		"The attachment has the details. The domain asks for such reports in its\r\n"+
		"TXT record _smtp._tls.%s.\r\n", r.submitter, r.domain, r.Range.Start.Format(time.RFC3339),
		r.Range.End.Format(time.RFC3339), sum.Good, sum.Bad, r.domain)
}
