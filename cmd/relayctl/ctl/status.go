package ctl

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"relayd/relay/admin"
)

func (a *app) status() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Say how relayd is", Args: wants(false),
		RunE: func(cmd *cobra.Command, _ []string) error {
			st, err := ask(cmd.Context(), a, (*admin.Client).Status)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(st)
			}
			_, err = fmt.Fprint(a.Stdout, a.describeStatus(st))
			return err
		},
	}
}

func (a *app) describeStatus(st admin.Status) string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-13s%s\n", name, printable(fmt.Sprintf(format, args...)))
	}
	line("relayd", "%s on %s, running for %s, process %d", st.Version, st.Hostname, span(a.Now().Sub(st.Started)), st.PID)
	if st.Config != "" {
		line("config", "%s", st.Config)
	}
	line("data", "%s", st.DataDir)
	for _, l := range st.Listeners {
		line("listens", "%s on %s", l.Service, l.Address)
	}
	for _, s := range st.Open {
		line("connections", "%s: %d now, %d ever", s.Service, s.Now, s.Connections)
	}
	line("queue", "%s", a.describeQueue(st.Queue))
	if !st.LineDown.IsZero() {
		line("line", "down since %s: nobody can be reached; mail waits, nothing is given up, and it is tried now and then", a.when(st.LineDown))
	}
	for _, f := range st.Filters {
		line("filter", "%s", a.describeFilter(f))
	}
	line("disk", "%s free of %s%s", size(st.Disk.Free), size(st.Disk.Total), diskFloor(st))
	for _, c := range st.Certificates {
		line("certificate", "%s", a.describeCertificate(c))
	}
	for _, p := range st.Paused {
		line("paused", "%s", a.describePause(p))
	}
	for _, u := range st.HeldUsers {
		line("held", "%s, who wrote too much: relayctl user release or purge", u)
	}
	for _, w := range st.Warnings {
		line("warning", "%s", w)
	}
	for _, e := range st.Errors {
		line("trouble", "%s", e)
	}
	return b.String()
}

func (a *app) describeQueue(t admin.Totals) string {
	if t.Items == 0 {
		return "empty"
	}
	s := a.summary(t)
	if !t.NextDue.IsZero() {
		s += ", next attempt " + next(t.NextDue, a.Now(), false)
	}
	return s
}

func diskFloor(st admin.Status) string {
	switch {
	case st.MinFreeDisk == 0:
		return ""
	case st.Disk.Free < st.MinFreeDisk:
		return ": too little, mail is refused below " + size(st.MinFreeDisk)
	}
	return ", mail is refused below " + size(st.MinFreeDisk)
}

func (a *app) describeCertificate(c admin.Certificate) string {
	s := strings.Join(c.Names, " ")
	if s == "" {
		s = "of no name"
	}
	if c.SelfSigned {
		s += ", self-signed"
	} else if c.From != "" {
		s += ", from " + c.From
	}
	left := c.Expires.Sub(a.Now())
	switch {
	case c.Expires.IsZero():
		s += ", not there yet"
	case left <= 0:
		s += ", expired " + c.Expires.Local().Format("2006-01-02")
	default:
		s += ", good until " + c.Expires.Local().Format("2006-01-02") + " (" + span(left) + ")"
	}
	switch {
	case c.Problem == "":
	case c.Expires.IsZero():
		s += ": " + c.Problem
	default:
		s += "; its renewal failed: " + c.Problem
	}
	return s
}

func (a *app) describeFilter(f admin.ContentFilter) string {
	s := f.Name + " at " + f.Address
	switch {
	case f.Down.IsZero():
		return s + ", up"
	case f.WhenDown == "defer":
		return s + ", down since " + a.when(f.Down) + ", mail is deferred: " + f.Problem
	}
	return s + ", down since " + a.when(f.Down) + ", mail passes unseen: " + f.Problem
}
