package users

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/xdg-go/stringprep"
	"golang.org/x/text/unicode/norm"
)

// opaque is the one spelling of a password: an é is the same however it was typed, and so are the
// spaces of all scripts (OpaqueString, RFC 8265 §4.2.2). New hashes are made of it. What the RFC
// has refused is checkPassword's matter.
func opaque(password string) string {
	return norm.NFC.String(strings.Map(func(r rune) rune {
		if unicode.Is(unicode.Zs, r) {
			return ' '
		}
		return r
	}, password))
}

// saslprep is how a SCRAM client spells a password before it computes its proof (RFC 5802 §5.1,
// RFC 4013): we cannot try other spellings on a proof. Clients do not agree about what it refuses,
// such as emoji.
func saslprep(password string) (string, error) {
	prepared, err := stringprep.SASLprep.Prepare(password)
	if err != nil || prepared == "" {
		return "", fmt.Errorf("%w: it has a character that SCRAM does not carry (RFC 4013)", ErrPassword)
	}
	return prepared, nil
}

// spellings are the forms in which a password may have been hashed: by us, by a SCRAM client, and
// as it was typed, by other programs and before spellings were unified. Of ASCII there is only one.
func spellings(password string, v verifier) []string {
	all := []string{opaque(password)}
	if _, ok := v.(scramVerifier); ok {
		if prepared, err := saslprep(password); err == nil {
			all = append(all, prepared)
		}
	}
	all = append(all, password)
	slices.Sort(all)
	return slices.Compact(all)
}

// verifies says whether password, in one of its spellings, is the user's.
func (u *user) verifies(password string) bool {
	return slices.ContainsFunc(spellings(password, u.verifier), u.verifier.verify)
}
