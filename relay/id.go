package relay

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"strings"
	"time"
)

// ID names one letter from the moment we take it in: 16 characters of Crockford's base 32 in
// lower case, the first ten from the clock in milliseconds, the last six from crypto/rand.
// IDs therefore sort by age. The 250 that accepts a letter, the log, the queue and the file
// names all carry the same ID.
type ID string

const idAlphabet = "0123456789abcdefghjkmnpqrstvwxyz"

// idLen is the length of every ID in characters: 80 bits at 5 bits each.
const idLen = 16

// ErrBadID is what ParseID answers to anything that NewID cannot have made.
var ErrBadID = errors.New("not a queue id")

// NewID makes an ID for a letter accepted at now.
func NewID(now time.Time) ID {
	var raw [16]byte
	// Fifty bits of milliseconds and thirty of chance: at 10,000 letters a second the odds of a
	// clash within a millisecond are below one in ten million, and O_EXCL in the spool catches it.
	rand.Read(raw[8:])
	ms := uint64(max(now.UnixMilli(), 0))
	chance := binary.BigEndian.Uint64(raw[8:])
	var out [idLen]byte
	for i := 9; i >= 0; i-- {
		out[i] = idAlphabet[ms&31]
		ms >>= 5
	}
	for i := idLen - 1; i > 9; i-- {
		out[i] = idAlphabet[chance&31]
		chance >>= 5
	}
	return ID(out[:])
}

// ParseID checks text from outside (a command line, a file name).
func ParseID(s string) (ID, error) {
	if len(s) != idLen {
		return "", ErrBadID
	}
	for i := range len(s) {
		if idValue(s[i]) < 0 {
			return "", ErrBadID
		}
	}
	return ID(s), nil
}

// idValues is idAlphabet the other way round: a queue of 20,000 letters reads 320,000 characters at its
// start. -1 is none of them.
var idValues = func() (values [256]int8) {
	for c := range values {
		values[c] = int8(strings.IndexByte(idAlphabet, byte(c)))
	}
	return values
}()

func idValue(c byte) int { return int(idValues[c]) }
