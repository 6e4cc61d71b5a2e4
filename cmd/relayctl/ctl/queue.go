package ctl

import (
	"fmt"

	"github.com/spf13/cobra"

	"relayd/relay/admin"
)

const queueLong = `queue shows and changes the mail that waits to be sent on.

Each line of queue ls is an item: one message to one domain. An item is named by its ID, which
stands in the log and in our answer to the sender too, or by ID/DOMAIN where a message waits for
several domains; the beginning of an ID will do where no other begins like it.

The filters --to, --from and --domain take * for any characters and ? for any one. Without these,
--to and --from match what occurs anywhere in an address, and --domain the domain itself.`

func (a *app) queue() *cobra.Command {
	cmd := a.group("queue", "Show and change the mail that waits", queueLong)
	cmd.AddCommand(a.queueLs(), a.queueShow(), a.queueCheck(), a.queueRepair(), a.queueWhy(), a.queueShape(), a.queuePause(false), a.queuePause(true), a.queueExport(), a.queueImport(), a.queueEdit())
	for _, v := range queueVerbs {
		cmd.AddCommand(a.queueChange(v))
	}
	return cmd
}

// filterFlags are the flags that choose among the waiting mail, the same for every verb.
type filterFlags struct {
	to, from, user, domain, older string
	held                          bool
}

func (f *filterFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.to, "to", "", "only items with a recipient that contains `TEXT`")
	flags.StringVar(&f.from, "from", "", "only items whose sender contains `TEXT`; <> for reports")
	flags.StringVar(&f.user, "user", "", "only items that `USER` logged in to send, such as ann@office.example")
	flags.StringVar(&f.domain, "domain", "", "only items to `DOMAIN`")
	flags.StringVar(&f.older, "older", "", "only items older than `AGE`: 90s, 15m, 2h, 3d")
	flags.BoolVar(&f.held, "held", false, "only items that are held; --held=false: only those that are not")
}

// filter is what the flags say.
func (f *filterFlags) filter(cmd *cobra.Command) (admin.Filter, error) {
	out := admin.Filter{To: f.to, From: f.from, User: f.user, Domain: f.domain}
	// A variable that is empty by mistake must not widen what a script meant to choose.
	for name, value := range map[string]string{"to": f.to, "from": f.from, "user": f.user, "domain": f.domain} {
		if value == "" && cmd.Flags().Changed(name) {
			return out, usage("leave it out to choose all", "--%s is empty", name)
		}
	}
	if cmd.Flags().Changed("older") {
		d, err := parseAge(f.older)
		if err != nil {
			return out, usage("", "--older: %v", err)
		}
		out.Older = admin.Duration(d)
	}
	if cmd.Flags().Changed("held") {
		out.Held = &f.held
	}
	return out, nil
}

// summary is the last line of a list.
func (a *app) summary(t admin.Totals) string {
	s := fmt.Sprintf("%s, %s, %s, oldest %s", count(t.Messages, "message"),
		count(t.Recipients, "recipient"), size(t.Size), span(a.Now().Sub(t.Oldest)))
	if t.Held > 0 {
		s += fmt.Sprintf(", %d held", t.Held)
	}
	if t.Paused > 0 {
		s += fmt.Sprintf(", %d paused", t.Paused)
	}
	return s
}
