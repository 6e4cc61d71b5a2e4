package filter

import (
	"strings"
)

// What a program may add to one letter.
const (
	maxEdits = 200
	maxValue = 16 << 10 // octets of one field
	maxAdded = 64 << 10 // octets of all fields of one program
	maxText  = 300      // octets of a reply, or of a name in a field
	maxLine  = 990      // octets of a line of a field; RFC 5322 §2.1.1 allows 998
)

// edits collects what a program wants of the header, made harmless and bounded.
type edits struct {
	list []Edit
	size int
}

// traces are fields that loops are found by (RFC 5321 §6.3): no program may change them.
var traces = map[string]bool{"received": true, "return-path": true, "delivered-to": true}

// add takes an edit if there is room and its name is one.
func (e *edits) add(op Op, name, value string, index int) {
	if !isFieldName(name) || len(name) > 100 || traces[strings.ToLower(name)] || len(e.list) == maxEdits || index < 0 {
		return
	}
	if op != Remove {
		value = fieldValue(value, len(name)+2)
		if e.size+len(value) > maxAdded {
			return
		}
		e.size += len(value)
	} else {
		value = ""
	}
	e.list = append(e.list, Edit{Op: op, Name: name, Value: value, Index: index})
}

// isFieldName: RFC 5322 §3.6.8.
func isFieldName(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == ':' })
}

// fieldValue makes any text the value of a field: ASCII, its lines folded, none of them empty or too
// long. column is where it begins in its line.
func fieldValue(s string, column int) string {
	s = strings.ReplaceAll(s[:min(len(s), maxValue)], "\r\n", "\n")
	var b strings.Builder
	for line := range strings.SplitSeq(strings.ReplaceAll(s, "\r", "\n"), "\n") {
		line = plain(line)
		text := strings.Trim(line, " \t")
		if text == "" {
			continue
		}
		if b.Len() > 0 {
			// One space or tab, however far in the line began: a piece of it without a word would end the
			// header for some.
			b.WriteString("\r\n")
			lead := "\t"
			if line[0] == ' ' {
				lead = " "
			}
			text, column = lead+text, 0
		}
		foldLine(&b, text, column)
	}
	return b.String()
}

// foldLine writes one line, in pieces where it is too long, at spaces where it has some.
func foldLine(b *strings.Builder, line string, column int) {
	for column+len(line) > maxLine {
		cut := maxLine - column
		if space := strings.LastIndexAny(line[1:cut], " \t"); space > 0 && strings.Trim(line[:space+1], " \t") != "" {
			cut = space + 1
		}
		b.WriteString(line[:cut] + "\r\n\t")
		line, column = strings.TrimLeft(line[cut:], " \t"), 1
	}
	b.WriteString(line)
}

// plain is s in ASCII without control characters but tabs.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 0x7f || r < ' ' && r != '\t' {
			return '?'
		}
		return r
	}, s)
}

// sentence is foreign text for a reply or the log: one line, not too long; instead where there is
// nothing to read in it.
func sentence(s, instead string) string {
	s = plain(strings.Join(strings.Fields(s[:min(len(s), maxText)]), " "))
	if s == "" {
		return instead
	}
	return s
}

// word is foreign text inside a word of the log.
func word(s string) string {
	s = strings.Map(func(r rune) rune {
		if r <= ' ' || r >= 0x7f || r == '"' || r == '=' {
			return '-'
		}
		return r
	}, s)
	return s[:min(len(s), 80)]
}
