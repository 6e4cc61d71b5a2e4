package ctl

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"relayd/relay/admin"
)

const gateLong = `gate shows how many strangers each rule of [gate] has refused since relayd started, or would have
where the mode of [policy] is "observe", and how the lists of [[gate.list]] are. A list that is not
in order is ignored until it is; relayctl status warns of it too.`

func (a *app) gate() *cobra.Command {
	return &cobra.Command{
		Use: "gate", Short: "Show what the gate has refused, and how its lists are",
		Long: gateLong, Args: wants(false),
		RunE: func(cmd *cobra.Command, _ []string) error {
			g, err := ask(cmd.Context(), a, (*admin.Client).Gate)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(g)
			}
			return a.showGate(g)
		},
	}
}

// gateRules says in a few words what the rules are about.
var gateRules = map[string]string{
	"connections": "too many connections of one network within a minute",
	"early":       "talked before the greeting",
	"http":        "spoke HTTP",
	"pipelining":  "did not wait for an answer",
	"letters":     "too many letters of one network within an hour",
	"score":       "lists, name and HELO add up to too much",
	"greylist":    "asked to try again later",
}

func (a *app) showGate(g admin.Gate) error {
	t := a.table("RULE", "REFUSED", "OBSERVED", "ABOUT")
	for _, r := range g.Rules {
		t.add([]string{r.Rule, fmt.Sprint(r.Refused), fmt.Sprint(r.Observed), gateRules[r.Rule]})
	}
	if err := t.flush(); err != nil {
		return err
	}
	if len(g.Lists) > 0 {
		fmt.Fprintln(a.Stdout)
		t = a.table("LIST", "WEIGHT", "ANSWERS", "HITS", "STATE")
		for _, l := range g.Lists {
			answers, state, paint := strings.Join(l.Answers, " "), "in order", plain
			if answers == "" {
				answers = "all"
			}
			if l.Ignored != "" {
				state, paint = "ignored: "+l.Ignored, red
			}
			t.add([]string{string(l.Zone), fmt.Sprintf("%+d", l.Weight), answers, fmt.Sprint(l.Hits), state}, plain, plain, plain, plain, paint)
		}
		if err := t.flush(); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(a.Stdout, "\nmode %s, %d clients and senders known, %d letters asked to come again\n", g.Mode, g.Known, g.Waiting)
	return err
}
