package ctl

import (
	"github.com/spf13/cobra"

	"relayd/relay/users"
)

func (a *app) userPasswd() *cobra.Command {
	var stdin bool
	cmd := &cobra.Command{
		Use: "passwd ADDRESS", Short: "Change a user's password", Args: wants(false, "an ADDRESS"),
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
			if !store.Exists(user) {
				return userFailed(users.ErrUnknown, user)
			}
			password, err := a.password(cmd.Context(), stdin, user)
			if err != nil {
				return err
			}
			if err := store.SetPassword(cmd.Context(), user, password); err != nil {
				return userFailed(err, user)
			}
			return a.userDone("passwd", "changed the password of "+user.String(), user)
		},
	}
	cmd.Flags().BoolVar(&stdin, "password-stdin", false, "read the password from the first line of standard input")
	return cmd
}
