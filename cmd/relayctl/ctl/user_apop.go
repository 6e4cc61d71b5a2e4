package ctl

import (
	"context"
	"errors"
	"fmt"

	"relayd/relay"
	"relayd/relay/users"
)

// userAPOP sets or removes a user's secret for APOP.
func (a *app) userAPOP(ctx context.Context, store *users.Store, user relay.Address, set, stdin bool) error {
	if !set {
		err := store.RemoveAPOP(ctx, user)
		if errors.Is(err, users.ErrUnknown) {
			return hint(fmt.Errorf("%s has no secret for APOP", user), "relayctl user ls shows who has")
		}
		if err != nil {
			return err
		}
		return a.userDone("no-apop", "removed the APOP secret of "+user.String(), user)
	}
	secret := users.GeneratePassword()
	if stdin {
		var err error
		if secret, err = passwordLine(a.Stdin); err != nil {
			return err
		}
	}
	if err := store.SetAPOP(ctx, user, secret); err != nil {
		return userFailed(err, user)
	}
	if stdin {
		return a.userDone("apop", "changed the APOP secret of "+user.String(), user)
	}
	if a.json {
		return a.printJSON(struct {
			Verb   string `json:"verb"`
			User   string `json:"user"`
			Secret string `json:"secret"`
		}{"apop", user.String(), secret})
	}
	_, err := fmt.Fprintf(a.Stdout, "the APOP secret of %s, shown this once: %s\n", printable(user.String()), secret)
	return err
}

func atMostOne(flags ...bool) bool {
	n := 0
	for _, f := range flags {
		if f {
			n++
		}
	}
	return n <= 1
}
