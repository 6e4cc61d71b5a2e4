package ctl

import (
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"relayd/config"
	"relayd/queue"
	"relayd/relay"
)

func (a *app) schedule() *cobra.Command {
	cmd := a.group("schedule", "Show when mail is tried again, warned of and given up", "")
	cmd.AddCommand(a.schedulePreview())
	return cmd
}

func (a *app) schedulePreview() *cobra.Command {
	return &cobra.Command{
		Use: "preview", Short: "Show every attempt a letter sent now would get, its warning and its end",
		Long: `preview reads the configuration and shows what becomes of a letter that is accepted now and to which
no server ever says yes: every attempt, when its sender is warned, and when it is returned.

Each pause is up to a tenth longer than the configured one, and differently so for every letter, so
that letters which failed together do not come back together. relayd need not run.`,
		Args: wants(false),
		RunE: func(*cobra.Command, []string) error {
			cfg, err := a.load()
			if err != nil {
				return err
			}
			return a.preview(scheduleOf(cfg))
		},
	}
}

// scheduleOf is the time policy of a configuration.
func scheduleOf(cfg *config.Config) queue.Schedule {
	s := queue.Schedule{Retry: cfg.Queue.Retry, NotifyAfter: cfg.Queue.NotifyAfter, WarnAfter: cfg.Queue.WarnAfter, GiveUpAfter: cfg.Queue.GiveUpAfter}
	for d, domain := range cfg.RelayDomains {
		s = s.Except(d, domain.GiveUpAfter)
	}
	return s
}

// foretold is one line of a preview, with the stable names of --json.
type foretold struct {
	Attempt int       `json:"attempt"`
	At      time.Time `json:"at"`
	Age     float64   `json:"age"`  // of the letter, in seconds
	Step    string    `json:"step"` // retry, notify, warn, give up: should the attempt fail
	Warns   bool      `json:"warns"`
}

func (a *app) preview(s queue.Schedule) error {
	born := a.Now()
	t := a.table("ATTEMPT", "AGE", "TIME", "IF IT FAILS")
	warned, noted := false, false
	last := time.Duration(0)
	for f := range s.Forecast(born, 0, born, relay.NewID(born)) {
		warns := f.Step == queue.StepWarn && !warned
		notes := f.Step == queue.StepNotify && !noted
		warned, noted = warned || warns, noted || notes
		last = f.At.Sub(born)
		if a.json {
			if err := a.printJSON(foretold{f.Attempt, f.At.Round(time.Second), last.Round(time.Second).Seconds(), f.Step.String(), warns || notes}); err != nil {
				return err
			}
			continue
		}
		fate, style := "it is tried again", plain
		switch {
		case f.Step == queue.StepGiveUp:
			fate, style = "the letter is returned to its sender", red
		case notes:
			fate, style = "its sender, if one of your people, is told that it is late; it is tried again", yellow
		case warns:
			fate, style = "its sender is told that it is late; it is tried again", yellow
		}
		t.add([]string{strconv.Itoa(f.Attempt), age(last), a.clock(f.At), fate}, plain, plain, plain, style)
		if t.err != nil {
			return t.err
		}
	}
	if a.json {
		return nil
	}
	if err := t.flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(a.Stdout, "each pause is up to a tenth longer than configured, for every letter in its own way")
	return err
}

// age is a length of time in its two largest units: "2 h 31 min".
func age(d time.Duration) string {
	const day = 24 * time.Hour
	d = d.Round(time.Second)
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%d min", d.Round(time.Minute)/time.Minute)
	}
	d = d.Round(time.Minute)
	if d < 2*day {
		return fmt.Sprintf("%d h %d min", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%d days %d h", d/day, d%day/time.Hour)
}

// clock is a time to come: the time alone where it is today, with its day otherwise.
func (a *app) clock(t time.Time) string {
	t, now := t.Local(), a.Now().Local()
	if t.Format(time.DateOnly) == now.Format(time.DateOnly) {
		return t.Format("15:04:05")
	}
	return t.Format("2006-01-02 15:04:05")
}
