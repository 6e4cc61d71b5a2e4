package ctl

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"relayd/config"
)

func (a *app) configCheck() *cobra.Command {
	return &cobra.Command{
		Use: "check [FILE]", Short: "Read a configuration and say everything that is wrong with it",
		Args: func(cmd *cobra.Command, args []string) error {
			return wants(false, make([]string, min(1, len(args)))...)(cmd, args)
		},
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 1 {
				a.configFile = args[0]
			}
			return a.checkConfig()
		},
	}
}

// checkConfig prints the complaints: with --json they are the result, otherwise the errors.
func (a *app) checkConfig() error {
	cfg, err := a.load()
	if err != nil {
		if bad, ok := errors.AsType[*config.Invalid](err); ok && a.json {
			return errors.Join(errSilent, a.complaintsJSON("error", bad.Complaints))
		}
		return err
	}
	if a.json {
		return a.complaintsJSON("warning", cfg.Warnings)
	}
	for _, c := range cfg.Warnings {
		c.Text = "warning: " + c.Text
		fmt.Fprintln(a.Stderr, printableLines(c.String()))
	}
	_, err = fmt.Fprintf(a.Stdout, "%s is fine\n", printable(a.configFile))
	return err
}

func (a *app) complaintsJSON(severity string, list []config.Complaint) error {
	for _, c := range list {
		if err := a.printJSON(struct {
			Severity string `json:"severity"`
			config.Complaint
		}{severity, c}); err != nil {
			return err
		}
	}
	return nil
}
