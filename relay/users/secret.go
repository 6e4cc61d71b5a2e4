package users

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
)

const secretLen = 32

// loadSecret is the key from which salts are made for people who do not exist. It lies beside the
// users file, because an answer that changes when the daemon is restarted gives them away. Where it
// cannot be kept, one is made for as long as the daemon runs.
func (s *Store) loadSecret() []byte {
	path := s.path + ".secret"
	secret, err := os.ReadFile(path)
	if err == nil && len(secret) == secretLen {
		return secret
	}
	fresh := make([]byte, secretLen)
	rand.Read(fresh)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = (passwdFile{path}).replace(fresh)
	}
	if err != nil {
		s.log.Warn("cannot keep the key of made-up salts: strangers can tell who exists when relayd restarts", "file", path, "err", err)
	}
	return fresh
}
