package ctl

import "github.com/spf13/cobra"

func (a *app) userRm() *cobra.Command {
	return &cobra.Command{
		Use: "rm ADDRESS", Aliases: []string{"remove"}, Short: "Remove a user; the mailbox stays on the disk",
		Args: wants(false, "an ADDRESS"),
		RunE: func(cmd *cobra.Command, args []string) error {
			store, _, user, err := a.openUser(args[0], false)
			if err != nil {
				return err
			}
			if err := store.Remove(cmd.Context(), user); err != nil {
				return userFailed(err, user)
			}
			return a.userDone("rm", "removed "+user.String()+"; the mail stays where it is", user)
		},
	}
}
