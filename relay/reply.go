package relay

import (
	"fmt"
	"strconv"
	"strings"
)

// Status is an enhanced mail system status code (RFC 3463), such as 5.1.1. The zero value means
// that none was given.
type Status [3]int

// String is the code with its dots; empty for the zero value.
func (s Status) String() string {
	if s == (Status{}) {
		return ""
	}
	return strconv.Itoa(s[0]) + "." + strconv.Itoa(s[1]) + "." + strconv.Itoa(s[2])
}

// MarshalText is String.
func (s Status) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (s *Status) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*s = Status{}
		return nil
	}
	got, ok := ParseStatus(string(b))
	if !ok {
		return fmt.Errorf("relay: %q is not an enhanced status code", b)
	}
	*s = got
	return nil
}

// ParseStatus reads class.subject.detail: class 2, 4 or 5, the others up to three digits (RFC
// 3463 §2).
func ParseStatus(text string) (Status, bool) {
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return Status{}, false
	}
	var s Status
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || len(p) > 3 || p[0] == '+' {
			return Status{}, false
		}
		s[i] = int(n)
	}
	return s, s[0] == 2 || s[0] == 4 || s[0] == 5
}

// Reply is one SMTP reply (RFC 5321 §4.2): a code of three digits, the enhanced status where
// there is one, and the text, whose lines are divided by LF and contain no control characters.
// A remote's reply travels untouched from its mouth to the log, `queue ls` and the report.
type Reply struct {
	Code   int    `json:"code"`
	Status Status `json:"status,omitzero"`
	Text   string `json:"text"`
}

// String is the reply on one line: code, status, text.
func (r Reply) String() string {
	parts := make([]string, 0, 3)
	if r.Code != 0 {
		parts = append(parts, strconv.Itoa(r.Code))
	}
	if s := r.Status.String(); s != "" {
		parts = append(parts, s)
	}
	if r.Text != "" {
		parts = append(parts, strings.ReplaceAll(r.Text, "\n", " "))
	}
	return strings.Join(parts, " ")
}

// OK says whether the reply is a success (2xx).
func (r Reply) OK() bool { return r.Code/100 == 2 }

// Temporary says whether trying again may help: everything that is neither success nor a 5xx.
// The zero Reply is temporary, because unknown means temporary.
func (r Reply) Temporary() bool { return !r.OK() && !r.Permanent() }

// Permanent says whether the other side refused for good (5xx).
func (r Reply) Permanent() bool { return r.Code/100 == 5 }
