package ctl

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayd/relay/admin"
)

// queueVerb is one way to change waiting mail.
type queueVerb struct {
	name, done, short string
	final             bool // the mail is gone after it
}

var queueVerbs = []queueVerb{
	{"retry", "retrying", "Try now instead of at the next time", false},
	{"hold", "held", "Keep from being tried until released", false},
	{"schedule", "scheduled", "Set the time of the next attempt", false},
	{"route", "routed", "Send by another host from now on", false},
	{"release", "released", "Let held mail go", false},
	{"drop", "dropped", "Throw away without telling anybody", true},
	{"bounce", "bounced", "Give up now and tell the sender", true},
}

// changeBatch is how many items go into one order after a confirmation.
const changeBatch = 500

// change is one run of a queue verb.
type change struct {
	*app
	queueVerb
	filter filterFlags
	all    bool
	yes    bool
	dry    bool
	reason string
	at     time.Time
	via    *string // route: see admin.Order
}

func (a *app) queueChange(v queueVerb) *cobra.Command {
	c := &change{app: a, queueVerb: v}
	cmd := &cobra.Command{
		Use: v.name + " [ID...]", Short: v.short,
		Long: v.short + `.

Names the mail by ID, by ID/DOMAIN or by the same filters as queue ls. On a terminal it asks first
where a filter chooses or the mail will be gone; --yes answers beforehand, and --dry-run only says how
much it is, with relayd stopped too.`,
		Example: fmt.Sprintf("  relayctl queue %[1]s 0abcdefghjkmnpqr\n  relayctl queue %[1]s --domain partner.example --older 2h", v.name),
		RunE: func(cmd *cobra.Command, args []string) error {
			take := map[string]func([]string) ([]string, error){"schedule": c.takeTime, "route": c.takeVia}[v.name]
			if take != nil {
				var err error
				if args, err = take(args); err != nil {
					return err
				}
			}
			order, err := c.order(cmd, args)
			if err != nil {
				return err
			}
			return c.run(cmd.Context(), order)
		},
	}
	if v.name == "route" {
		cmd.Use = "route HOST [ID...]"
		cmd.Long += "\n\nHOST is a name or an address, with :PORT where that is not the usual one. Where a [[route]] leads to it, its login\nand its TLS are used; a host that no [[route]] names gets no login, and TLS where it offers it. mx is for the mail\nhosts of the recipients, past every [[route]], and config for what the configuration says, as before. It stays with\nthe mail over restarts and is used from the next attempt on: queue retry makes that now."
		cmd.Example = "  relayctl queue route smarthost.example:587 --domain partner.example\n  relayctl queue route config --all"
	}
	if v.name == "schedule" {
		cmd.Use = "schedule AT [ID...]"
		cmd.Long += "\n\nAT is +2h and the like, a time of today such as 18:30, or \"2026-03-01 18:30\"; 30 days ahead at most. From\nthat attempt on the configured pauses follow. Held mail is left alone."
		cmd.Example = "  relayctl queue schedule +2h 0abcdefghjkmnpqr\n  relayctl queue schedule 18:30 --domain partner.example"
	}
	c.filter.register(cmd)
	cmd.Flags().BoolVar(&c.all, "all", false, "everything in the queue")
	cmd.Flags().BoolVarP(&c.yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&c.dry, "dry-run", false, "change nothing, say what would be")
	if v.name == "bounce" {
		cmd.Flags().StringVar(&c.reason, "reason", "", "what the sender is told, one `SENTENCE`")
	}
	return cmd
}

// takeTime takes the first argument for the time.
func (c *change) takeTime(args []string) ([]string, error) {
	if len(args) == 0 {
		return nil, usage("relayctl queue schedule +2h ID", "queue schedule for when?")
	}
	var err error
	if c.at, err = parseTime(args[0], c.Now()); err != nil {
		return nil, usage("such as +2h, 18:30 or \"2026-03-01 18:30\"", "%v", err)
	}
	return args[1:], nil
}

// routeByConfig is what takes an order of queue route back.
const routeByConfig = "config"

// takeVia takes the first argument for the host.
func (c *change) takeVia(args []string) ([]string, error) {
	if len(args) == 0 || args[0] == "" {
		return nil, usage("relayctl queue route smarthost.example:587 ID", "queue route by which host?")
	}
	via := args[0]
	if via == routeByConfig {
		via = ""
	}
	c.via = &via
	return args[1:], nil
}

