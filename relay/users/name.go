package users

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"relayd/relay"
)

// Normalize is the one form of an address of ours: the local part in lower case and Unicode normal
// form C, because names match in any case and however an é was typed. config.NormalizeLocal
// agrees with it, which a test of config sees to.
func Normalize(a relay.Address) relay.Address {
	a.Local = norm.NFC.String(strings.ToLower(norm.NFC.String(a.Local)))
	return a
}

// checkName says whether a can be the name of a user: it must survive a line of the file, a path
// of Dovecot's and a login form.
func checkName(a relay.Address) error {
	bare := strings.TrimSuffix(a.String(), "@"+string(a.Domain))
	switch {
	case a.Local == "" || a.Domain == "":
		return fmt.Errorf("%w: it must be of the form ann@office.example", ErrName)
	case a.Domain.IsLiteral():
		return fmt.Errorf("%w: its domain must be a name, not an address", ErrName)
	case len(a.Local) > relay.MaxLocal:
		return fmt.Errorf("%w: the part before the @ is longer than %d bytes", ErrName, relay.MaxLocal)
	case bare != a.Local, strings.ContainsAny(a.Local, "/:"), strings.HasPrefix(a.Local, "#"):
		return fmt.Errorf("%w: the part before the @ may have letters, digits and .-_+ inside", ErrName)
	case !utf8.ValidString(a.Local), strings.ContainsFunc(a.Local, unprintable):
		return fmt.Errorf("%w: it has a character that cannot be seen", ErrName)
	}
	return nil
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) || r == utf8.RuneError }

// newName is the name of a user, normalised. It is checked before, because normalising mends what
// is not UTF-8, and after, because it may lengthen.
func newName(a relay.Address) (relay.Address, error) {
	if err := checkName(a); err != nil {
		return relay.Address{}, err
	}
	a = Normalize(a)
	return a, checkName(a)
}

// maxPassword is the longest password in octets; a longer one only wastes our time.
const maxPassword = 1024

// checkPassword says whether anybody can have this password. A NUL must not cut a name or a
// password short, as it did elsewhere, and no login form can type the other control characters.
func checkPassword(p string) error {
	switch {
	case p == "":
		return fmt.Errorf("%w: it is empty", ErrPassword)
	case len(p) > maxPassword:
		return fmt.Errorf("%w: it is longer than %d bytes", ErrPassword, maxPassword)
	case !utf8.ValidString(p), strings.ContainsFunc(p, unicode.IsControl):
		return fmt.Errorf("%w: it has a control character or is not in UTF-8", ErrPassword)
	}
	return nil
}
