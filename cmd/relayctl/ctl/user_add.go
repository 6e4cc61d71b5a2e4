package ctl

import (
	"github.com/spf13/cobra"

	"relayd/config"
	"relayd/relay"
	"relayd/relay/users"
)

func (a *app) userAdd() *cobra.Command {
	var stdin, scram bool
	cmd := &cobra.Command{
		Use: "add ADDRESS", Short: "Add a user",
		Example: "  relayctl user add ann@office.example\n  pass mail/ann | relayctl user add ann@office.example --password-stdin",
		Args:    wants(false, "an ADDRESS"),
		RunE: func(cmd *cobra.Command, args []string) error {
			store, cfg, user, err := a.openUser(args[0], true)
			if err != nil {
				return err
			}
			// Before somebody types a password twice for nothing.
			if store.Exists(user) {
				return userFailed(users.ErrExists, user)
			}
			a.warnForeign(user, cfg)
			password, err := a.password(cmd.Context(), stdin, user)
			if err != nil {
				return err
			}
			scheme := users.SchemeArgon2
			if scram {
				scheme = users.SchemeScram
			}
			if err := store.AddAs(cmd.Context(), user, password, scheme); err != nil {
				return userFailed(err, user)
			}
			return a.userDone("add", "added "+user.String(), user)
		},
	}
	cmd.Flags().BoolVar(&stdin, "password-stdin", false, "read the password from the first line of standard input")
	cmd.Flags().BoolVar(&scram, "scram", false, "keep it as a SCRAM-SHA-256 verifier; see relayctl help user passwd")
	return cmd
}

// warnForeign: such a user may log in and send, but gets no mail.
func (a *app) warnForeign(user relay.Address, cfg *config.Config) {
	if cfg == nil {
		return
	}
	if _, ours := cfg.Domains[user.Domain]; !ours {
		a.note("warning: %s is not in [domains], so no mail for %s is delivered here", user.Domain, user)
	}
}
