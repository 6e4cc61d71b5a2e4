package users

import (
	"context"
	"crypto/md5"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"
	"sync"

	"relayd/relay"
)

// minAPOP is the least length of an APOP secret: whoever sees a digest go by can try words on it,
// some thousand million a second.
const minAPOP = 16

// ErrAPOP is an APOP secret that would give away too much. The error wraps why.
var ErrAPOP = errors.New("this cannot be an APOP secret")

// apopBook is the file of APOP secrets beside the users file. APOP (RFC 1939 §7) needs to read
// them, so they are secrets of their own, that open nothing else, in a file of mode 0600.
type apopBook struct {
	mu      sync.Mutex
	stamp   stamp
	secrets map[relay.Address]string
}

// HasAPOP says whether anybody can log in by APOP; where nobody can, it is not offered.
func (s *Store) HasAPOP() bool { return len(s.apopSecrets()) > 0 }

// SetAPOP gives a user a secret for APOP. It must not be the user's password, which would then lie
// readable on the disk. Errors: ErrUnknown, ErrPassword, ErrAPOP.
func (s *Store) SetAPOP(ctx context.Context, a relay.Address, secret string) error {
	a = Normalize(a)
	u := s.current().users[a]
	err := checkPassword(secret)
	switch {
	case u == nil:
		err = ErrUnknown
	case err != nil:
	case len(secret) < minAPOP:
		err = fmt.Errorf("%w: it is shorter than %d bytes", ErrAPOP, minAPOP)
	case strings.Contains(secret, ":"):
		err = fmt.Errorf("%w: it contains a colon", ErrAPOP)
	case u.verifier != nil && u.verifies(secret):
		err = fmt.Errorf("%w: it is the user's password", ErrAPOP)
	}
	if err != nil {
		return fmt.Errorf("users: set APOP secret of %s: %w", a, err)
	}
	return s.apopFile().edit(ctx, "set APOP secret of", a, func(lines [][]byte, found []int) ([][]byte, error) {
		return append(without(lines, found), []byte(a.String()+":{PLAIN}"+secret+"\n")), nil
	})
}

// RemoveAPOP takes a user's APOP secret away. Error: ErrUnknown, where there is none.
func (s *Store) RemoveAPOP(ctx context.Context, a relay.Address) error {
	if _, err := os.Stat(s.apopFile().path); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("users: remove APOP secret of %s: %w", a, ErrUnknown)
	}
	return s.apopFile().edit(ctx, "remove APOP secret of", a, func(lines [][]byte, found []int) ([][]byte, error) {
		if len(found) == 0 {
			return nil, ErrUnknown
		}
		return without(lines, found), nil
	})
}

func without(lines [][]byte, found []int) [][]byte {
	for _, i := range found {
		lines[i] = nil
	}
	return lines
}

func (s *Store) apopFile() passwdFile { return passwdFile{s.path + ".apop"} }

// APOP says whose mailbox a digest opens that was made of challenge and a secret. It counts wrong
// digests with wrong passwords; errors are those of Authenticate.
func (s *Store) APOP(ctx context.Context, name, challenge, digest string, client netip.Addr) (relay.Address, error) {
	l := s.claim(s.current(), name, client)
	secret, has := s.apopSecrets()[l.user.address]
	if !has || !l.known {
		secret = string(s.secret())
	}
	return s.attempt(ctx, l, func(try *try) (bool, error) {
		if err := try.wait(ctx); err != nil {
			return false, err
		}
		sum := md5.Sum([]byte(challenge + secret))
		right := subtle.ConstantTimeCompare([]byte(hex.EncodeToString(sum[:])), []byte(digest)) == 1
		return right && has && l.known, nil
	})
}

// claim is a login that proves itself without a password: a repeated wrong proof cannot be told
// from a new one, so each counts.
func (s *Store) claim(t *table, name string, client netip.Addr) login {
	l := login{client: client, who: suspect{from: origin(client)}}
	rand.Read(l.proof[:])
	if l.user, l.known = t.byLogin(name); l.known {
		l.who.name = s.memory.sum("user", l.user.address.String())
		return l
	}
	l.who.name = s.memory.sum("nobody", strings.ToLower(name))
	if l.user == nil {
		l.user = &user{}
	}
	return l
}

// apopSecrets reads the file again if it has changed. One that others may read is not used: what
// it holds is no secret any more.
func (s *Store) apopSecrets() map[relay.Address]string {
	b := &s.apop
	b.mu.Lock()
	defer b.mu.Unlock()
	path := s.apopFile().path
	now, young, err := stampOf(path)
	switch {
	case err != nil:
		if !errors.Is(err, errNotExist) {
			s.log.Error("cannot read the APOP secrets", "file", path, "err", err)
		}
		b.stamp, b.secrets = stamp{}, nil
		return nil
	case now == b.stamp && !young:
		return b.secrets
	}
	known := b.stamp
	b.stamp, b.secrets = now, nil
	info, err := os.Stat(path)
	if err == nil && info.Mode().Perm()&0o077 != 0 {
		err = errors.New("others than its owner may read it: chmod 600")
	}
	var data []byte
	if err == nil {
		data, err = readAll(path)
	}
	if err != nil {
		if known != now {
			s.log.Error("the APOP secrets are not used", "file", path, "err", err)
		}
		return nil
	}
	b.secrets = parseAPOP(string(data))
	return b.secrets
}

func parseAPOP(data string) map[relay.Address]string {
	secrets := map[relay.Address]string{}
	for line := range strings.Lines(data) {
		u, _ := parseLine(line)
		if u == nil {
			continue
		}
		if secret, ok := strings.CutPrefix(u.stored, "{PLAIN}"); ok && secret != "" {
			secrets[u.address] = secret
		}
	}
	return secrets
}
