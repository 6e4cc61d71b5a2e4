package ctl

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"relayd/relay/admin"
)

func (a *app) stats() *cobra.Command {
	return &cobra.Command{
		Use: "stats", Short: "Count connections, bytes and messages since relayd started", Args: wants(false),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.dial()
			if err != nil {
				return err
			}
			defer c.Close()
			st, err := c.Stats(cmd.Context())
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(st)
			}
			_, err = fmt.Fprint(a.Stdout, describeStats(st))
			return err
		},
	}
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
	return b.String()
}
