package users

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"time"
)

const (
	rememberFor = 10 * time.Minute
	remembered  = 10_000 // at most, or less than 1 MiB
)

// proof is a keyed hash of a user, the stored hash and the password that opened it. The key lives
// in this process alone, so that a core dump's proofs are worth as little as argon2 hashes without
// it; and a changed password makes another proof.
type proof [sha256.Size]byte

// memory remembers for minutes which passwords were right.
type memory struct {
	key [32]byte

	mu    sync.Mutex
	until map[proof]time.Time
}

func newMemory() *memory {
	m := &memory{until: map[proof]time.Time{}}
	rand.Read(m.key[:])
	return m
}

// sum hashes parts so that no two lists of parts come to the same.
func (m *memory) sum(parts ...string) proof {
	h := hmac.New(sha256.New, m.key[:])
	for _, p := range parts {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(p)))
		h.Write(n[:])
		h.Write([]byte(p))
	}
	return proof(h.Sum(nil))
}

func (m *memory) proof(u *user, password string) proof {
	return m.sum("proof", u.address.Local, string(u.address.Domain), u.stored, password)
}

// pick chooses one of n for a name, always the same one, in a way nobody outside can foretell.
func (m *memory) pick(name string, n int) int {
	if n == 0 {
		return 0
	}
	sum := m.sum("pick", name)
	return int(binary.BigEndian.Uint64(sum[:8]) % uint64(n))
}

func (m *memory) has(p proof) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	until, ok := m.until[p]
	return ok && time.Now().Before(until)
}

func (m *memory) add(p proof) {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.until) >= remembered {
		m.forget(now)
	}
	m.until[p] = now.Add(rememberFor)
}

// forget makes room: what is over goes, and if that is nothing, everything does.
func (m *memory) forget(now time.Time) {
	for p, until := range m.until {
		if !now.Before(until) {
			delete(m.until, p)
		}
	}
	if len(m.until) >= remembered {
		clear(m.until)
	}
}
