package ctl

import (
	"context"

	"github.com/spf13/cobra"

	"relayd/relay"
	"relayd/relay/users"
)

const passwdLong = `passwd changes a user's password. It is kept as the last one was, unless told otherwise:

--argon2id    a hash that is hard to guess even for who steals the file; logins send the password
              under TLS (PLAIN, LOGIN, USER). This is how user add keeps it
--scram       a SCRAM-SHA-256 verifier: programs that can prove that they know the password without
              sending it (msmtp, mpop, gsasl); the others log in as before
--apop        a secret of its own for POP3's APOP, for programs that know nothing better. It is
              made and shown once, or read with --password-stdin, and lies readable in users.apop

As soon as one user has a verifier, SCRAM-SHA-256 is offered to all programs. One that picks it by
itself then fails for users without: give them one, too, or set the program to PLAIN.`

// setAs is a Store's SetPassword with a scheme.
func setAs(store *users.Store, scheme string) func(context.Context, relay.Address, string) error {
	return func(ctx context.Context, user relay.Address, password string) error {
		return store.SetPasswordAs(ctx, user, password, scheme)
	}
}

func (a *app) userPasswd() *cobra.Command {
	var stdin, scram, argon, apop, noAPOP bool
	cmd := &cobra.Command{
		Use: "passwd ADDRESS", Short: "Change a user's password", Long: passwdLong, Args: wants(false, "an ADDRESS"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !atMostOne(scram, argon, apop, noAPOP) {
				return usage("a verifier takes passwords, too; a secret for APOP is set by a call of its own",
					"--scram, --argon2id, --apop and --no-apop exclude each other")
			}
			store, _, user, err := a.openUser(args[0], false)
			if err != nil {
				return err
			}
			if !store.Exists(user) {
				return userFailed(users.ErrUnknown, user)
			}
			if apop || noAPOP {
				return a.userAPOP(cmd.Context(), store, user, apop, stdin)
			}
			password, err := a.password(cmd.Context(), stdin, user)
			if err != nil {
				return err
			}
			set := store.SetPassword
			switch {
			case scram:
				set = setAs(store, users.SchemeScram)
			case argon:
				set = setAs(store, users.SchemeArgon2)
			}
			if err := set(cmd.Context(), user, password); err != nil {
				return userFailed(err, user)
			}
			return a.userDone("passwd", "changed the password of "+user.String(), user)
		},
	}
	cmd.Flags().BoolVar(&stdin, "password-stdin", false, "read the password from the first line of standard input")
	cmd.Flags().BoolVar(&scram, "scram", false, "keep it as a SCRAM-SHA-256 verifier")
	cmd.Flags().BoolVar(&argon, "argon2id", false, "keep it as an argon2id hash")
	cmd.Flags().BoolVar(&apop, "apop", false, "make a secret for POP3's APOP and show it once; the password stays")
	cmd.Flags().BoolVar(&noAPOP, "no-apop", false, "take the secret for APOP away")
	return cmd
}
