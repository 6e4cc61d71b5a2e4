package users

// Computed is how many passwords were computed so far.
func (s *Store) Computed() int64 { return s.computed.Load() }

// Parse reads the contents of a users file.
func Parse(data []byte) []User {
	var list []User
	for a, u := range newTable(data).users {
		list = append(list, User{Address: a, Scheme: u.scheme, Problem: u.problem})
	}
	return list
}

// Mistake makes the store believe that it has read the file as it is now, as a file system does
// whose clock stood still between two changes.
func (s *Store) Mistake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stamp, _, _ = stampOf(s.path)
}

// Hash is a hash of the password as it stands, as other programs make it.
func Hash(password string) string {
	return hashPassword(password, Params{Memory: 64, Time: 1, Threads: 1})
}
