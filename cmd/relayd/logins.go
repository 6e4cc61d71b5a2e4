package main

import (
	"net/netip"

	"relayd/relay"
	"relayd/relay/admin"
	"relayd/relay/users"
)

// logins shows relay/users to relay/admin.
type logins struct{ users *users.Store }

func (l logins) Guesses() []admin.Guessing {
	var list []admin.Guessing
	for _, g := range l.users.Guesses() {
		list = append(list, admin.Guessing{Client: g.Client, User: g.User.String(), All: g.All,
			Failures: g.Failures, Last: g.Last, Until: g.Until})
	}
	return list
}

func (l logins) Forgive(user relay.Address, client netip.Addr) int {
	return l.users.Forgive(user, client)
}
