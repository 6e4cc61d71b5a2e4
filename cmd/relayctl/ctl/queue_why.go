package ctl

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayd/queue"
	"relayd/relay"
	"relayd/relay/admin"
)

func (a *app) queueWhy() *cobra.Command {
	var f filterFlags
	cmd := &cobra.Command{
		Use: "why [ID...]", Short: "Say in two sentences why mail waits, what happens next and when",
		Long: `why says of each item that waits what happened to it, and then what happens next and when: the next
attempt, whether the sender is warned, and when the letter is returned if nothing changes.

Names the mail by ID, by ID/DOMAIN or by the same filters as queue ls.`,
		Example: "  relayctl queue why 0abcdefghjkmnpqr\n  relayctl queue why --domain partner.example",
		RunE: func(cmd *cobra.Command, args []string) error {
			filter, err := f.filter(cmd)
			switch {
			case err != nil:
				return err
			case len(args) > 0 && !filter.IsZero():
				return usage("queue ls with the filter shows the IDs", "name IDs or a filter, not both")
			case len(args) == 0 && filter.IsZero():
				return usage("name IDs, or a filter such as --domain", "queue why what?")
			}
			filter.IDs = args
			return a.why(cmd, filter)
		},
	}
	f.register(cmd)
	return cmd
}

// reasons is what why says of an item, with the stable names of --json.
type reasons struct {
	ID       relay.ID     `json:"id"`
	Domain   relay.Domain `json:"domain"`
	Happened string       `json:"happened"`
	Then     string       `json:"next"`
	At       time.Time    `json:"at,omitzero"`  // of the next attempt
	End      time.Time    `json:"end,omitzero"` // when the letter is returned, at the latest by what is known now
}

func (a *app) why(cmd *cobra.Command, f admin.Filter) error {
	s, err := a.open()
	if err != nil {
		return err
	}
	defer s.close()
	// Another data directory has another configuration, which nobody named.
	var plan *queue.Schedule
	if a.dataFlag == "" {
		cfg, err := a.load()
		if err != nil {
			return err
		}
		known := scheduleOf(cfg)
		plan = &known
	}
	items := 0
	for it, err := range a.whole(s.List(cmd.Context(), f)) {
		if err != nil {
			return err
		}
		items++
		r := a.reasons(it, plan)
		if a.json {
			err = a.printJSON(r)
		} else {
			_, err = fmt.Fprintf(a.Stdout, "%s: %s. %s.\n", it.Key(), printable(r.Happened), printable(r.Then))
		}
		if err != nil {
			return err
		}
	}
	if items == 0 && !a.json {
		fmt.Fprintln(a.Stdout, "nothing in the queue matches")
	}
	return nil
}

// reasons puts an item into words; plan is nil where the configuration is not known.
func (a *app) reasons(it admin.Item, plan *queue.Schedule) reasons {
	r := reasons{ID: it.ID, Domain: it.Domain, Happened: a.happened(it)}
	if it.Held {
		r.Then = "It is not tried until somebody lets it go: relayctl queue release " + it.Key()
		return r
	}
	if it.Paused {
		r.Then = "Sending to " + string(it.Domain) + " is paused: it is not tried until somebody says relayctl queue resume"
		return r
	}
	r.At = it.Next
	r.Then = a.nextAttempt(it)
	switch it.Via {
	case "":
	case relay.ViaMX:
		r.Then += ", past every [[route]]"
	default:
		r.Then += ", by " + it.Via
	}
	if plan == nil {
		return r
	}
	for f := range plan.For(it.Domain).Forecast(bornOf(it), it.Attempts, later(it.Next, a.Now()), it.ID) {
		if f.Attempt-it.Attempts > maxForecast {
			return r
		}
		r.End = f.At
		if by := it.DeliverBy; by.Return && !f.At.Before(by.At) {
			r.End = later(by.At, it.Next)
			break
		}
	}
	r.Then += "; " + a.ending(it, r)
	return r
}

