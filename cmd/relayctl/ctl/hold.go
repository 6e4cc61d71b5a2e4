package ctl

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"relayd/relay/admin"
	"relayd/relay/orders"
)

const holdLong = `hold keeps standing rules: new mail that leaves the office and matches one is accepted and held, with
the rule as its reason, until relayctl queue release. Mail to mailboxes here is not concerned, nor is
mail that waits already: relayctl queue hold takes the same filters.

A rule needs --from, --to or --domain; what it says must match altogether. --from and --to match what
occurs anywhere in an address, or all of it with * and ?.`

func (a *app) hold() *cobra.Command {
	cmd := a.group("hold", "Rules that hold new mail", holdLong)
	cmd.AddCommand(a.holdLs(), a.holdChange(false), a.holdChange(true))
	return cmd
}

func (a *app) holdLs() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List the rules", Args: wants(false),
		RunE: func(cmd *cobra.Command, _ []string) error {
			rules, err := a.holdRules(cmd.Context())
			if err != nil {
				return err
			}
			if a.json {
				for _, r := range rules {
					if err := a.printJSON(r); err != nil {
						return err
					}
				}
				return nil
			}
			if len(rules) == 0 {
				_, err := fmt.Fprintln(a.Stdout, "there are no hold rules")
				return err
			}
			t := a.table("RULE", "AGE", "REASON")
			for _, r := range rules {
				t.add([]string{printable(r.String()), span(a.Now().Sub(r.Since)), printable(r.Reason)})
			}
			return t.flush()
		},
	}
}

// holdRules asks the daemon, or reads its file where none runs.
func (a *app) holdRules(ctx context.Context) ([]orders.Rule, error) {
	dir, err := a.dataDir()
	if err != nil {
		return nil, err
	}
	c, err := admin.Dial(dir)
	if errors.Is(err, admin.ErrNotRunning) {
		a.note("relayd is not running: reading the rules in %s", dir)
		_, rules, err := orders.Read(filepath.Join(dir, ordersFile))
		return rules, err
	}
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.Rules(ctx)
}

// holdChange is add, or rm.
func (a *app) holdChange(remove bool) *cobra.Command {
	var r orders.Rule
	var dry bool
	cmd := &cobra.Command{
		Use: "add", Short: "Hold new mail from now on", Args: wants(false), Long: holdLong,
		Example: "  relayctl hold add --from eve@office.example --reason 'account under investigation'\n  relayctl hold add --domain partner.example",
		RunE: func(cmd *cobra.Command, _ []string) error {
			for name, value := range map[string]string{"from": r.From, "to": r.To, "domain": r.Domain} {
				if value == "" && cmd.Flags().Changed(name) {
					return usage("leave it out", "--%s is empty", name)
				}
			}
			if r.From == "" && r.To == "" && r.Domain == "" {
				return usage("--from X, --to X or --domain D", "%s what?", cmd.CommandPath())
			}
			return a.changeRule(cmd.Context(), r, remove, dry)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&r.From, "from", "", "mail whose sender contains `TEXT`; <> for reports")
	flags.StringVar(&r.To, "to", "", "mail with a recipient that contains `TEXT`")
	flags.StringVar(&r.Domain, "domain", "", "mail to `DOMAIN`")
	flags.BoolVar(&dry, "dry-run", false, "change nothing, say how much that waits now it matches")
	if remove {
		cmd.Use, cmd.Short, cmd.Example = "rm", "End a rule", "  relayctl hold rm --from eve@office.example"
		cmd.Long = "rm ends the rule that was added with the same flags. What it held stays held: relayctl queue release."
		return cmd
	}
	flags.StringVar(&r.Reason, "reason", "", "a `NOTE` shown with the mail it holds")
	return cmd
}

func (a *app) changeRule(ctx context.Context, r orders.Rule, remove, dry bool) error {
	verb := map[bool]string{true: "hold rm", false: "hold add"}[remove]
	r, err := r.Check()
	if err != nil {
		return err
	}
	if dry {
		c := &change{app: a, queueVerb: queueVerb{name: verb}, dry: true}
		return c.rehearse(ctx, admin.Order{Filter: admin.Filter{From: r.From, To: r.To, Domain: r.Domain}})
	}
	c, err := a.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	act := c.AddRule
	if remove {
		act = c.RemoveRule
	}
	done, err := act(ctx, r)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(struct {
			Verb    string      `json:"verb"`
			Rule    orders.Rule `json:"rule"`
			Changed bool        `json:"changed"`
		}{verb, done.Rule, done.Changed})
	}
	var text string
	switch {
	case done.Changed && remove:
		text = "removed the rule " + r.String()
	case done.Changed:
		text = "new mail is held by the rule " + r.String()
	case remove:
		text = "there is no rule " + r.String()
	default:
		text = "there was such a rule already: " + r.String()
	}
	if remove && !done.Changed {
		return hint(errors.New(text), "relayctl hold ls shows them")
	}
	_, err = fmt.Fprintln(a.Stdout, printable(text))
	return err
}
