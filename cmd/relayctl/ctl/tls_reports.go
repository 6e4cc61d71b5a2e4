package ctl

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"relayd/relay"
	"relayd/relay/admin"
)

const tlsReportsLong = `tls-reports shows how TLS with the mail servers of other domains went. Domains that ask for it in their
TXT record _smtp._tls are told once a day (RFC 8460). relayd must be running.`

func (a *app) tlsReports() *cobra.Command {
	g := a.group("tls-reports", "Show and send what other domains are told of TLS with their servers", tlsReportsLong)
	g.AddCommand(a.tlsReportsLs(), a.tlsReportsSend())
	return g
}

func (a *app) tlsReportsLs() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List what has been counted and not been reported", Args: wants(false),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := ask(cmd.Context(), a, (*admin.Client).TLSReports)
			if err != nil {
				return err
			}
			return a.listTLSReports(list)
		},
	}
}

func (a *app) listTLSReports(list []admin.TLSCount) error {
	t := a.table("DAY", "DOMAIN", "POLICY", "GOOD", "FAILED", "WHY")
	for _, c := range list {
		if a.json {
			if err := a.printJSON(c); err != nil {
				return err
			}
			continue
		}
		why, paint := "", plain
		for i, f := range c.Failures {
			if paint = red; i > 0 {
				why += ", "
			}
			why += fmt.Sprintf("%d %s %s", f.Count, f.Result, f.Host)
		}
		t.add([]string{c.Day, string(c.Domain), string(c.Policy), strconv.FormatInt(c.Good, 10), strconv.FormatInt(c.Bad, 10), printable(why)},
			plain, plain, plain, plain, plain, paint)
	}
	if len(list) == 0 && !a.json {
		a.note("there were no sessions that have not been reported")
	}
	return t.flush()
}

func (a *app) tlsReportsSend() *cobra.Command {
	return &cobra.Command{
		Use: "send [DOMAIN]", Short: "Send the reports now, to one domain or to all",
		Long: `send sends the reports that are waiting, and that of today as far as the day has come, to every domain
that asks for them. What is counted afterwards goes into the next report.`,
		Args: func(cmd *cobra.Command, args []string) error {
			return wants(false, make([]string, min(1, len(args)))...)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			var d relay.Domain
			if len(args) > 0 {
				if d, err = relay.ParseDomain(args[0]); err != nil {
					return usage("", "%s: %v", args[0], err)
				}
			}
			return a.withRelayd(func(c *admin.Client) error {
				list, err := c.SendTLSReports(cmd.Context(), d)
				if err != nil {
					return err
				}
				return a.tellTLSReports(list)
			})
		},
	}
}

func (a *app) tellTLSReports(list []admin.TLSReportSent) error {
	for _, s := range list {
		if a.json {
			if err := a.printJSON(s); err != nil {
				return err
			}
			continue
		}
		text := fmt.Sprintf("sent %s of %s to %s", s.Domain, s.Day, s.To)
		if s.Error != "" {
			text = fmt.Sprintf("not sent %s of %s: %s", s.Domain, s.Day, s.Error)
		}
		if _, err := fmt.Fprintln(a.Stdout, printable(text)); err != nil {
			return err
		}
	}
	if len(list) == 0 && !a.json {
		a.note("there is nothing to report")
	}
	return nil
}
