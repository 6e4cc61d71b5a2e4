package maildir

import (
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"relayd/relay"
)

// maxComponent bounds one directory name in octets; file systems allow 255.
const maxComponent = 200

// Dir is where the letters of mailbox lie: root/<domain>/<local>, always exactly two levels below
// root, whatever the address says. Addresses that differ only in case or in Unicode normal form
// share a directory, all others never do.
func Dir(root string, mailbox relay.Address) string {
	return filepath.Join(root, component(string(mailbox.Domain)), component(mailbox.Local))
}

// component turns any string into one harmless directory name, injectively after fold: letters,
// digits and ._+-= stay, everything else becomes %XX for each of its octets. A name that is empty
// or too long gets a form in which the % is followed by no hexadecimal digits, so that no escaped
// name can equal it.
func component(s string) string {
	s = fold(s)
	if s == "" {
		return "%"
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		// A leading dot hides or climbs (., ..) and is how Maildir++ names folders; a leading
		// hyphen is an option to whoever types rm *.
		if safe(r, n) && (i > 0 || r != '.' && r != '-') {
			b.WriteString(s[i : i+n])
		} else {
			escape(&b, s[i:i+n])
		}
		i += n
	}
	if b.Len() <= maxComponent {
		return b.String()
	}
	sum := sha256.Sum256([]byte(s))
	return head(b.String(), maxComponent/2) + "%sha256-" + hex.EncodeToString(sum[:])
}

// fold is the normalisation of relay/users: lower case and NFC. Octets that are not UTF-8 are kept
// as they are, because ToLower would make all of them the same replacement character.
func fold(s string) string {
	if !utf8.ValidString(s) {
		return s
	}
	return norm.NFC.String(strings.ToLower(norm.NFC.String(s)))
}

func safe(r rune, n int) bool {
	switch {
	case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r < utf8.RuneSelf && strings.ContainsRune("._+-=", r):
		return true
	case r == utf8.RuneError && n == 1, r < utf8.RuneSelf:
		return false
	}
	return unicode.In(r, unicode.L, unicode.N, unicode.M)
}

func escape(b *strings.Builder, octets string) {
	const digits = "0123456789ABCDEF"
	for i := range len(octets) {
		b.WriteByte('%')
		b.WriteByte(digits[octets[i]>>4])
		b.WriteByte(digits[octets[i]&15])
	}
}

// head cuts an escaped name at a character boundary, so that the result stays valid UTF-8.
func head(s string, n int) string {
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
