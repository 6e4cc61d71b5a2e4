package ctl

import (
	"fmt"

	"github.com/spf13/cobra"

	"relayd/relay/admin"
)

const devicesLong = `devices lists the machines that have connected to a [[listen_device]] since relayd started, each with
its last message and the last thing that went wrong. The latest are first, at most 1000; of
addresses that may not connect the latest 50.`

func (a *app) devices() *cobra.Command {
	return &cobra.Command{
		Use: "devices", Short: "List scanners, copiers and the like, with their last message and last error",
		Long: devicesLong, Args: wants(false),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := ask(cmd.Context(), a, (*admin.Client).Devices)
			if err != nil {
				return err
			}
			return a.listDevices(list)
		},
	}
}

func (a *app) listDevices(list []admin.Device) error {
	t := a.table("ADDRESS", "NAME", "SEEN", "MESSAGES", "LAST MESSAGE", "LAST ERROR")
	for _, d := range list {
		if a.json {
			if err := a.printJSON(d); err != nil {
				return err
			}
			continue
		}
		name := d.Helo
		if name == "" {
			name = "-"
		}
		trouble, paint := "none", plain
		if e := d.Error; e != nil {
			trouble = printable(e.Text) + " (" + span(a.Now().Sub(e.At)) + " ago)"
			if d.Last == nil || e.At.After(d.Last.At) {
				paint = red
			}
		}
		t.add([]string{d.Client.String(), printable(name), span(a.Now().Sub(d.Seen)) + " ago", fmt.Sprint(d.Letters),
			printable(a.lastMessage(d.Last)), trouble}, plain, plain, plain, plain, plain, paint)
	}
	if len(list) == 0 && !a.json {
		a.note("no device has connected since relayd started")
	}
	return t.flush()
}

// lastMessage is a letter of a device in a few words.
func (a *app) lastMessage(l *admin.DeviceLetter) string {
	if l == nil {
		return "none"
	}
	text := fmt.Sprintf("%s ago, %s to %s", span(a.Now().Sub(l.At)), l.ID, l.To)
	if l.More > 0 {
		text += fmt.Sprintf(" and %d more", l.More)
	}
	return text
}
