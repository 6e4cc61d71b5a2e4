package dsn

import (
	"bytes"
	"fmt"
	"mime"
	"strings"
	"unicode/utf8"
)

// maxOriginal is how much of the header of the letter goes into a report, in octets.
const maxOriginal = 32 << 10

// original is what a report takes from the letter it is about.
type original struct {
	text      []byte // the header, CRLF line ends, bounded
	messageID string // with its angle brackets; empty unless it is fit for our own header
	subject   string // for people, printable; may be empty
}

// wholeTransfer is how the whole letter travels in a report, or empty where it does not. RFC 2046 §5.2.1
// forbids to recode it.
func (r Report) wholeTransfer() string {
	if !r.Whole || r.action() != Failed {
		return ""
	}
	transfer := "7bit"
	for line := range bytes.Lines(r.OriginalHeader) {
		content, ok := bytes.CutSuffix(line, []byte("\r\n"))
		if !ok || len(content) > maxLine || bytes.ContainsAny(content, "\r\x00") {
			return ""
		}
		if bytes.ContainsFunc(content, func(c rune) bool { return c >= utf8.RuneSelf }) {
			transfer = "8bit"
		}
	}
	if len(r.OriginalHeader) == 0 || transfer == "8bit" && !r.EightBit {
		return ""
	}
	return transfer
}

// wholeType is message/rfc822, or with UTF-8 in the header the type of RFC 6532 §3.7.
func (o original) wholeType() string {
	if o.mediaType() == "message/global-headers" {
		return "message/global"
	}
	return "message/rfc822"
}

// whole adds the letter itself.
func (b *builder) whole(mediaType, transfer string, letter []byte) {
	fmt.Fprintf(b, "\r\n--%s\r\nContent-Type: %s\r\nContent-Description: The message\r\nContent-Transfer-Encoding: %s\r\n\r\n", b.boundary, mediaType, transfer)
	b.Write(letter)
}

func parseOriginal(head []byte) original {
	var o original
	var unfolded []string
	for line := range bytes.Lines(head) {
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 || len(o.text)+len(line)+2 > maxOriginal {
			break
		}
		// A CR inside the line would be a line end to some reader.
		line = bytes.ReplaceAll(line, []byte("\r"), []byte(" "))
		o.text = append(append(o.text, line...), "\r\n"...)
		if n := len(unfolded); n > 0 && (line[0] == ' ' || line[0] == '\t') {
			unfolded[n-1] += string(line)
		} else {
			unfolded = append(unfolded, string(line))
		}
	}
	for _, field := range unfolded {
		name, value, _ := strings.Cut(field, ":")
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "message-id":
			o.messageID = messageID(value)
		case "subject":
			o.subject = subject(value)
		}
	}
	return o
}

// mediaType is text/rfc822-headers, or with UTF-8 in them the type of RFC 6533 §6.
func (o original) mediaType() string {
	if plain(o.text) || !utf8.Valid(o.text) {
		return "text/rfc822-headers"
	}
	for _, c := range o.text {
		if c >= utf8.RuneSelf {
			return "message/global-headers"
		}
	}
	return "text/rfc822-headers"
}

// messageID is value if it is one identifier of ordinary characters, otherwise empty.
func messageID(value string) string {
	id := strings.TrimSpace(value)
	if len(id) > 250 || !strings.HasPrefix(id, "<") || strings.IndexByte(id, '>') != len(id)-1 {
		return ""
	}
	for _, c := range []byte(id[1:]) {
		if c <= ' ' || c > '~' || c == '<' {
			return ""
		}
	}
	return id
}

func subject(value string) string {
	decoded, err := new(mime.WordDecoder).DecodeHeader(value)
	if err != nil {
		decoded = value
	}
	return printable(decoded, 100)
}