// bornOf is when the clocks of an item begin, later by what our own line has cost it.
func bornOf(it admin.Item) time.Time {
	return later(it.Accepted, it.Release).Add(time.Duration(it.LineLost * float64(time.Second)))
}

// maxForecast is how many attempts ahead why looks for the end of a letter.
const maxForecast = 20_000

func later(t, u time.Time) time.Time {
	if t.Before(u) {
		return u
	}
	return t
}

// happened is the first sentence, without its end.
func (a *app) happened(it admin.Item) string {
	came := "It came " + span(a.Now().Sub(it.Accepted)) + " ago from " + sender(it.From)
	var answer *admin.Recipient
	others, done := 0, 0
	for i, rc := range it.Recipients {
		switch {
		case rc.State != string(relay.Deferred) && rc.State != "waiting":
			done++
		case answer == nil && rc.State == string(relay.Deferred):
			answer = &it.Recipients[i]
		default:
			others++
		}
	}
	var s string
	switch {
	case it.Held && it.Hold != "":
		s = came + " and is held: " + it.Hold
	case it.Held && it.Attempts == 0:
		s = came + " and is held, before any attempt"
	case answer == nil && it.Attempts == 0 && it.Release.After(a.Now()):
		s = came + " and leaves at " + a.clock(it.Release) + ", as its sender asked"
	case answer == nil && it.Attempts == 0:
		s = came + " and has not been tried yet"
	case answer == nil:
		s = came + fmt.Sprintf(", and attempt %d is under way or was broken off", it.Attempts)
	default:
		s = a.answered(it, *answer, others)
	}
	if done > 0 {
		s += fmt.Sprintf("; %s already done with", count(done, "other recipient"))
	}
	return s
}

// answered tells what the newest attempt came to.
func (a *app) answered(it admin.Item, rc admin.Recipient, others int) string {
	to := rc.Address
	if others > 0 {
		to += " and " + count(others, "other")
	}
	said := relay.Reply{Code: rc.Code, Status: rc.Status, Text: rc.Text}.String()
	who := "relayd noted"
	if rc.Host != "" {
		who = rc.Host + " said"
	}
	s := fmt.Sprintf("Of %s, the newest, %s ago, did not reach %s: %s %q", count(it.Attempts, "attempt"),
		span(a.Now().Sub(rc.At)), to, who, said)
	if it.Attempts == 1 {
		s = fmt.Sprintf("The first attempt, %s ago, did not reach %s: %s %q", span(a.Now().Sub(rc.At)), to, who, said)
	}
	if it.Held {
		s += ", and then it was held"
	}
	return s
}

// nextAttempt begins the second sentence.
func (a *app) nextAttempt(it admin.Item) string {
	if it.Waits != "" {
		s := fmt.Sprintf("Attempt %d is due, but waits: %s", it.Attempts+1, it.Waits)
		if it.WaitsTill.After(a.Now()) {
			s += ", the next at " + a.clock(it.WaitsTill)
		}
		return s
	}
	if !it.Next.After(a.Now()) {
		return fmt.Sprintf("Attempt %d is due now", it.Attempts+1)
	}
	return fmt.Sprintf("Attempt %d follows %s, at %s", it.Attempts+1, next(it.Next, a.Now(), false), a.clock(it.Next))
}

// ending says what comes of a letter to which nobody ever says yes.
func (a *app) ending(it admin.Item, r reasons) string {
	var s strings.Builder
	s.WriteString("if nobody accepts it, ")
	switch {
	case it.From == "":
		fmt.Fprintf(&s, "it ends %s at %s, and as a report it is not returned to anybody", next(r.End, a.Now(), false), a.clock(r.End))
		return s.String()
	case it.Warned:
		s.WriteString("its sender, who knows that it is late, has it back ")
	default:
		s.WriteString("its sender has it back ")
	}
	fmt.Fprintf(&s, "%s, at %s", next(r.End, a.Now(), false), a.clock(r.End))
	return s.String()
}
