package ctl

import (
	"fmt"

	"github.com/spf13/cobra"

	"relayd/relay/admin"
)

func (a *app) version() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Say which version this is", Args: wants(false),
		RunE: func(*cobra.Command, []string) error {
			if a.json {
				return a.printJSON(map[string]string{"version": admin.Version()})
			}
			_, err := fmt.Fprintln(a.Stdout, "relayctl "+admin.Version())
			return err
		},
	}
}
