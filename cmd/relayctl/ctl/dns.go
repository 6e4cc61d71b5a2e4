package ctl

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"relayd/relay"
	"relayd/relay/admin"
	"relayd/relay/records"
)

const dnsLong = `dns prints every record that a domain of this server should have in the DNS beside what the DNS answers
now, past relayd's cache, each with a verdict and the reason:

  ok       it will do
  fault    mail is lost, refused or not believed
  advice   it works, and could be better
  unknown  the DNS did not answer

relayd must be running.`

func (a *app) dns() *cobra.Command {
	var strict bool
	cmd := &cobra.Command{
		Use: "dns DOMAIN", Short: "Compare the records a domain should have with what the DNS has", Long: dnsLong,
		Example: "  relayctl dns office.example\n  relayctl dns --check office.example || mail -s 'our DNS' ann",
		Args:    wants(false, "a DOMAIN"),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := relay.ParseDomain(args[0])
			if err != nil {
				return usage("", "%s: %v", args[0], err)
			}
			return a.withRelayd(func(c *admin.Client) error {
				lines, err := c.Records(cmd.Context(), d)
				if err != nil {
					return err
				}
				if err := a.printLines(lines); err != nil {
					return err
				}
				if strict && slices.ContainsFunc(lines, records.Faulty) {
					return errSilent
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&strict, "check", false, "exit with status 1 where anything is a fault or unknown")
	return cmd
}

func (a *app) printLines(lines []records.Line) error {
	for _, l := range lines {
		var err error
		if a.json {
			err = a.printJSON(l)
		} else {
			_, err = io.WriteString(a.Stdout, a.describeLine(l))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// describeLine is the verdict on a record, what to write into the zone, and what stands there.
func (a *app) describeLine(l records.Line) string {
	paint := map[string]style{records.Fault: red, records.Unknown: red, records.Advice: yellow}[l.Verdict]
	var b strings.Builder
	fmt.Fprintf(&b, "%s %-6s %s: %s\n", a.paint(paint, fmt.Sprintf("%-7s", l.Verdict)), l.Type, printable(l.Name), printable(l.Why))
	if l.Want != "" && l.Verdict != records.OK {
		fmt.Fprintf(&b, "        want   %s\n", printable(l.Want))
	}
	for _, f := range l.Found {
		fmt.Fprintf(&b, "        found  %s\n", printable(f))
	}
	return b.String()
}
