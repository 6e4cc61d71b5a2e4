package policy

import (
	"strings"
	"unicode/utf8"

	"relayd/relay"
)

// Result is the word for the outcome of one check (RFC 8601 §2.7).
type Result string

// The results.
const (
	None      Result = "none"
	Pass      Result = "pass"
	Fail      Result = "fail"
	SoftFail  Result = "softfail"
	Neutral   Result = "neutral"
	Policy    Result = "policy"
	TempError Result = "temperror"
	PermError Result = "permerror"
)

// Finding is one outcome with what it was about.
type Finding struct {
	Method  string // "spf", "dkim", "dmarc", "iprev"
	Result  Result
	Comment string
	Reason  string // for people
	Props   []Prop
}

// Prop is one property of a Finding: "header.d", "example.org".
type Prop struct{ Name, Value string }

// maxValue bounds one value in the field, in octets: with its name it fits into a line of RFC 5322.
const maxValue = 400

// Field is the Authentication-Results field (RFC 8601 §2.2) under the name id, with its line end.
// Whatever a stranger wrote stands in quotes.
func Field(id relay.Domain, all []Finding) string {
	var b strings.Builder
	b.WriteString("Authentication-Results: " + string(id))
	for _, f := range all {
		words := []string{f.Method + "=" + string(f.Result)}
		if f.Comment != "" {
			words = append(words, "("+comment(f.Comment)+")")
		}
		if f.Reason != "" {
			words = append(words, "reason="+quoted(f.Reason))
		}
		for _, p := range f.Props {
			words = append(words, p.Name+"="+pvalue(p.Value))
		}
		b.WriteString(";")
		fold(&b, words)
	}
	if len(all) == 0 {
		b.WriteString("; none")
	}
	return b.String() + "\r\n"
}

// fold writes words on lines of their own, none longer than RFC 5322 §2.1.1 likes if it can be.
func fold(b *strings.Builder, words []string) {
	column := 0
	for _, w := range words {
		switch {
		case column == 0:
			b.WriteString("\r\n\t")
			column = 8
		case column+1+len(w) > 76:
			b.WriteString("\r\n\t\t")
			column = 16
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(w)
		column += len(w)
	}
}

// pvalue is a value, as a token where it is one and in quotes otherwise. An address stays as it is
// where both of its halves are plain.
func pvalue(s string) string {
	local, domain, isAddress := strings.Cut(s, "@")
	if len(s) <= maxValue && (isToken(s) || isAddress && (local == "" || isToken(local)) && isToken(domain)) {
		return s
	}
	return quoted(s)
}

// isToken: RFC 2045 §5.1.
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune("()<>@,;:\\\"/[]?=", r)
	})
}

// quoted is s as a quoted-string (RFC 5322 §3.2.4) on one line.
func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(printable(s)) + `"`
}

// comment is s as it may stand in parentheses.
func comment(s string) string {
	return strings.NewReplacer(`\`, `\\`, `(`, `\(`, `)`, `\)`).Replace(printable(s))
}

// printable takes out what would end a line or a field, and what is too much.
func printable(s string) string {
	if len(s) > maxValue {
		s = s[:maxValue]
		for !utf8.ValidString(s) && len(s) > maxValue-utf8.UTFMax {
			s = s[:len(s)-1]
		}
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == utf8.RuneError || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}

// Claims says whether the value of an Authentication-Results field claims to be written under the
// name id: our readers would believe it (RFC 8601 §5). Where it cannot be read as the RFC says, a
// field that begins with the name claims it too.
func Claims(value string, id relay.Domain) bool {
	got := strings.TrimSuffix(authservID(value), ".")
	if strings.EqualFold(got, string(id)) {
		return true
	}
	value = strings.TrimLeft(strings.NewReplacer("\r", "", "\n", "").Replace(value), " \t\"")
	return len(value) >= len(id) && strings.EqualFold(value[:len(id)], string(id)) &&
		(len(value) == len(id) || strings.IndexByte(" \t;\"(", value[len(id)]) >= 0)
}

// authservID reads the name at the beginning of the field's value: a token or a quoted string,
// behind blanks and comments.
func authservID(value string) string {
	depth := 0
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case c == '\\' && depth > 0:
			i++
		case c == '(':
			depth++
		case c == ')' && depth > 0:
			depth--
		case depth > 0, c == ' ', c == '\t', c == '\r', c == '\n':
		case c == '"':
			return unquoted(value[i+1:])
		default:
			rest := value[i:]
			if end := strings.IndexAny(rest, " \t\r\n;()\""); end >= 0 {
				rest = rest[:end]
			}
			return rest
		}
	}
	return ""
}

// unquoted reads a quoted string behind its first quote; folds in it do not count.
func unquoted(s string) string {
	var b strings.Builder
	for i := 0; i < len(s) && s[i] != '"'; i++ {
		switch {
		case s[i] == '\r' || s[i] == '\n':
			continue
		case s[i] == '\\' && i+1 < len(s):
			i++
		}
		b.WriteByte(s[i])
	}
	return strings.Trim(b.String(), " \t")
}
