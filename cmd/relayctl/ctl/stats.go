package ctl

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayd/relay/admin"
)

// leastPause keeps --watch from being a load.
const leastPause = 100 * time.Millisecond

// watching is how often to look, and how many times.
type watching struct {
	on    bool
	every time.Duration
	count int // 0: until interrupted
}

func (a *app) stats() *cobra.Command {
	w := watching{}
	cmd := &cobra.Command{
		Use: "stats", Short: "Count connections, bytes and messages since relayd started",
		Long: `stats counts connections ever and now, bytes and messages since relayd started, for each service and
each user.

With --watch it goes on until Ctrl-C: on a terminal it shows the figures in place, anywhere else
each time anew, with the time before each line.`,
		Example: "  relayctl stats --watch\n  relayctl stats --watch --every 1m --json >> figures",
		Args:    wants(false),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case !w.on && (cmd.Flags().Changed("every") || cmd.Flags().Changed("count")):
				return usage("add --watch", "--every and --count are for --watch")
			case w.every < leastPause:
				return usage("", "--every must be at least %v", leastPause)
			case w.count < 0:
				return usage("", "--count must not be negative")
			}
			c, err := a.dial()
			if err != nil {
				return err
			}
			defer c.Close()
			if !w.on {
				w.count = 1
			}
			return a.watchStats(cmd.Context(), c, w)
		},
	}
	cmd.Flags().BoolVar(&w.on, "watch", false, "go on until Ctrl-C")
	cmd.Flags().DurationVar(&w.every, "every", 2*time.Second, "with --watch: the `TIME` between two looks")
	cmd.Flags().IntVar(&w.count, "count", 0, "with --watch: end after `N` looks")
	return cmd
}

// watchStats prints the figures as often as w says. To be interrupted is how a watch ends, and no
// failure.
func (a *app) watchStats(ctx context.Context, c *admin.Client, w watching) error {
	tick := time.NewTicker(w.every)
	defer tick.Stop()
	for n := 1; ; n++ {
		st, err := c.Stats(ctx)
		if err == nil {
			err = a.printStats(st, w.on)
		}
		if w.on && ctx.Err() != nil {
			return nil
		}
		if err != nil || n == w.count {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (a *app) printStats(st admin.Stats, watch bool) error {
	text := describeStats(st)
	switch {
	case a.json && watch:
		return a.printJSON(struct {
			At time.Time `json:"at"`
			admin.Stats
		}{a.Now().Truncate(time.Second), st})
	case a.json:
		return a.printJSON(st)
	case watch && a.TerminalOut:
		// Home, each line with what stood behind it erased, and then everything below
		// (ECMA-48 CUP, EL, ED): nothing flickers.
		text = "\x1b[H" + strings.ReplaceAll(text, "\n", "\x1b[K\n") + "\x1b[J"
	case watch:
		at := a.Now().Format("15:04:05 ")
		text = at + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n"+at) + "\n"
	}
	_, err := fmt.Fprint(a.Stdout, text)
	return err
}

// describeStats says each count as a sentence (S4.9).
func describeStats(st admin.Stats) string {
	var b strings.Builder
	for _, s := range st.Services {
		fmt.Fprintf(&b, "%s: %s ever, %d now, %s received, %s sent\n", printable(s.Service),
			count(int(s.Connections), "connection"), s.Now, size(s.BytesIn), size(s.BytesOut))
	}
	words := admin.Words()
	parts := make([]string, len(words))
	for i, w := range words {
		parts[i] = fmt.Sprintf("%d %s", st.Messages[w], w)
	}
	fmt.Fprintf(&b, "messages: %s\n", strings.Join(parts, ", "))
	for _, u := range st.Users {
		fmt.Fprintf(&b, "%s: %s ever, %d now, %d delivered, %d fetched (%s), %d sent (%s)\n", printable(u.User),
			count(int(u.Connections), "login"), u.Now, u.Delivered, u.Fetched, size(u.BytesOut), u.Sent, size(u.BytesIn))
	}
	return b.String()
}
