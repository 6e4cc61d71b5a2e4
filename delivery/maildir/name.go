package maildir

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"time"

	"relayd/relay"
)

// maxHost bounds the hostname in a file name: with it a name stays below the 255 octets that
// file systems allow.
const maxHost = 120

// maxUID is the longest unique-id a POP3 listing may carry (RFC 1939 §7).
const maxUID = 70

// hostPart makes a hostname fit for a file name, as the maildir specification says; the comma is
// ours, because the first comma ends the part of the name that identifies the letter.
func hostPart(hostname string) string {
	s := strings.NewReplacer("/", `\057`, ":", `\072`, ",", `\054`).Replace(hostname)
	s = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '_'
		}
		return r
	}, s)
	return s[:min(len(s), maxHost)]
}

// uniquePart is the part of a file name that identifies the letter and never changes.
func uniquePart(id relay.ID, accepted time.Time, host string) string {
	return strconv.FormatInt(accepted.Unix(), 10) + ".R" + string(id) + "." + host
}

func sizePart(size, octets int64) string {
	return ",S=" + strconv.FormatInt(size, 10) + ",W=" + strconv.FormatInt(octets, 10)
}

// name is the file name of a letter, taken apart. Programs add and change the info part (:2,FLAGS)
// and keep the base.
type name struct {
	base string // without the info part
	info string // ":2,S" or empty
}

func parseName(file string) name {
	base, _, found := strings.Cut(file, ":")
	if !found {
		return name{base: file}
	}
	return name{base: base, info: file[len(base):]}
}

// unique is the base up to its first comma.
func (n name) unique() string {
	unique, _, _ := strings.Cut(n.base, ",")
	return unique
}

// field reads ,S=<n> or ,W=<n> from the base.
func (n name) field(key string) (int64, bool) {
	_, rest, ok := strings.Cut(n.base, ","+key+"=")
	if !ok {
		return 0, false
	}
	digits, _, _ := strings.Cut(rest, ",")
	v, err := strconv.ParseUint(digits, 10, 63)
	return int64(v), err == nil
}

// id is the queue ID of a letter we delivered ourselves; empty for all others.
func (n name) id() relay.ID {
	_, rest, ok := strings.Cut(n.base, ".R")
	if !ok {
		return ""
	}
	text, _, ok := strings.Cut(rest, ".")
	if !ok {
		return ""
	}
	id, err := relay.ParseID(text)
	if err != nil {
		return ""
	}
	return id
}

// seconds is the delivery time every maildir name begins with; 0 where it does not.
func (n name) seconds() int64 {
	digits, _, _ := strings.Cut(n.base, ".")
	v, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return 0
	}
	return v
}

// uid is the unique-id for POP3. It depends on nothing but what never changes in the name, so it
// survives restarts, flags, the move from new to cur and a restore from backup.
func (n name) uid() string {
	u := n.unique()
	if u == "" || len(u) > maxUID || !printable(u) {
		return digest(u)
	}
	return u
}

// digest stands in for a text that cannot be a unique-id itself.
func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// withSeen is the file name of the same letter in cur/ once somebody has read it. Flags stand in
// ASCII order, as the maildir specification asks.
func (n name) withSeen() string {
	flags, ok := strings.CutPrefix(n.info, ":2,")
	if !ok {
		return n.base + ":2,S"
	}
	if strings.Contains(flags, "S") {
		return n.base + n.info
	}
	i := strings.IndexFunc(flags, func(r rune) bool { return r > 'S' })
	if i < 0 {
		i = len(flags)
	}
	return n.base + ":2," + flags[:i] + "S" + flags[i:]
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
