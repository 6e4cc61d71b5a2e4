package dmarc

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"relayd/relay"
)

// reportID is the same for the same report however often it is sent (RFC 9990 §3.5.1), and is the
// unique-id of its file too (§3.1.4).
func reportID(host relay.Domain, a *Account) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %s %d %d", host, a.Published.Domain, a.Begin.Unix(), a.End.Unix()))
	return hex.EncodeToString(sum[:10])
}

// report is the report of an account, from the postmaster of org.
func (s *Sender) report(a *Account) Report {
	return Report{
		Metadata: Metadata{
			OrgName: string(s.From.Domain), Email: s.From.String(), ReportID: reportID(s.Hostname, a),
			Begin: a.Begin.Unix(), End: a.End.Unix() - 1, Generator: s.Generator,
		},
		Published: a.Published,
		Records:   a.Rows,
	}
}

// compose is the letter with the report in it (RFC 9990 §3.5.2).
func (s *Sender) compose(r Report, to relay.Address, now time.Time) ([]byte, error) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if err := r.write(z); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	begin, end := r.Period()
	file := fmt.Sprintf("%s!%s!%d!%d!%s.xml.gz", s.Hostname, r.Published.Domain, r.Metadata.Begin, r.Metadata.End, r.Metadata.ReportID)
	letters := 0
	for _, rec := range r.Records {
		letters += rec.Count
	}
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	line("From: %s", s.From)
	line("To: %s", to)
	line("Subject: Report Domain: %s\r\n Submitter: %s\r\n Report-ID: <%s>", r.Published.Domain, s.Hostname, r.Metadata.ReportID)
	line("Date: %s", now.Format(time.RFC1123Z))
	line("Message-ID: <%s@%s>", r.Metadata.ReportID, s.Hostname)
	line("Auto-Submitted: auto-generated")
	line("MIME-Version: 1.0")
	line("Content-Type: multipart/mixed; boundary=\"=_%s\"", r.Metadata.ReportID)
	line("")
	line("--=_%s\r\nContent-Type: text/plain; charset=us-ascii\r\n", r.Metadata.ReportID)
	line("This is a DMARC aggregate report (RFC 9990) on %d letters from %s\r\nthat reached %s\r\nfrom %s to %s.\r\nThe DMARC record of that domain asks for it.\r\n",
		letters, r.Published.Domain, s.Hostname, begin.Format("2006-01-02 15:04:05 UTC"), end.Format("2006-01-02 15:04:05 UTC"))
	line("--=_%s\r\nContent-Type: application/gzip\r\nContent-Disposition: attachment;\r\n filename=\"%s\"\r\nContent-Transfer-Encoding: base64\r\n", r.Metadata.ReportID, file)
	text := base64.StdEncoding.EncodeToString(packed.Bytes())
	for len(text) > 76 {
		line("%s", text[:76])
		text = text[76:]
	}
	line("%s", text)
	line("--=_%s--", r.Metadata.ReportID)
	return []byte(b.String()), nil
}
