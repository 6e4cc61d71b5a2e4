package users

import (
	"net/netip"
	"time"

	"relayd/relay"
)

// Guessing is somebody who has tried wrong passwords.
type Guessing struct {
	Client   netip.Prefix  // an IPv4 address or an IPv6 /64
	User     relay.Address // null: names that nobody has
	All      bool          // all names tried from there together
	Failures int
	Last     time.Time
	Until    time.Time // refused until then; in the past: not refused
}

// Guesses lists who has tried wrong passwords within a day, the latest first. There are at most
// 20,000.
func (s *Store) Guesses() []Guessing {
	t, now := s.throttle, time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []Guessing
	for who, have := range t.tallies.all {
		if now.Sub(have.last) <= forgetAfter {
			list = append(list, Guessing{Client: who.from, User: have.user, All: who == who.whole(),
				Failures: have.failures, Last: have.last, Until: have.until})
		}
	}
	return list
}

// Forgive forgets the wrong passwords of a user (null: whoever) from an address (the zero Addr:
// anywhere) and returns how many entries of Guesses that were.
func (s *Store) Forgive(user relay.Address, client netip.Addr) int {
	user = Normalize(user)
	t := s.throttle
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for who, have := range t.tallies.all {
		if (user.IsNull() || have.user == user) && (!client.IsValid() || who.from == origin(client)) {
			t.tallies.drop(who)
			n++
		}
	}
	return n
}
