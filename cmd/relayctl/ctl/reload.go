package ctl

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"relayd/relay/admin"
)

func (a *app) reload() *cobra.Command {
	return &cobra.Command{
		Use: "reload", Short: "Have relayd read its configuration and users again", Args: wants(false),
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := a.withRelayd(func(c *admin.Client) error { return c.Reload(cmd.Context()) })
			if e, ok := errors.AsType[*admin.Error](err); ok && e.Code == http.StatusUnprocessableEntity {
				fmt.Fprintln(a.Stderr, printableLines(e.Message))
				return errors.New("relayd goes on with its old configuration")
			}
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(map[string]bool{"reloaded": true})
			}
			_, err = fmt.Fprintln(a.Stdout, "reloaded")
			return err
		},
	}
}
