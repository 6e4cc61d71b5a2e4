package ctl

import (
	"strings"

	"github.com/spf13/cobra"

	"relayd/config"
)

const rootLong = `relayctl looks after relayd: its queue, its users, its configuration.

It talks to the running relayd over the socket control.sock in the data directory. While relayd
does not run, queue ls, show, why, shape, check and repair and hold ls read the files themselves, and user works as always.

Exit status: 0 done, 1 failed, 2 wrong usage.`

// root is the whole tree of commands.
func (a *app) root() *cobra.Command {
	root := a.group("relayctl", "Look after relayd: queue, users, configuration", rootLong)
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetIn(a.Stdin)
	root.SetOut(a.Stdout)
	root.SetErr(a.Stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage(cmd.CommandPath()+" --help", "%v", err)
	})
	root.AddCommand(a.dkim(), a.dns(), a.tlsReports(), a.dmarc())
	flags := root.PersistentFlags()
	flags.StringVar(&a.configFile, "config", config.DefaultPath, "the configuration `FILE`; dev means that of relayd --dev in this folder")
	flags.StringVar(&a.dataFlag, "data-dir", "", "use the relayd whose data is in `DIR`, whatever the configuration says")
	flags.BoolVar(&a.json, "json", false, "one JSON object a line, with stable names")
	_ = root.MarkPersistentFlagDirname("data-dir")
	root.AddCommand(a.queue(), a.hold(), a.schedule(), a.user(), a.auth(), a.devices(), a.gate(), a.sendmail(), a.status(), a.stats(), a.config(), a.reload(), a.version(), a.mail(), a.clientConfig())
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() == "completion" {
			c.Args, c.RunE = unknownVerb, a.needsVerb
		}
	}
	return root
}

// group is a command that only has verbs below it. Without Args and RunE of its own, cobra
// answers a mistyped verb with the help text and exit status 0.
func (a *app) group(use, short, long string) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Long: long, Args: unknownVerb, RunE: a.needsVerb,
		SuggestionsMinimumDistance: 2}
}

func (a *app) needsVerb(cmd *cobra.Command, _ []string) error {
	cmd.SetOut(a.Stderr)
	if err := cmd.Help(); err != nil {
		return err
	}
	return usage("", "%s what?", cmd.CommandPath())
}

// unknownVerb refuses a word that is no verb of a group, with the ones it may have been meant for.
func unknownVerb(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.SuggestionsMinimumDistance <= 0 {
		cmd.SuggestionsMinimumDistance = 2
	}
	advice := cmd.CommandPath() + " --help shows what there is"
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		advice = "did you mean " + strings.Join(near, " or ") + "?"
	}
	return usage(advice, "%s has no %q", cmd.CommandPath(), args[0])
}

// wants checks the number of arguments; many allows more than those named.
func wants(many bool, names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		advice := cmd.UseLine()
		if len(args) < len(names) {
			return usage(advice, "%s needs %s", cmd.CommandPath(), names[len(args)])
		}
		if !many && len(args) > len(names) {
			return usage(advice, "%s: %q is one word too many", cmd.CommandPath(), args[len(names)])
		}
		return nil
	}
}
