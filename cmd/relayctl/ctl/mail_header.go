package ctl

import (
	"bytes"
	"fmt"
	"mime"
	"net/mail"
	"strings"
	"time"
)

// field is one header field, its value unfolded and trimmed.
type field struct{ name, value string }

// header is a letter's header in its order.
type header []field

// get is the value of the first field of that name.
func (h header) get(name string) string {
	for _, f := range h {
		if strings.EqualFold(f.name, name) {
			return f.value
		}
	}
	return ""
}

func (h header) has(names ...string) bool {
	for _, name := range names {
		for _, f := range h {
			if strings.EqualFold(f.name, name) {
				return true
			}
		}
	}
	return false
}

// parseHeader reads fields until the empty line or the end. A line that is no field is left out,
// and the first such line is the error.
func parseHeader(text []byte) (header, error) {
	var h header
	var bad error
	for len(text) > 0 {
		line, rest, _ := bytes.Cut(text, []byte("\n"))
		text = rest
		s := strings.TrimSuffix(string(line), "\r")
		if s == "" {
			break
		}
		name, value, ok := strings.Cut(s, ":")
		name = strings.TrimRight(name, " \t")
		switch {
		case s[0] == ' ' || s[0] == '\t':
			ok = len(h) > 0
			if ok {
				last := &h[len(h)-1]
				last.value = strings.TrimSpace(last.value + " " + strings.TrimSpace(s))
			}
		case ok && isFieldName(name):
			h = append(h, field{name, strings.TrimSpace(value)})
		default:
			ok = false
		}
		if !ok && bad == nil {
			bad = fmt.Errorf("%q is no header field", cut(s, 60))
		}
	}
	return h, bad
}

// isFieldName follows RFC 5322 §2.2: printable ASCII without a colon.
func isFieldName(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == ':' })
}

// decoded is text with its encoded words (RFC 2047) read, as far as the character set is known.
func decoded(s string) string {
	if d, err := new(mime.WordDecoder).DecodeHeader(s); err == nil {
		return d
	}
	return s
}

// digest is what a list tells about a letter.
type digest struct {
	Number   int       `json:"number,omitempty"` // none for what has been removed
	UID      string    `json:"uid,omitempty"`
	From     string    `json:"from"`   // the From field, or else the Return-Path
	Sender   string    `json:"sender"` // its address alone
	Received time.Time `json:"received,omitzero"`
	Subject  string    `json:"subject"`
	Size     int64     `json:"size"`
}

func newDigest(text []byte) digest {
	h, _ := parseHeader(text)
	d := digest{From: h.get("From"), Subject: decoded(h.get("Subject")), Received: received(h)}
	if d.From == "" {
		d.From = h.get("Return-Path")
	}
	d.Sender = d.From
	if list, err := new(mail.AddressParser).ParseList(d.From); err == nil && len(list) > 0 {
		d.Sender = list[0].Address
	}
	d.From = decoded(d.From)
	return d
}

// received is when the last server took the letter, which is written behind the semicolon of the
// topmost Received field (RFC 5321 §4.4), or else when the writer says it was written.
func received(h header) time.Time {
	trace := h.get("Received")
	if i := strings.LastIndexByte(trace, ';'); i >= 0 {
		if at, err := mail.ParseDate(strings.TrimSpace(trace[i+1:])); err == nil {
			return at
		}
	}
	at, _ := mail.ParseDate(h.get("Date"))
	return at
}

// brief is the line of S3.4.
func (d digest) brief() string {
	day := "no date"
	if !d.Received.IsZero() {
		day = d.Received.Local().Format("02-01-2006")
	}
	return fmt.Sprintf("%d: Email from %s (%s)", d.Number, sender(d.Sender), day)
}

// cells is a row of digestColumns.
func (d digest) cells() []string {
	at := "-"
	if !d.Received.IsZero() {
		at = d.Received.Local().Format("2006-01-02 15:04")
	}
	return []string{fmt.Sprint(d.Number), cut(sender(d.From), 40), at, size(d.Size), printable(d.Subject)}
}

var digestColumns = []string{"NO", "FROM", "RECEIVED", "SIZE", "SUBJECT"}
