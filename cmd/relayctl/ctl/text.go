package ctl

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// printable is s with everything that could move a cursor, hide or reorder text written out as an
// escape: control characters, format characters such as the bidi overrides, broken UTF-8.
func printable(s string) string { return escaped(s, "") }

// printableLines keeps line ends and tabs.
func printableLines(s string) string { return escaped(s, "\n\t") }

func escaped(s, keep string) string {
	clean := func(r rune) bool {
		return r >= ' ' && r <= '~' || r != utf8.RuneError && unicode.IsPrint(r) || strings.ContainsRune(keep, r)
	}
	if strings.IndexFunc(s, func(r rune) bool { return !clean(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if clean(r) || r == utf8.RuneError && n > 1 {
			b.WriteString(s[:n])
		} else {
			b.WriteString(escape(r, s[:n]))
		}
		s = s[n:]
	}
	return b.String()
}

// escape writes one character as Go source does.
func escape(r rune, raw string) string {
	if r == utf8.RuneError {
		return fmt.Sprintf(`\x%02x`, raw[0])
	}
	return strings.Trim(strconv.QuoteRuneToASCII(r), "'")
}

// copyPrintable copies a letter to a terminal: CRLF as line ends, everything else made printable.
func copyPrintable(w io.Writer, r io.Reader) error {
	in, out := bufio.NewReader(r), bufio.NewWriter(w)
	for {
		piece, err := in.ReadString('\n')
		piece = strings.TrimSuffix(piece, "\n")
		ended := err == nil
		out.WriteString(escaped(strings.TrimSuffix(piece, "\r"), "\t"))
		if ended {
			out.WriteByte('\n')
		}
		if err == io.EOF {
			return out.Flush()
		}
		if err != nil {
			return err
		}
	}
}

// printJSON writes one object on a line, in ASCII where a terminal could mistake it.
func (a *app) printJSON(v any) error { return writeJSON(a.Stdout, v) }

func writeJSON(w io.Writer, v any) error {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	return writeJSONText(w, b.String())
}

// writeJSONText is writeJSON of what is JSON already.
func writeJSONText(w io.Writer, text string) error {
	_, err := io.WriteString(w, plainJSON(text))
	return err
}

// plainJSON escapes what JSON leaves as it is and a terminal would act on: C1 controls, bidi.
func plainJSON(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r != '\n' && (r < ' ' || r > '~') }) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\n' || unicode.IsPrint(r):
			b.WriteRune(r)
		case r > 0xffff:
			r -= 0x10000
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// size is a number of octets in words: "12.3 kB".
func size(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	f := float64(n)
	for _, unit := range []string{"kB", "MB", "GB", "TB"} {
		// 999.95 would be printed as 1000.0 of the smaller unit.
		if f /= 1000; f < 999.95 || unit == "TB" {
			return fmt.Sprintf("%.1f %s", f, unit)
		}
	}
	return ""
}

// span is a length of time in one unit, rounded down: "12 min".
func span(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < 0:
		return "0 s"
	case d < time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d < 2*day:
		return fmt.Sprintf("%d h", d/time.Hour)
	}
	return fmt.Sprintf("%d days", d/day)
}

// next says when an item is tried again.
func next(at, now time.Time, held bool) string {
	switch {
	case held:
		return "held"
	case !at.After(now):
		return "now"
	}
	return "in " + span(at.Sub(now).Round(time.Second))
}

// count is "1 message", "3 messages".
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// sender is an envelope's sender as shown; the null path has a sign of its own.
func sender(from string) string {
	if from == "" {
		return "<>"
	}
	return printable(from)
}

// parseAge reads 90s, 15m, 2h, 3d, 1w and their sums.
func parseAge(s string) (time.Duration, error) {
	total, rest := time.Duration(0), s
	for rest != "" {
		i := strings.IndexAny(rest, "dw")
		if i < 0 {
			break
		}
		n, err := strconv.ParseUint(rest[:i], 10, 16)
		if err != nil {
			return 0, badAge(s)
		}
		day := 24 * time.Hour
		if rest[i] == 'w' {
			day *= 7
		}
		total, rest = total+time.Duration(n)*day, rest[i+1:]
	}
	if rest != "" {
		d, err := time.ParseDuration(rest)
		if err != nil || d < 0 {
			return 0, badAge(s)
		}
		total += d
	}
	if s == "" {
		return 0, badAge(s)
	}
	return total, nil
}

func badAge(s string) error {
	return fmt.Errorf("%q is not an age such as 90s, 15m, 2h or 3d", s)
}
