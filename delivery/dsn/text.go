package dsn

import (
	"bytes"
	"mime/quotedprintable"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	foldAt  = 76  // octets, where folding has a blank to fold at
	maxLine = 998 // octets without CRLF (RFC 5322 §2.1.1)
)

// fold ends a field with CRLF and breaks it at blanks. Text that must not be changed by folding
// has to come with no blanks or be short.
func fold(line string) string {
	var b strings.Builder
	for len(line) > foldAt {
		at := strings.LastIndexByte(line[:foldAt], ' ')
		// A fold may not leave a line of nothing but blanks (RFC 5322 §3.2.2).
		if strings.TrimSpace(line[:max(at, 0)]) == "" || at < 0 {
			next := strings.IndexByte(line[foldAt:], ' ')
			at = foldAt + next
			if next < 0 {
				break
			}
		}
		if strings.TrimSpace(line[at:]) == "" {
			break
		}
		b.WriteString(line[:at] + "\r\n")
		line = line[at:]
	}
	b.WriteString(strings.TrimRight(line, " ") + "\r\n")
	return b.String()
}

// printable makes one line of valid UTF-8 of text from a stranger, of at most limit octets:
// control and format characters become blanks, and runs of blanks one.
func printable(s string, limit int) string {
	cleaned := strings.Map(func(r rune) rune {
		if r == utf8.RuneError || unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) {
			return ' '
		}
		return r
	}, s[:min(len(s), 4*limit)])
	words := strings.Join(strings.Fields(cleaned), " ")
	if len(words) <= limit {
		return words
	}
	cut := limit
	for cut > 0 && !utf8.RuneStart(words[cut]) {
		cut--
	}
	return words[:cut] + "..."
}

// ascii is printable for the fields that hold nothing else. Words are cut so that fold always
// finds a blank before a line grows too long.
func ascii(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r >= utf8.RuneSelf {
			return '?'
		}
		return r
	}, printable(s, limit))
	words := strings.Fields(s)
	for i, w := range words {
		for j := 500; j < len(w); j += 501 {
			w = w[:j] + " " + w[j:]
		}
		words[i] = w
	}
	return strings.Join(words, " ")
}

// wrap breaks text into lines of about 72 columns, each after indent. Words are not broken
// unless quoted-printable has to carry them anyway.
func wrap(text, indent string) string {
	const columns = 72
	var b strings.Builder
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && utf8.RuneCountInString(indent+line)+1+utf8.RuneCountInString(word) > columns {
			b.WriteString(indent + line + "\r\n")
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	b.WriteString(indent + line + "\r\n")
	return b.String()
}

// plain says whether content can travel as it is: ASCII without control characters, in lines of
// no more than 998 octets.
func plain(content []byte) bool {
	for line := range bytes.Lines(content) {
		line = bytes.TrimSuffix(line, []byte("\r\n"))
		if len(line) > maxLine {
			return false
		}
		for _, c := range line {
			if c != '\t' && (c < ' ' || c > '~') {
				return false
			}
		}
	}
	return true
}

func (b *builder) quotedPrintable(content []byte) {
	w := quotedprintable.NewWriter(b)
	_, _ = w.Write(content) // a bytes.Buffer takes everything
	_ = w.Close()
	if !bytes.HasSuffix(b.Bytes(), []byte("\r\n")) {
		b.WriteString("\r\n")
	}
}
