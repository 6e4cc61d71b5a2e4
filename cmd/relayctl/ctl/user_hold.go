package ctl

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"relayd/config"
	"relayd/relay"
	"relayd/relay/admin"
	"relayd/relay/orders"
	"relayd/relay/users"
)

func (a *app) userRelease() *cobra.Command {
	return &cobra.Command{
		Use: "release ADDRESS", Short: "Let out the mail of a user who was over the limit",
		Long: `Sends what was held of the user's mail because it went to too many recipients, and counts from zero.
What was held by hand, with queue hold, stays held. relayd must be running.`,
		Args: wants(false, "an ADDRESS"),
		RunE: func(cmd *cobra.Command, args []string) error {
			user, err := a.holdUser(args[0])
			if err != nil {
				return err
			}
			c, err := a.dial()
			if err != nil {
				return err
			}
			defer c.Close()
			done, err := c.ReleaseUser(cmd.Context(), user)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(done)
			}
			text := fmt.Sprintf("released %s", count(done.Count, "item"))
			if done.Count == 0 {
				text = "nothing was held"
			}
			if done.Held {
				text += "; mail of " + printable(done.User.String()) + " is sent again"
			}
			_, err = fmt.Fprintln(a.Stdout, text)
			return err
		},
	}
}

func (a *app) userPurge() *cobra.Command {
	c := &change{app: a, queueVerb: queueVerb{"drop", "dropped", "", true}}
	cmd := &cobra.Command{
		Use: "purge ADDRESS", Short: "Throw away the held mail of a user who was over the limit",
		Long: `Throws away, without telling anybody, what is held of the user's mail because it went to too many
recipients. What comes meanwhile is held too, until user release lets the user write again: change the
password in between. On a terminal it asks first; --yes answers beforehand. relayd must be running.`,
		Args: wants(false, "an ADDRESS"),
		RunE: func(cmd *cobra.Command, args []string) error {
			user, err := a.holdUser(args[0])
			if err != nil {
				return err
			}
			return c.purge(cmd.Context(), user)
		},
	}
	cmd.Flags().BoolVarP(&c.yes, "yes", "y", false, "do not ask")
	return cmd
}

// holdUser reads the ADDRESS of release and purge, of which the domain may be left out.
func (a *app) holdUser(text string) (relay.Address, error) {
	var cfg *config.Config
	if a.dataFlag == "" {
		var err error
		if cfg, err = a.load(); err != nil {
			return relay.Address{}, err
		}
		if cfg.DefaultDomain != "" && !strings.Contains(text, "@") {
			text += "@" + string(cfg.DefaultDomain)
		}
	}
	user, err := address(text, cfg)
	return users.Normalize(user), err
}

// purge drops what is held of the user at this moment, and nothing that comes while the operator
// thinks.
func (c *change) purge(ctx context.Context, user relay.Address) error {
	if !c.yes && !c.interactive() {
		return usage("--yes, once relayctl queue ls --held --user "+user.String()+" has shown what it is",
			"user purge needs somebody to confirm it, and this is not a terminal")
	}
	client, err := c.dial()
	if err != nil {
		return err
	}
	defer client.Close()
	keys, totals, err := c.overLimit(ctx, client, user)
	if err != nil {
		return err
	}
	if len(keys) > 0 && !c.yes {
		if err := c.confirm(ctx, fmt.Sprintf("drop %s of %s?", c.summary(totals), printable(user.String()))); err != nil {
			return err
		}
	}
	if err := c.inBatches(ctx, client, keys, ""); err != nil {
		return err
	}
	if len(keys) == 0 {
		return nil
	}
	c.note("new mail of %s stays held until relayctl user release %s", user, user)
	return nil
}

// overLimit finds the items of a user that the limit holds, not those held by hand.
func (c *change) overLimit(ctx context.Context, client *admin.Client, user relay.Address) (keys []string, t admin.Totals, err error) {
	yes := true
	for it, err := range c.whole(client.List(ctx, admin.Filter{User: user.String(), Held: &yes})) {
		if err != nil {
			return nil, t, err
		}
		if it.Hold != "" && !orders.IsRule(it.Hold) {
			keys = append(keys, it.Key())
			t.Add(it)
		}
	}
	return keys, t, nil
}