// parseTime reads a time to come, by the clock of this machine.
func parseTime(s string, now time.Time) (time.Time, error) {
	if ahead, ok := strings.CutPrefix(s, "+"); ok {
		d, err := parseAge(ahead)
		return now.Add(d), err
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	for _, layout := range []string{"2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02T15:04"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	for _, layout := range []string{"15:04", "15:04:05"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			y, m, d := now.Local().Date()
			t = time.Date(y, m, d, t.Hour(), t.Minute(), t.Second(), 0, time.Local)
			if t.Before(now) {
				return t, fmt.Errorf("%s has passed today", s)
			}
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is not a time", s)
}

// order turns the command line into what is asked of relayd.
func (c *change) order(cmd *cobra.Command, ids []string) (admin.Order, error) {
	f, err := c.filter.filter(cmd)
	if err != nil {
		return admin.Order{}, err
	}
	switch {
	case len(ids) > 0 && (c.all || !f.IsZero()):
		return admin.Order{}, usage("queue ls with the filter shows the IDs", "name IDs or a filter, not both")
	case c.all && !f.IsZero():
		return admin.Order{}, usage("leave --all out", "--all and a filter contradict each other")
	case len(ids) == 0 && !c.all && f.IsZero():
		return admin.Order{}, usage("name IDs, a filter such as --domain, or --all", "queue %s what?", c.name)
	}
	f.IDs = ids
	return admin.Order{Filter: f, All: c.all, Reason: c.reason, At: c.at, Via: c.via}, nil
}

// run asks where it must and has the order done.
func (c *change) run(ctx context.Context, o admin.Order) error {
	if c.dry {
		return c.rehearse(ctx, o)
	}
	byFilter := len(o.IDs) == 0
	if c.final && byFilter && !c.yes && !c.interactive() {
		return usage("--yes, once queue ls with the same filter has shown what it chooses",
			"queue %s by a filter needs somebody to confirm it, and this is not a terminal", c.name)
	}
	client, err := c.dial()
	if err != nil {
		return err
	}
	defer client.Close()
	ask := c.interactive() && !c.yes && (byFilter || c.final)
	if !ask && !(c.TerminalErr && byFilter) {
		n, err := client.Change(ctx, c.name, o)
		if err != nil {
			return err
		}
		return c.report(n)
	}
	return c.chosen(ctx, client, o, ask)
}

// rehearse counts what the order names. A verb may still pass over items for which it has nothing to
// do, such as held ones at a retry.
func (c *change) rehearse(ctx context.Context, o admin.Order) error {
	s, err := c.open()
	if err != nil {
		return err
	}
	defer s.close()
	var totals admin.Totals
	for it, err := range c.whole(s.List(ctx, o.Filter)) {
		if err != nil {
			return err
		}
		totals.Add(it)
	}
	if c.json {
		return c.printJSON(struct {
			Verb  string `json:"verb"`
			Count int    `json:"count"`
			Dry   bool   `json:"dry_run"`
		}{c.name, totals.Items, true})
	}
	text := "nothing in the queue matches"
	if totals.Items > 0 {
		text = fmt.Sprintf("%s would be for %s: %s", c.name, count(totals.Items, "item"), c.summary(totals))
	}
	_, err = fmt.Fprintln(c.Stdout, text)
	return err
}

// chosen asks, where it shall, about what was chosen, and changes exactly that, with a bar: mail that
// comes while the operator thinks was not confirmed.
func (c *change) chosen(ctx context.Context, client *admin.Client, o admin.Order, ask bool) error {
	var keys []string
	var totals admin.Totals
	for it, err := range c.whole(client.Summaries(ctx, o.Filter)) {
		if err != nil {
			return err
		}
		keys = append(keys, it.Key())
		totals.Add(it)
	}
	if len(keys) == 0 {
		return c.report(0)
	}
	if ask {
		if err := c.confirm(ctx, fmt.Sprintf("%s %s?", c.name, c.summary(totals))); err != nil {
			return err
		}
	}
	return c.inBatches(ctx, client, keys, o.Reason)
}

func (c *change) inBatches(ctx context.Context, client *admin.Client, keys []string, reason string) error {
	done := 0
	bar := c.progress(len(keys), strings.ToLower(c.done))
	for len(keys) > 0 {
		n := min(changeBatch, len(keys))
		changed, err := client.Change(ctx, c.name, admin.Order{Filter: admin.Filter{Keys: keys[:n]}, Reason: reason, At: c.at, Via: c.via})
		done += changed
		if err != nil {
			return fmt.Errorf("%s %s, then: %w", c.done, count(done, "item"), err)
		}
		keys = keys[n:]
		_ = bar.Add(n) // a bar that cannot be drawn stops nothing
	}
	_ = bar.Finish()
	return c.report(done)
}

// report prints the result.
func (c *change) report(n int) error {
	if c.json {
		return c.printJSON(struct {
			Verb  string `json:"verb"`
			Count int    `json:"count"`
		}{c.name, n})
	}
	text := c.done + " " + count(n, "item")
	if n == 0 {
		text = "nothing in the queue matches"
	}
	_, err := fmt.Fprintln(c.Stdout, text)
	return err
}
