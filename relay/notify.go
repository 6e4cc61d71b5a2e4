package relay

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Notify says of which outcomes for one recipient the sender wants to hear (RFC 3461 §4.1). The
// zero value is a sender who did not say: he hears of failures and delays.
type Notify uint8

// The words of NOTIFY. NotifyNever stands alone.
const (
	NotifyNever Notify = 1 << iota
	NotifySuccess
	NotifyFailure
	NotifyDelay
)

var notifyWords = []string{"NEVER", "SUCCESS", "FAILURE", "DELAY"}

// ParseNotify reads the value of NOTIFY; false where it is malformed.
func ParseNotify(s string) (n Notify, ok bool) {
	for word := range strings.SplitSeq(s, ",") {
		bit := Notify(0)
		for i, known := range notifyWords {
			if strings.EqualFold(word, known) {
				bit = 1 << i
			}
		}
		if bit == 0 || n&bit != 0 {
			return 0, false
		}
		n |= bit
	}
	return n, n == NotifyNever || n&NotifyNever == 0
}

// Wants says whether the sender is to hear of an outcome, one of the words.
func (n Notify) Wants(outcome Notify) bool {
	if n == 0 {
		n = NotifyFailure | NotifyDelay
	}
	return n&outcome != 0
}

// String is the value of NOTIFY; empty for the zero value.
func (n Notify) String() string {
	var words []string
	for i, word := range notifyWords {
		if n&(1<<i) != 0 {
			words = append(words, word)
		}
	}
	return strings.Join(words, ",")
}

// MarshalText is String.
func (n Notify) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (n *Notify) UnmarshalText(b []byte) error {
	got, ok := ParseNotify(string(b))
	if !ok && len(b) > 0 {
		return fmt.Errorf("relay: %q is no NOTIFY", b)
	}
	*n = got
	return nil
}

// Ret says how much of the letter a report of failure gives back (RFC 3461 §4.3).
type Ret string

// The values of RET; empty where the sender did not say.
const (
	RetFull    Ret = "FULL"
	RetHeaders Ret = "HDRS"
)

// RcptParams are the parameters of RCPT TO (RFC 3461 §4.1 and §4.2).
type RcptParams struct {
	Notify Notify
	ORcpt  string // see ParseORcpt; empty: not given
}

// Bounds of RFC 3461 §4.2 and §4.4, in octets as they stand in the command.
const (
	MaxEnvID = 100
	MaxORcpt = 500
)

// ParseXtext undoes the coding of RFC 3461 §4; false where s is not xtext, or what it stands for is
// not printable ASCII.
func ParseXtext(s string) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '+':
			if len(s) < i+3 {
				return "", false
			}
			n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
			if err != nil {
				return "", false
			}
			c, i = byte(n), i+2
			if c < ' ' || c > '~' {
				return "", false
			}
		case c <= ' ' || c > '~' || c == '=':
			return "", false
		}
		b.WriteByte(c)
	}
	return b.String(), true
}

// Xtext codes printable ASCII for a parameter of MAIL or RCPT. Whatever else s holds is coded as
// well, octet by octet, so that it can never end the parameter or the command.
func Xtext(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c > ' ' && c <= '~' && c != '+' && c != '=' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "+%02X", c)
		}
	}
	return b.String()
}

// ParseEnvID reads the value of ENVID; false where it is malformed or too long.
func ParseEnvID(s string) (string, bool) {
	id, ok := ParseXtext(s)
	return id, ok && id != "" && len(s) <= MaxEnvID
}

// ParseORcpt reads the value of ORCPT and returns it decoded, as "rfc822;ann@office.example" or, of
// RFC 6533 §3, "utf-8;änn@office.example". utf8OK says that SMTPUTF8 was asked for.
func ParseORcpt(s string, utf8OK bool) (string, bool) {
	kind, addr, ok := strings.Cut(s, ";")
	if !ok || len(s) > MaxORcpt || !isKind(kind) || addr == "" {
		return "", false
	}
	kind = strings.ToLower(kind)
	if kind == utf8Kind {
		addr, ok = parseUnicodeText(addr, utf8OK)
	} else {
		addr, ok = ParseXtext(addr)
	}
	return kind + ";" + addr, ok
}

// FormatORcpt writes what ParseORcpt returned for any host, one without SMTPUTF8 too.
func FormatORcpt(s string) string {
	kind, addr, _ := strings.Cut(s, ";")
	if kind == utf8Kind {
		return kind + ";" + UnicodeXtext(addr)
	}
	return kind + ";" + Xtext(addr)
}

const utf8Kind = "utf-8"

// isKind says whether s is an address type: an atom of RFC 3464 §2.1.2, short.
func isKind(s string) bool {
	for _, c := range []byte(s) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-') {
			return false
		}
	}
	return s != "" && len(s) <= 40
}

// parseUnicodeText reads utf-8-addr-xtext and, where raw is allowed, utf-8-addr-unitext.
func parseUnicodeText(s string, rawOK bool) (string, bool) {
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == '\\':
			inner, _, ok := strings.Cut(strings.TrimPrefix(s, `\x{`), "}")
			if !ok || !strings.HasPrefix(s, `\x{`) || len(inner) > 6 {
				return "", false
			}
			code, err := strconv.ParseUint(inner, 16, 32)
			if err != nil {
				return "", false
			}
			r, n = rune(code), len(`\x{}`)+len(inner)
		case r == '+' || r == '=' || r == ' ' || r >= utf8.RuneSelf && !rawOK:
			return "", false
		}
		if r == utf8.RuneError || !utf8.ValidRune(r) || unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) {
			return "", false
		}
		b.WriteRune(r)
		s = s[n:]
	}
	return b.String(), true
}

// UnicodeXtext is an international address as ASCII (RFC 6533 §3, utf-8-addr-xtext).
func UnicodeXtext(addr string) string {
	var b strings.Builder
	for _, r := range addr {
		if r > ' ' && r <= '~' && !strings.ContainsRune(`+=\`, r) {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, `\x{%02X}`, r)
		}
	}
	return b.String()
}
