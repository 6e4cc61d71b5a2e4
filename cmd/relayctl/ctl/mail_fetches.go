package ctl

import (
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"relayd/delivery/maildir"
)

func (a *app) mailFetches() *cobra.Command {
	var c choice
	cmd := &cobra.Command{
		Use: "fetches ADDRESS", Short: "Show who collected and removed which letter when",
		Long: `fetches shows what POP3 sessions did in a mailbox: from which address, when, and with which letter.
POP3 does not tell which program calls. The list is bounded: it goes back some ten thousand
letters. What a running session did last may be missing.`,
		Example: "  relayctl mail fetches --since 1d ann@office.example",
		Args:    wants(false, "the ADDRESS of a mailbox"),
		RunE:    func(_ *cobra.Command, args []string) error { return a.fetches(args[0], c) },
	}
	cmd.Flags().Func("since", "only what happened within an `AGE` such as 2h or 3d", func(s string) (err error) {
		c.since, err = parseAge(s)
		return err
	})
	c.registerClient(cmd.Flags(), "only what an IP `ADDRESS` or network did")
	return cmd
}

// fetchLine is one event as it is listed.
type fetchLine struct {
	At     time.Time  `json:"at"`
	Client netip.Addr `json:"client"`
	Word   string     `json:"event"` // fetched or removed
	ID     string     `json:"id,omitempty"`
	UID    string     `json:"uid"`
	Size   int64      `json:"size"`
}

func (a *app) fetches(user string, c choice) error {
	root, mailbox, err := a.ownMailbox(user)
	if err != nil {
		return err
	}
	t := a.table("TIME", "CLIENT", "WHAT", "SIZE", "ID")
	for f, err := range maildir.Fetches(root, mailbox) {
		if err != nil {
			return err
		}
		if !c.recent(f.At, a.Now()) || !c.fromClient(f.Client) {
			continue
		}
		if a.json {
			err = a.printJSON(fetchLine{f.At, f.Client, f.Word, string(f.ID), f.UID, f.Size})
		} else {
			name := string(f.ID)
			if name == "" {
				name = f.UID
			}
			t.add([]string{f.At.Local().Format("2006-01-02 15:04:05"), f.Client.String(), f.Word, size(f.Size), printable(name)})
			err = t.err
		}
		if err != nil {
			return err
		}
	}
	if a.json {
		return nil
	}
	return t.flush()
}
