package relay

import (
	"strconv"
	"strings"
	"time"
)

// MaxFuture is how far ahead a letter may be submitted (RFC 4865).
const MaxFuture = 30 * 24 * time.Hour

// DeliverBy is until when a letter shall be delivered (RFC 2852). The zero value is a sender who set no
// time.
type DeliverBy struct {
	At     time.Time `json:"at"`
	Return bool      `json:"return,omitzero"` // return it then (by-mode R); otherwise tell the sender (N)
	Trace  bool      `json:"trace,omitzero"`  // every relay reports
}

// IsZero says whether no time is set.
func (d DeliverBy) IsZero() bool { return d.At.IsZero() }

// Overdue says whether the time has passed.
func (d DeliverBy) Overdue(now time.Time) bool { return !d.IsZero() && !now.Before(d.At) }

// Param is the value of BY at now, for the next server: what is left of the time in seconds, rounded
// up, so that a letter to be returned has one at least.
func (d DeliverBy) Param(now time.Time) string {
	left := d.Seconds(now)
	if d.Return {
		left = max(left, 1)
	}
	return strconv.FormatInt(left, 10) + d.mode()
}

// Seconds is what is left of the time, rounded up; negative when it has passed.
func (d DeliverBy) Seconds(now time.Time) int64 {
	left := d.At.Sub(now)
	s := int64(left / time.Second)
	if left%time.Second > 0 {
		s++
	}
	return s
}

func (d DeliverBy) mode() string {
	mode := ";N"
	if d.Return {
		mode = ";R"
	}
	if d.Trace {
		mode += "T"
	}
	return mode
}

// String is for people: "2026-11-21T18:00:00Z;R".
func (d DeliverBy) String() string {
	if d.IsZero() {
		return ""
	}
	return d.At.UTC().Format(time.RFC3339) + d.mode()
}

// ParseDeliverBy reads the value of BY, which counts from now (RFC 2852 §4); false where it is
// malformed, or asks to return what is late already.
func ParseDeliverBy(s string, now time.Time) (DeliverBy, bool) {
	number, mode, ok := strings.Cut(s, ";")
	digits := strings.TrimLeft(number, "+-")
	if !ok || len(number)-len(digits) > 1 || !isSeconds(digits) {
		return DeliverBy{}, false
	}
	n, err := strconv.ParseInt(number, 10, 64)
	d := DeliverBy{At: now.Add(time.Duration(n) * time.Second).UTC().Round(0)}
	mode = strings.ToUpper(mode)
	mode, d.Trace = strings.CutSuffix(mode, "T")
	d.Return = mode == "R"
	return d, err == nil && (mode == "N" || d.Return && n > 0)
}

// ParseHoldFor reads the value of HOLDFOR, which counts from now (RFC 4865); false where it is malformed.
func ParseHoldFor(s string, now time.Time) (time.Time, bool) {
	if !isSeconds(s) {
		return time.Time{}, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return now.Add(time.Duration(n) * time.Second).UTC().Round(0), err == nil
}

// ParseHoldUntil reads the value of HOLDUNTIL, a time of RFC 3339; false where it is malformed.
func ParseHoldUntil(s string) (time.Time, bool) {
	t, err := time.Parse(time.RFC3339, strings.ToUpper(s))
	return t.UTC(), err == nil
}

// isSeconds says whether s is 1 to 9 digits.
func isSeconds(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return len(s) >= 1 && len(s) <= 9
}
