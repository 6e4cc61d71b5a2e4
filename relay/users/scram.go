package users

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"

	"github.com/xdg-go/scram"

	"relayd/relay"
)

// The schemes SetPasswordAs makes.
const (
	SchemeArgon2 = "ARGON2ID"
	SchemeScram  = "SCRAM-SHA-256"
)

const (
	// scramIterations is how often a password is hashed: 0.04 s on a core of 2.8 GHz, which the
	// client spends at each login. RFC 7677 §4 asks for no less than 4096.
	scramIterations    = 200_000
	minScramIterations = 4096
	maxScramIterations = 2_000_000 // a line must not be able to take the machine down
)

var errScramCost = fmt.Errorf("the SCRAM verifier has fewer than %d or more than %d iterations", minScramIterations, maxScramIterations)

// scramVerifier is what SCRAM-SHA-256 needs to check a proof, and a password, too.
type scramVerifier struct {
	kind
	salt, storedKey, serverKey []byte
}

// kind is what a client learns of a verifier before it has proved anything, but for the salt.
type kind struct{ iterations, saltLen int }

// verify computes what the client would (RFC 5802 §3).
func (v scramVerifier) verify(password string) bool {
	got, err := newScramVerifier(password, v.salt, v.iterations)
	return err == nil && subtle.ConstantTimeCompare(got.storedKey, v.storedKey) == 1
}

func (scramVerifier) memory() int64 { return 4 }

// String is 200000,salt,StoredKey,ServerKey, as Dovecot writes it.
func (v scramVerifier) String() string {
	text := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("%d,%s,%s,%s", v.iterations, text(v.salt), text(v.storedKey), text(v.serverKey))
}

func newScramVerifier(password string, salt []byte, iterations int) (v scramVerifier, err error) {
	salted, err := pbkdf2.Key(sha256.New, password, salt, iterations, sha256.Size)
	if err != nil {
		return v, err
	}
	stored := sha256.Sum256(mac(salted, "Client Key"))
	return scramVerifier{kind{iterations, len(salt)}, salt, stored[:], mac(salted, "Server Key")}, nil
}

func mac(key []byte, parts ...string) []byte {
	h := hmac.New(sha256.New, key)
	for _, p := range parts {
		h.Write([]byte(p))
	}
	return h.Sum(nil)
}

// hashScram makes the password field of a line.
func hashScram(password string, iterations int) (string, error) {
	prepared, err := saslprep(password)
	if err != nil {
		return "", err
	}
	salt := make([]byte, saltLen)
	rand.Read(salt)
	v, err := newScramVerifier(prepared, salt, iterations)
	return "{" + SchemeScram + "}" + v.String(), err
}

func parseScram(s string) (verifier, error) {
	parts := strings.Split(s, ",")
	if len(parts) != 4 {
		return nil, errMalformed
	}
	var v scramVerifier
	var errs [4]error
	v.iterations, errs[0] = strconv.Atoi(parts[0])
	for i, dst := range []*[]byte{&v.salt, &v.storedKey, &v.serverKey} {
		*dst, errs[i+1] = base64.StdEncoding.Strict().DecodeString(parts[i+1])
	}
	v.saltLen = len(v.salt)
	switch {
	case errors.Join(errs[:]...) != nil || len(v.storedKey) != sha256.Size || len(v.serverKey) != sha256.Size:
		return nil, errMalformed
	case v.saltLen < 8 || v.saltLen > 64:
		return nil, errMalformed
	case v.iterations < minScramIterations || v.iterations > maxScramIterations:
		return nil, errScramCost
	}
	return v, nil
}

// HasScram implements relay.ScramAuthenticator.
func (s *Store) HasScram() bool { return len(s.current().kinds) > 0 }

// Scram implements relay.ScramAuthenticator. Nothing is counted before the proof is looked at: the
// salt alone says nothing of the password, and a client is told one whoever it names.
func (s *Store) Scram(client netip.Addr, binding relay.ChannelBinding) relay.ScramExchange {
	return newScramExchange(s, client, binding)
}

// scramExchange is one login by SCRAM-SHA-256.
type scramExchange struct {
	store   *Store
	client  netip.Addr
	conv    *scram.ServerConversation
	login   login
	genuine bool // the verifier is the user's
}

// maxScramMessage bounds what an exchange remembers of a client.
const maxScramMessage = 2048

var _ relay.ScramAuthenticator = (*Store)(nil)

