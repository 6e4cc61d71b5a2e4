package config

import (
	"fmt"
	"strings"
	"unicode"
)

// Complaint is one thing wrong with the file and where.
type Complaint struct {
	File    string `json:"file"`
	Line    int    `json:"line"`   // from 1
	Column  int    `json:"column"` // from 1, in characters
	Text    string `json:"text"`   // one sentence, lower case, no full stop
	Hint    string `json:"hint,omitzero"`
	Excerpt string `json:"excerpt,omitzero"` // the line and, below it, a mark under the place
}

// String is the complaint as people read it: position and sentence, the excerpt, the hint.
func (c Complaint) String() string {
	s := fmt.Sprintf("%s:%d:%d: %s", c.File, c.Line, c.Column, c.Text)
	if c.Excerpt != "" {
		s += "\n" + c.Excerpt
	}
	if c.Hint != "" {
		s += "\nhint: " + c.Hint
	}
	return s
}

func (c Complaint) Error() string { return c.String() }

// Invalid is the error of a file that cannot be used: everything wrong with it, by position.
type Invalid struct{ Complaints []Complaint }

func (e *Invalid) Error() string {
	parts := make([]string, len(e.Complaints))
	for i, c := range e.Complaints {
		parts[i] = c.String()
	}
	return strings.Join(parts, "\n")
}

// Unwrap gives errors.As and errors.AsType every single Complaint.
func (e *Invalid) Unwrap() []error {
	errs := make([]error, len(e.Complaints))
	for i, c := range e.Complaints {
		errs[i] = c
	}
	return errs
}

// span is a range of octets of the file.
type span struct{ off, len int }

// position is where a span begins: its line from 1, its column from 1 in characters, and the
// octets of the line.
func position(data []byte, at span) (line, column int, text string) {
	off := min(at.off, len(data))
	start := 0
	line = 1
	for i := range off {
		if data[i] == '\n' {
			line, start = line+1, i+1
		}
	}
	end := start
	for end < len(data) && data[end] != '\n' {
		end++
	}
	return line, len([]rune(string(data[start:off]))) + 1, string(data[start:end])
}

// excerptWidth is how many characters of a line are shown at most.
const excerptWidth = 100

// excerpt shows a line with its number and marks the n characters from column on.
func excerpt(line, column, n int, text string) string {
	runes := []rune(strings.TrimRight(text, "\r"))
	for i, r := range runes {
		// A terminal would obey control and format characters, and a tab would move the mark.
		if !unicode.IsPrint(r) {
			runes[i] = ' '
		}
	}
	first := 0
	if column > excerptWidth*3/4 {
		first = min(column-excerptWidth/2, len(runes))
	}
	shown := runes[first:min(len(runes), first+excerptWidth)]
	mark := max(1, min(n, len(shown)-(column-1-first)))
	number := fmt.Sprintf("%5d | ", line)
	return number + strings.TrimRight(string(shown), " ") + "\n" +
		strings.Repeat(" ", len(number)-2) + "| " + strings.Repeat(" ", column-1-first) + strings.Repeat("^", mark)
}
