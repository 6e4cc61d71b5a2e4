package ctl

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"relayd/relay/admin"
	"relayd/relay/orders"
)

// pausing is one run of pause or resume.
type pausing struct {
	*app
	resume, all, inbound, pop3 bool
	dry, yes                   bool
	domain, reason             string
}

func (a *app) queuePause(resume bool) *cobra.Command {
	p := &pausing{app: a, resume: resume}
	cmd := &cobra.Command{
		Use: "pause", Short: "Let sending, taking mail in, or POP3 rest until resumed", Args: wants(false),
		Long: `pause lets one thing rest until resume, over restarts of relayd too. What was accepted stays in the
queue, and nothing is returned before it was tried once more after the pause. Attempts and sessions
under way go on.

  --domain D  sending to a domain; * and ? stand for any characters and any one
  --all       sending to everybody
  --inbound   taking mail in by SMTP: every sender is told 451 and tries again later; letters of
              programs on this machine and our own reports still come in
  --pop3      collecting mail: a login is told [SYS/TEMP]`,
		Example: "  relayctl queue pause --domain partner.example --reason 'their server moves today'\n  relayctl queue resume --domain partner.example",
		RunE: func(cmd *cobra.Command, _ []string) error {
			order, err := p.order(cmd)
			if err != nil {
				return err
			}
			return p.run(cmd.Context(), order)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&p.domain, "domain", "", "sending to `DOMAIN`")
	flags.BoolVar(&p.all, "all", false, "sending to everybody")
	flags.BoolVar(&p.inbound, "inbound", false, "taking mail in by SMTP")
	flags.BoolVar(&p.pop3, "pop3", false, "collecting mail by POP3")
	flags.BoolVar(&p.dry, "dry-run", false, "change nothing, say what would be")
	if resume {
		cmd.Use, cmd.Short = "resume", "End a pause"
		cmd.Long = "resume ends the pause that was made with the same flag. What is due is tried within a second."
		cmd.Example = "  relayctl queue resume --domain partner.example\n  relayctl queue resume --inbound"
		return cmd
	}
	flags.StringVar(&p.reason, "reason", "", "a `NOTE` shown with the pause")
	flags.BoolVarP(&p.yes, "yes", "y", false, "do not ask")
	return cmd
}

// order turns the flags into what is asked of relayd.
func (p *pausing) order(cmd *cobra.Command) (orders.Pause, error) {
	var chosen []orders.Pause
	for _, c := range []struct {
		set bool
		orders.Pause
	}{
		{p.all, orders.Pause{What: orders.Sending}}, {p.inbound, orders.Pause{What: orders.Inbound}},
		{p.pop3, orders.Pause{What: orders.POP3}},
		{cmd.Flags().Changed("domain"), orders.Pause{What: orders.Sending, Domain: p.domain}},
	} {
		if c.set {
			chosen = append(chosen, c.Pause)
		}
	}
	switch {
	case len(chosen) != 1:
		return orders.Pause{}, usage("--domain D, --all, --inbound or --pop3", "%s what? name one thing", cmd.CommandPath())
	case cmd.Flags().Changed("domain") && p.domain == "":
		return orders.Pause{}, usage("--all means every domain", "--domain is empty")
	}
	order := chosen[0]
	order.Reason = p.reason
	return order.Check()
}

func (p *pausing) run(ctx context.Context, order orders.Pause) error {
	client, err := p.dial()
	if err != nil {
		return err
	}
	defer client.Close()
	waiting := 0
	if order.What == orders.Sending {
		if waiting, err = p.waiting(ctx, client, order.Domain); err != nil {
			return err
		}
	}
	if p.dry {
		return p.say(admin.Paused{Pause: order}, waiting)
	}
	if !p.resume && !p.yes && p.interactive() {
		if err := p.confirm(ctx, "pause "+order.String()+"?"); err != nil {
			return err
		}
	}
	act := client.Pause
	if p.resume {
		act = client.Resume
	}
	done, err := act(ctx, order)
	if err != nil {
		return err
	}
	return p.say(done, waiting)
}

// waiting counts the items that a pause concerns.
func (p *pausing) waiting(ctx context.Context, client *admin.Client, domain string) (int, error) {
	var totals admin.Totals
	for it, err := range p.whole(client.Summaries(ctx, admin.Filter{Domain: domain})) {
		if err != nil {
			return 0, err
		}
		totals.Add(it)
	}
	return totals.Items, nil
}

func (p *pausing) say(done admin.Paused, waiting int) error {
	verb := map[bool]string{true: "resume", false: "pause"}[p.resume]
	if p.json {
		return p.printJSON(struct {
			Verb    string         `json:"verb"`
			What    string         `json:"what"`
			Domain  string         `json:"domain,omitempty"`
			Changed bool           `json:"changed"`
			Count   int            `json:"count"` // items waiting that it concerns
			Dry     bool           `json:"dry_run,omitempty"`
			Left    []orders.Pause `json:"left"`
		}{verb, done.What, done.Domain, done.Changed, waiting, p.dry, append([]orders.Pause{}, done.Left...)})
	}
	text := verb + "d " + done.Pause.String()
	switch {
	case p.dry:
		text = verb + " would be for " + done.Pause.String()
	case !done.Changed && p.resume:
		text = done.Pause.String() + " was not paused"
	case !done.Changed:
		text = done.Pause.String() + " was paused already"
	}
	if done.What == orders.Sending {
		text += ", for which " + count(waiting, "item") + map[bool]string{true: " waits", false: " wait"}[waiting == 1]
	}
	if _, err := fmt.Fprintln(p.Stdout, printable(text)); err != nil {
		return err
	}
	if p.resume {
		for _, left := range done.Left {
			p.note("still paused: %s", p.describePause(left))
		}
	}
	return nil
}

// describePause is a pause with its age and reason.
func (a *app) describePause(p orders.Pause) string {
	s := p.String() + ", for " + span(a.Now().Sub(p.Since))
	if p.Reason != "" {
		s += ": " + p.Reason
	}
	return s
}

// notePauses tells who lists the queue what rests. That this cannot be found out is no reason to
// show no list: an older relayd does not know the question.
func (a *app) notePauses(ctx context.Context, s source) {
	pauses, err := s.pauses(ctx)
	if err != nil {
		return
	}
	for _, p := range pauses {
		a.note("paused: %s", a.describePause(p))
	}
}

// restingNext says when an item is tried again, also where its domain is paused.
func restingNext(it admin.Item, now time.Time) string {
	if it.Paused && !it.Held {
		return "paused"
	}
	return next(it.Next, now, it.Held)
}
