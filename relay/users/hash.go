package users

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// Params are what an argon2id hash costs (RFC 9106 §3.1).
type Params struct {
	Memory  uint32 // KiB
	Time    uint32 // passes
	Threads uint8
}

// DefaultParams are Dovecot's: 64 MiB, about 0.16 s on a core of 2.8 GHz.
var DefaultParams = Params{Memory: 64 << 10, Time: 3, Threads: 1}

// key computes the hash itself.
func (p Params) key(password string, salt []byte, size int) []byte {
	if p.Memory >= 8<<10 {
		// The hash's work space would lie about as garbage until the heap has doubled: for hours, in
		// a program that needs a tenth of it for everything else.
		defer debug.FreeOSMemory()
	}
	return argon2.IDKey([]byte(password), salt, p.Time, p.Memory, p.Threads, uint32(size))
}

// Bounds of hashes made elsewhere. A line must not be able to take the machine down.
const (
	maxMemory  = 256 << 10 // KiB
	maxTime    = 16
	maxThreads = 16
	maxCost    = 14 // bcrypt: a second or so
)

const (
	saltLen = 16
	sumLen  = 32
)

// verifier is a stored password that can be compared with one.
type verifier interface {
	verify(password string) bool
	memory() int64 // KiB it takes to do so
}

var (
	errNoPassword  = errors.New("no password is set")
	errPlain       = errors.New("the password is not hashed")
	errScheme      = errors.New("the password scheme is not known here")
	errMalformed   = errors.New("the password hash is malformed")
	errExpensive   = errors.New("the password hash costs too much memory or time")
	errBcryptCost  = fmt.Errorf("the bcrypt hash costs more than %d", maxCost)
	base64Argon    = base64.RawStdEncoding.Strict()
	plainSchemes   = []string{"PLAIN", "CLEAR", "CLEARTEXT", "PLAIN-TRUNC"}
	argon2idPrefix = "$argon2id$"
)

// parseHash reads the password field of a line, {SCHEME}hash.
func parseHash(field string) (scheme string, v verifier, err error) {
	hash := field
	if rest, ok := strings.CutPrefix(field, "{"); ok {
		if scheme, hash, ok = strings.Cut(rest, "}"); !ok {
			return "", nil, errMalformed
		}
	}
	scheme = strings.ToUpper(scheme)
	switch {
	case hash == "" || strings.HasPrefix(hash, "!") || strings.HasPrefix(hash, "*"):
		return scheme, nil, errNoPassword
	case strings.HasPrefix(hash, argon2idPrefix) && (scheme == "" || scheme == "ARGON2ID"):
		v, err = parseArgon2(hash)
		return "ARGON2ID", v, err
	case strings.HasPrefix(hash, "$2") && (scheme == "" || scheme == "BLF-CRYPT" || scheme == "CRYPT"):
		v, err = parseBcrypt(hash)
		return "BLF-CRYPT", v, err
	case scheme == SchemeScram:
		v, err = parseScram(hash)
		return scheme, v, err
	case scheme == "ARGON2ID" || scheme == "BLF-CRYPT":
		return scheme, nil, errMalformed
	}
	for _, plain := range plainSchemes {
		if scheme == plain {
			return scheme, nil, errPlain
		}
	}
	return scheme, nil, errScheme
}

// argon2Verifier is an argon2id hash in the PHC string format.
type argon2Verifier struct {
	params    Params
	salt, sum []byte
}

func (v argon2Verifier) verify(password string) bool {
	got := v.params.key(password, v.salt, len(v.sum))
	return subtle.ConstantTimeCompare(got, v.sum) == 1
}

func (v argon2Verifier) memory() int64 { return int64(v.params.Memory) }

// String is $argon2id$v=19$m=65536,t=3,p=1$salt$hash.
func (v argon2Verifier) String() string {
	return fmt.Sprintf("%sv=%d$m=%d,t=%d,p=%d$%s$%s", argon2idPrefix, argon2.Version, v.params.Memory,
		v.params.Time, v.params.Threads, base64Argon.EncodeToString(v.salt), base64Argon.EncodeToString(v.sum))
}

func parseArgon2(s string) (verifier, error) {
	parts := strings.Split(s, "$")
	if len(parts) != 6 || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return nil, errMalformed
	}
	var v argon2Verifier
	p := &v.params
	_, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &p.Memory, &p.Time, &p.Threads)
	if err != nil || parts[3] != fmt.Sprintf("m=%d,t=%d,p=%d", p.Memory, p.Time, p.Threads) {
		return nil, errMalformed
	}
	var saltErr, sumErr error
	v.salt, saltErr = base64Argon.DecodeString(parts[4])
	v.sum, sumErr = base64Argon.DecodeString(parts[5])
	switch {
	case saltErr != nil || sumErr != nil || len(v.salt) < 8 || len(v.salt) > 64 || len(v.sum) < 16 || len(v.sum) > 64:
		return nil, errMalformed
	case p.Time < 1 || p.Threads < 1 || p.Memory < 8*uint32(p.Threads):
		return nil, errMalformed
	case p.Memory > maxMemory || p.Time > maxTime || p.Threads > maxThreads:
		return nil, errExpensive
	}
	return v, nil
}

// hashPassword makes the password field of a line.
func hashPassword(password string, p Params) string {
	v := argon2Verifier{params: p, salt: make([]byte, saltLen)}
	rand.Read(v.salt)
	v.sum = p.key(password, v.salt, sumLen)
	return "{ARGON2ID}" + v.String()
}

// bcryptVerifier is a bcrypt hash, as BLF-CRYPT and {CRYPT}$2y$ hold it. It reads the first 72
// octets of a password, as Dovecot's does.
type bcryptVerifier string

func (v bcryptVerifier) verify(password string) bool {
	return bcrypt.CompareHashAndPassword([]byte(v), []byte(password)) == nil
}

func (bcryptVerifier) memory() int64 { return 4 }

func parseBcrypt(s string) (verifier, error) {
	cost, err := bcrypt.Cost([]byte(s))
	switch {
	case err != nil || len(s) != 60:
		return nil, errMalformed
	case cost > maxCost:
		return nil, errBcryptCost
	}
	return bcryptVerifier(s), nil
}

// Syllables of generated passwords: all are easy to say, and none looks like another.
const (
	consonants = "bdfghkmnprstvwyz"
	vowels     = "aeiou"
)

// GeneratePassword makes a password that can be read out on the telephone, such as
// "kobi-raze-funo-dami-tesu": ten syllables of chance, 63 bits.
func GeneratePassword() string {
	var b strings.Builder
	for i := range 10 {
		if i > 0 && i%2 == 0 {
			b.WriteByte('-')
		}
		b.WriteByte(consonants[chance(len(consonants))])
		b.WriteByte(vowels[chance(len(vowels))])
	}
	return b.String()
}

// chance is a number below n, each as likely as the others.
func chance(n int) int {
	fair := 256 - 256%n
	for {
		var one [1]byte
		rand.Read(one[:])
		if int(one[0]) < fair {
			return int(one[0]) % n
		}
	}
}
