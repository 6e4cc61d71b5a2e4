package ctl

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"relayd/relay"
	"relayd/relay/admin"
)

func (a *app) queueEdit() *cobra.Command {
	c := &change{app: a, queueVerb: queueVerb{"edit", "edited", "Change the sender or a recipient of waiting mail", false}}
	var newSender, newRcpt, moreRcpt, cutRcpt string
	cmd := &cobra.Command{
		Use: "edit [ID...]", Short: c.short,
		Long: `edit gives waiting mail another sender, for reports, or another recipient, one more or one less. The letter itself is not
touched. Each item goes on as a letter of its own, under a new ID and with the age it had; its attempts are
counted from none. An item with an attempt under way is refused, and so is a recipient with a mailbox here:
relayctl queue show --raw ID | relayctl mail send brings the letter there.

Names the mail by ID, by ID/DOMAIN or by the same filters as queue ls.`,
		Example: "  relayctl queue edit 0abcdefghjkmnpqr --set-recipient bob@partner.exmaple=bob@partner.example\n  relayctl queue edit --from eve@ --set-sender postmaster@office.example",
		RunE: func(cmd *cobra.Command, args []string) error {
			order, err := c.order(cmd, args)
			if err != nil {
				return err
			}
			edit := admin.Edit{Filter: order.Filter, All: c.all, Dry: c.dry}
			if cmd.Flags().Changed("set-sender") {
				sender := strings.TrimSpace(newSender)
				if sender == "" {
					return usage("<> is the sender of reports", "--set-sender is empty")
				}
				if sender == "<>" {
					sender = ""
				}
				edit.Sender = &sender
			}
			if cmd.Flags().Changed("set-recipient") {
				old, to, both := strings.Cut(newRcpt, "=")
				if !both {
					old, to = "", newRcpt
				}
				if edit.OldRcpt, edit.NewRcpt = strings.ToLower(old), to; to == "" || both && old == "" {
					return usage("--set-recipient OLD=NEW, or NEW for all that are left", "--set-recipient lacks an address")
				}
			}
			edit.AddRcpt, edit.CutRcpt = strings.TrimSpace(moreRcpt), strings.TrimSpace(cutRcpt)
			for name, value := range map[string]string{"add-recipient": edit.AddRcpt, "remove-recipient": edit.CutRcpt} {
				if cmd.Flags().Changed(name) && value == "" {
					return usage("", "--%s is empty", name)
				}
			}
			if edit.Sender == nil && edit.NewRcpt+edit.AddRcpt+edit.CutRcpt == "" {
				return usage("--set-sender ADDRESS, --set-recipient OLD=NEW, --add-recipient or --remove-recipient", "edit to what?")
			}
			return c.edit(cmd.Context(), edit)
		},
	}
	c.filter.register(cmd)
	cmd.Flags().StringVar(&newSender, "set-sender", "", "the new sender, an `ADDRESS`; <> for none")
	cmd.Flags().StringVar(&newRcpt, "set-recipient", "", "`OLD=NEW`, or NEW in the place of all that are left")
	cmd.Flags().StringVar(&moreRcpt, "add-recipient", "", "one more, an `ADDRESS`; once for each message")
	cmd.Flags().StringVar(&cutRcpt, "remove-recipient", "", "an `ADDRESS` that shall not get it; * and ? stand for any characters and any one")
	cmd.Flags().BoolVar(&c.all, "all", false, "everything in the queue")
	cmd.Flags().BoolVar(&c.dry, "dry-run", false, "change nothing, say how much would be")
	cmd.Flags().BoolVarP(&c.yes, "yes", "y", false, "do not ask")
	return cmd
}

func (c *change) edit(ctx context.Context, o admin.Edit) error {
	client, err := c.dial()
	if o.Dry && errors.Is(err, admin.ErrNotRunning) {
		return c.rehearse(ctx, admin.Order{Filter: o.Filter, All: o.All})
	}
	if err != nil {
		return err
	}
	defer client.Close()
	var done admin.Edited
	if ask := c.interactive() && !c.yes; len(o.IDs) == 0 && !o.Dry && (ask || c.TerminalErr) {
		done, err = c.editChosen(ctx, client, o, ask)
	} else {
		done, err = client.Edit(ctx, o)
	}
	if err != nil {
		return err
	}
	return c.reportEdit(done, o.Dry)
}

// editChosen asks, where it shall, about what is in the queue now, and edits exactly that, with a bar.
func (c *change) editChosen(ctx context.Context, client *admin.Client, o admin.Edit, ask bool) (done admin.Edited, err error) {
	var keys []string
	for it, err := range c.whole(client.Summaries(ctx, o.Filter)) {
		if err != nil {
			return done, err
		}
		keys = append(keys, it.Key())
	}
	o.All = false
	if ask {
		o.Dry = true
		would, err := c.editBatches(ctx, client, o, keys, func(int) {})
		if err != nil {
			return done, err
		}
		if would.Count > 0 {
			if err := c.confirm(ctx, fmt.Sprintf("edit %s?", count(would.Count, "item"))); err != nil {
				return done, err
			}
		}
		o.Dry = false
	}
	bar := c.progress(len(keys), c.done)
	done, err = c.editBatches(ctx, client, o, keys, func(n int) { _ = bar.Add(n) }) // a bar that cannot be drawn stops nothing
	if err != nil {
		if done.Count > 0 {
			err = fmt.Errorf("%s at least %s, then: %w", c.done, count(done.Count, "item"), err)
		}
		return done, err
	}
	_ = bar.Finish()
	return done, nil
}

// editBatches gives several orders for the items that keys name. The items of one letter stay together:
// a recipient who is added gets each letter once.
func (c *change) editBatches(ctx context.Context, client *admin.Client, o admin.Edit, keys []string, step func(items int)) (admin.Edited, error) {
	letter := func(key string) string { id, _, _ := strings.Cut(key, "/"); return id }
	all := admin.Edited{IDs: []relay.ID{}}
	for len(keys) > 0 {
		n := min(changeBatch, len(keys))
		for n < len(keys) && letter(keys[n]) == letter(keys[n-1]) {
			n++
		}
		o.Filter = admin.Filter{Keys: keys[:n]}
		done, err := client.Edit(ctx, o)
		if err != nil {
			return all, err
		}
		all.Count += done.Count
		all.IDs = append(all.IDs, done.IDs...)
		keys = keys[n:]
		step(n)
	}
	return all, nil
}

func (c *change) reportEdit(done admin.Edited, dry bool) error {
	if c.json {
		return c.printJSON(struct {
			Verb string `json:"verb"`
			admin.Edited
			Dry bool `json:"dry_run,omitempty"`
		}{"edit", done, dry})
	}
	text := "edited " + count(done.Count, "item")
	switch {
	case done.Count == 0:
		text = "nothing in the queue matches, or it is so already"
	case dry:
		text = "edit would be for " + count(done.Count, "item")
	}
	for _, id := range done.IDs {
		text += "\n" + string(id)
	}
	_, err := fmt.Fprintln(c.Stdout, text)
	return err
}
