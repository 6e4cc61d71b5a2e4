package ctl

import (
	"github.com/spf13/cobra"

	"relayd/relay/users"
)

func (a *app) userRm() *cobra.Command {
	return &cobra.Command{
		Use: "rm ADDRESS", Aliases: []string{"remove"}, Short: "Remove a user; the mailbox stays on the disk",
		Args: wants(false, "an ADDRESS"),
		RunE: func(cmd *cobra.Command, args []string) error {
			store, cfg, err := a.openUsers(false)
			if err != nil {
				return err
			}
			user, err := address(args[0], cfg)
			if err != nil {
				return err
			}
			user = users.Normalize(user)
			if err := store.Remove(cmd.Context(), user); err != nil {
				return userFailed(err, user)
			}
			return a.userDone("rm", "removed "+user.String()+"; the mail stays where it is", user)
		},
	}
}
