package mx

import (
	"bufio"
	"io"
	"strings"
)

// maxHeader bounds how much of a letter is searched for a field about its transport.
const maxHeader = 256 << 10

// waivesTLS says that the letter has one field "TLS-Required: No": its writer asks that no policy of
// the recipient's domain about TLS holds it up (RFC 8689 §5). A letter that cannot be read waives
// nothing; the attempt will find that out by itself.
func (l *letter) waivesTLS() bool {
	if l.env.RequireTLS {
		return false // RFC 8689 §4.1: then the field says nothing
	}
	if l.waives == nil {
		waives := l.readWaiver()
		l.waives = &waives
	}
	return *l.waives
}

func (l *letter) readWaiver() bool {
	if _, err := l.body.Seek(0, io.SeekStart); err != nil {
		return false
	}
	lines := bufio.NewReaderSize(io.LimitReader(l.body, maxHeader), 4096)
	found, waives := 0, false
	for atStart := true; ; {
		// A long line comes in pieces, and only its first can begin a field.
		piece, more, err := lines.ReadLine()
		if err != nil || atStart && len(piece) == 0 {
			return waives && found == 1
		}
		name, value, ok := strings.Cut(string(piece), ":")
		if atStart && ok && strings.EqualFold(strings.TrimRight(name, " \t"), "TLS-Required") {
			found++
			waives = strings.EqualFold(strings.TrimSpace(value), "No")
		}
		atStart = !more
	}
}
