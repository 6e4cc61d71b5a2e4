package ctl

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/quotedprintable"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"relayd/relay"
)

// Limits of a letter written here.
const (
	maxLetter = 512 << 20 // octets; the server's own limit is usually smaller
	maxLine   = 998       // octets of a line without its CRLF (RFC 5322 §2.1.1)
	foldAt    = 76        // octets
)

// readLetter reads text with LF or CRLF line ends and gives it CRLF. A bare CR stays, for the
// server to refuse.
func readLetter(r io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxLetter+1))
	if err != nil {
		return nil, fmt.Errorf("reading the letter: %w", err)
	}
	if len(text) > maxLetter {
		return nil, fmt.Errorf("the letter is larger than %s", size(maxLetter))
	}
	return withCRLF(text), nil
}

func withCRLF(text []byte) []byte {
	if bytes.Count(text, []byte("\n")) == bytes.Count(text, []byte("\r\n")) {
		return text
	}
	text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	return bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n"))
}

// compose makes a letter of plain text.
func compose(subject string, body []byte) ([]byte, error) {
	folded, err := foldSubject(subject)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "Subject: %s\r\n", folded)
	switch {
	case awkward(body):
		fmt.Fprintf(&b, "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=%s\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n", charset(body))
		w := quotedprintable.NewWriter(&b)
		w.Write(body) // into memory, and so without an error
		w.Close()
	case !isASCII(body):
		fmt.Fprintf(&b, "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=%s\r\nContent-Transfer-Encoding: 8bit\r\n\r\n", charset(body))
		b.Write(body)
	default:
		b.WriteString("\r\n")
		b.Write(body)
	}
	return b.Bytes(), nil
}

// awkward says whether text cannot travel as it is: long lines, bare CR, NUL.
func awkward(text []byte) bool {
	if bytes.IndexByte(text, 0) >= 0 || bytes.Count(text, []byte("\r")) != bytes.Count(text, []byte("\r\n")) {
		return true
	}
	for line := range bytes.Lines(text) {
		if len(bytes.TrimRight(line, "\r\n")) > maxLine {
			return true
		}
	}
	return false
}

func isASCII(text []byte) bool {
	return !bytes.ContainsFunc(text, func(r rune) bool { return r >= utf8.RuneSelf })
}

func charset(text []byte) string {
	switch {
	case isASCII(text):
		return "us-ascii"
	case utf8.Valid(text):
		return "utf-8"
	}
	return "unknown-8bit" // RFC 1428 §3
}

// foldSubject writes a subject as a header field may hold it (RFC 5322 §2.2.3, RFC 2047 §2).
func foldSubject(s string) (string, error) {
	s = strings.TrimSpace(s)
	if strings.ContainsFunc(s, unicode.IsControl) || !utf8.ValidString(s) {
		return "", usage("", "the subject has a character that no subject can have")
	}
	if !isASCII([]byte(s)) {
		return strings.ReplaceAll(mime.QEncoding.Encode("utf-8", s), "?= =?", "?=\r\n =?"), nil
	}
	var b strings.Builder
	column := len("Subject: ")
	for i, word := range strings.SplitAfter(s, " ") {
		switch {
		case len(word) > maxLine-foldAt:
			return "", usage("", "the subject has a word that is longer than a line may be")
		case i > 0 && column+len(word) > foldAt && strings.TrimSpace(word) != "":
			// A fold goes before a space, and the space stays: unfolding takes only the CRLF.
			text := b.String()
			b.Reset()
			b.WriteString(strings.TrimSuffix(text, " ") + "\r\n " + word)
			column = 1 + len(word)
		default:
			b.WriteString(word)
			column += len(word)
		}
	}
	return b.String(), nil
}

// complete checks the header of a letter and puts before it what every letter needs and this one
// lacks: From and Date (RFC 5322 §3.6), a recipient, a Message-ID.
func complete(text []byte, from relay.Address, rcpts []relay.Address, now time.Time) ([]byte, error) {
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, errors.New("the letter is empty")
	}
	h, err := parseHeader(text)
	if err != nil {
		return nil, hint(fmt.Errorf("the letter does not begin with a header and an empty line: %w", err),
			"--subject TEXT makes it the body of a letter of its own")
	}
	var b bytes.Buffer
	if !h.has("From") {
		fmt.Fprintf(&b, "From: %s\r\n", from)
	}
	if !h.has("To", "Cc", "Bcc") {
		to := make([]string, len(rcpts))
		for i, r := range rcpts {
			to[i] = r.String()
		}
		fmt.Fprintf(&b, "To: %s\r\n", strings.Join(to, ",\r\n "))
	}
	if !h.has("Date") {
		fmt.Fprintf(&b, "Date: %s\r\n", now.Format(time.RFC1123Z))
	}
	if !h.has("Message-ID") {
		fmt.Fprintf(&b, "Message-ID: <%s@%s>\r\n", strings.ToLower(rand.Text()), from.Domain)
	}
	b.Write(text)
	if !bytes.HasSuffix(text, []byte("\r\n")) {
		b.WriteString("\r\n")
	}
	// A header alone still ends with the empty line.
	if !bytes.HasPrefix(text, []byte("\r\n")) && !bytes.Contains(b.Bytes(), []byte("\r\n\r\n")) {
		b.WriteString("\r\n")
	}
	return b.Bytes(), nil
}
