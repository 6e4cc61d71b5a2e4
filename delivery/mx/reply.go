package mx

import (
	"bufio"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"relayd/relay"
)

// Bounds of a remote's reply. RFC 5321 §4.5.3.1.5 allows lines of 512 octets; real ones are
// longer at times. A remote whose reply never ends must not cost us memory or hours.
const (
	maxReplyLine  = 2048 // octets, line end included
	maxReplyLines = 100
	maxReplyText  = 2048 // octets of text kept on the result, and so in the queue
)

// What can be wrong with a reply. Each is a failure of the host.
var (
	errReplyLine    = errors.New("a reply line is longer than 2048 octets")
	errReplyEndless = errors.New("a reply has more than 100 lines")
	errReplyGarbage = errors.New("the answer is not an SMTP reply")
)

// answer is one reply as it came: the code and the text of each line behind it.
type answer struct {
	code  int
	lines []string
}

// readAnswer reads one reply, of one line or many (RFC 5321 §4.2). br's buffer must hold
// maxReplyLine octets; it is the bound of a line. Lines ended by a bare LF are understood.
func readAnswer(br *bufio.Reader) (answer, error) {
	var a answer
	for len(a.lines) < maxReplyLines {
		line, err := br.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			return a, errReplyLine
		}
		if err != nil {
			return a, err
		}
		code, text, more, ok := cutReplyLine(string(line))
		if !ok || len(a.lines) > 0 && code != a.code {
			return a, fmt.Errorf("%w: %q", errReplyGarbage, clip(printable(string(line)), 80))
		}
		a.code = code
		a.lines = append(a.lines, text)
		if !more {
			return a, nil
		}
	}
	return a, errReplyEndless
}

// cutReplyLine takes "250-text" apart. more says that a further line follows.
func cutReplyLine(line string) (code int, text string, more, ok bool) {
	line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
	if len(line) < 3 || line[0] < '2' || line[0] > '5' {
		return 0, "", false, false
	}
	for _, c := range []byte(line[:3]) {
		if c < '0' || c > '9' {
			return 0, "", false, false
		}
		code = 10*code + int(c-'0')
	}
	switch {
	case len(line) == 3:
		return code, "", false, true
	case line[3] == ' ', line[3] == '-':
		return code, line[4:], line[3] == '-', true
	}
	return 0, "", false, false
}

// reply is the answer in the form that goes to the queue, the log and the report: the enhanced
// status taken out of the text, at most maxReplyText octets, no control characters.
func (a answer) reply() relay.Reply {
	r := relay.Reply{Code: a.code}
	texts := make([]string, 0, len(a.lines))
	for _, line := range a.lines {
		status, text := cutStatus(a.code, line)
		if status != (relay.Status{}) && r.Status == (relay.Status{}) {
			r.Status = status
		}
		if status != r.Status {
			text = line
		}
		texts = append(texts, strings.TrimSpace(printable(text)))
	}
	r.Text = clip(strings.Trim(strings.Join(texts, "\n"), "\n"), maxReplyText)
	return r
}

// cutStatus takes the enhanced status from the front of a reply's text (RFC 2034 §4). One whose
// class contradicts the code is only text: the code decides.
func cutStatus(code int, text string) (relay.Status, string) {
	word, rest, _ := strings.Cut(text, " ")
	s, ok := relay.ParseStatus(word)
	if !ok || s[0] != code/100 {
		return relay.Status{}, text
	}
	return s, rest
}

// printable replaces what could lie to a reader of logs and listings or break a report's lines:
// control and format characters, and octets that are not UTF-8.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case r == utf8.RuneError, unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp):
			return '?'
		}
		return r
	}, strings.TrimRight(strings.ToValidUTF8(s, "?"), "\r\n"))
}

// clip cuts s to at most n octets, at the border of a character.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
