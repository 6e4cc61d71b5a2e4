package ctl

import (
	"fmt"

	"github.com/spf13/cobra"

	"relayd/relay/users"
)

func (a *app) userLs() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List the users", Args: wants(false),
		RunE: func(*cobra.Command, []string) error {
			store, _, err := a.openUsers(false)
			if err != nil {
				return err
			}
			list, err := store.List()
			if err != nil {
				return err
			}
			return a.listUsers(list)
		},
	}
}

func (a *app) listUsers(list []users.User) error {
	for _, u := range list {
		if a.json {
			if err := a.printJSON(u); err != nil {
				return err
			}
			continue
		}
		text := u.Address.String()
		if u.Scheme == users.SchemeScram {
			text += "  SCRAM"
		}
		if u.APOP {
			text += "  APOP"
		}
		if u.Problem != "" {
			text += "  cannot log in: " + u.Problem
		}
		if _, err := fmt.Fprintln(a.Stdout, printable(text)); err != nil {
			return err
		}
	}
	if len(list) == 0 && !a.json {
		a.note("there are no users yet; relayctl user add ADDRESS makes one")
	}
	return nil
}