func newScramExchange(s *Store, client netip.Addr, binding relay.ChannelBinding) *scramExchange {
	x := &scramExchange{store: s, client: client}
	server, err := scram.SHA256.NewServer(x.credentials)
	if err != nil {
		panic(err) // it never fails
	}
	channel := scram.ChannelBinding{Type: scram.ChannelBindingTLSExporter, Data: binding.Exporter}
	switch {
	case binding.Required:
		x.conv = server.NewConversationWithChannelBindingRequired(channel)
	case channel.IsSupported():
		x.conv = server.NewConversationWithChannelBinding(channel)
	default:
		x.conv = server.NewConversation()
	}
	return x
}

// Name implements relay.ScramExchange.
func (x *scramExchange) Name() string { return x.conv.Username() }

// First implements relay.ScramExchange.
func (x *scramExchange) First(message string) (string, error) {
	if len(message) > maxScramMessage {
		return "", relay.ErrLoginSyntax
	}
	reply, err := x.conv.Step(message)
	switch {
	case err == nil:
		return reply, nil
	case reply == scram.ErrServerDoesSupportChannelBinding:
		// It could bind, and was told that we cannot (RFC 5802 §6): by somebody in between.
		x.store.log.Warn("refused", "client", x.client, "reason", "the client was not told of SCRAM-SHA-256-PLUS")
		return "", relay.ErrDenied
	}
	// The library's error may quote what the client said.
	return "", relay.ErrLoginSyntax
}

// Final implements relay.ScramExchange.
func (x *scramExchange) Final(ctx context.Context, message string) (string, relay.Address, error) {
	if x.login.user == nil || x.conv.Done() || len(message) > maxScramMessage {
		return "", relay.Address{}, relay.ErrLoginSyntax
	}
	reply := ""
	who, err := x.store.attempt(ctx, x.login, func(try *try) (right bool, err error) {
		if err := try.wait(ctx); err != nil {
			return false, err
		}
		answer, err := x.conv.Step(message)
		if answer == scram.ErrChannelBindingsDontMatch {
			x.store.log.Warn("refused", "client", x.client, "user", x.login.whose(),
				"reason", "the login was made for another TLS connection: somebody may stand in between")
		}
		reply = answer
		return err == nil && x.conv.Valid() && x.genuine && x.identical(), nil
	})
	if err != nil {
		return "", relay.Address{}, err
	}
	return reply, who, nil
}

// identical: nobody acts as somebody else.
func (x *scramExchange) identical() bool {
	as := x.conv.AuthzID()
	return as == "" || as == x.conv.Username()
}

// credentials are those of the name, or some that look like it and open nothing.
func (x *scramExchange) credentials(name string) (scram.StoredCredentials, error) {
	s := x.store
	t := s.current()
	l := s.claim(t, name, x.client)
	v := s.fakeScram(t, name, l.user)
	if have, ok := l.user.verifier.(scramVerifier); ok {
		v, x.genuine = have, true
	}
	x.login = l
	return scram.StoredCredentials{
		KeyFactors: scram.KeyFactors{Salt: string(v.salt), Iters: v.iterations},
		StoredKey:  v.storedKey, ServerKey: v.serverKey,
	}, nil
}

// fakeScram is a verifier for somebody who has none: always the same for a name, in whatever
// spelling a user's name may come, even after a restart, and of a kind that users have. Otherwise
// strangers could ask which users exist.
func (s *Store) fakeScram(t *table, name string, u *user) scramVerifier {
	secret := s.secret()
	if !u.address.IsNull() {
		name = u.address.String()
	} else {
		name = t.spell(secret, name)
	}
	k := kind{scramIterations, saltLen}
	best := uint64(0)
	for _, have := range t.kinds {
		if n := rank(secret, "kind", fmt.Sprint(have), name); n >= best {
			best, k = n, have
		}
	}
	v := scramVerifier{kind: k, storedKey: mac(secret, "stored\x00", name), serverKey: mac(secret, "server\x00", name)}
	// 64 octets, the longest salt that parseScram lets through.
	v.salt = append(mac(secret, "salt\x00", name), mac(secret, "salt 2\x00", name)...)[:k.saltLen]
	return v
}

// spell is the address a name would have if it were a user's: like byLogin, it gives a name
// without a domain one of ours.
func (t *table) spell(secret []byte, name string) string {
	bare := !strings.Contains(name, "@")
	full := name
	if bare {
		full += "@bare.invalid"
	}
	a, err := relay.ParseAddress(full, true)
	if err != nil {
		return strings.ToLower(name)
	}
	a = Normalize(a)
	best := uint64(0)
	for d := range t.domains {
		if n := rank(secret, "domain", string(d), a.Local); bare && n >= best {
			best, a.Domain = n, d
		}
	}
	return a.String()
}

// rank puts candidates into an order of their own for each name, which stays when others join.
func rank(secret []byte, parts ...string) uint64 {
	n := binary.BigEndian.Uint64(mac(secret, strings.Join(parts, "\x00")))
	return min(n, math.MaxUint64-1) + 1
}
