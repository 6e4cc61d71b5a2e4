package ctl

import "github.com/spf13/cobra"

func (a *app) config() *cobra.Command {
	cmd := a.group("config", "Check the configuration", "")
	cmd.AddCommand(a.configCheck())
	return cmd
}
