package ctl

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayd/relay"
	"relayd/relay/admin"
)

const dkimLong = `dkim looks after the keys that sign what leaves. relayd makes two for every domain at its first start,
RSA and Ed25519, and signs with a key while its record is in the DNS: publish what dkim dns prints.

To change keys: dkim new, publish its records, dkim rotate; the old records stay for a week, and
then dkim retire removes the old keys. relayd must be running.`

func (a *app) dkim() *cobra.Command {
	g := a.group("dkim", "Make, publish and change the keys that sign what leaves", dkimLong)
	g.AddCommand(a.dkimLs(), a.dkimNew(), a.dkimRotate(), a.dkimRetire(), a.dkimDNS())
	return g
}

func (a *app) dkimLs() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List the keys, after a look at their records in the DNS", Args: wants(false),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withRelayd(func(c *admin.Client) error {
				list, err := c.Keys(cmd.Context(), true)
				if err != nil {
					return err
				}
				return a.listKeys(list)
			})
		},
	}
}

func (a *app) dkimNew() *cobra.Command {
	return a.dkimVerb("new DOMAIN", "Make the next keys of a domain, which do not sign yet",
		"publish these records and then run relayctl dkim rotate")
}

func (a *app) dkimRotate() *cobra.Command {
	return a.dkimVerb("rotate DOMAIN", "Sign with the next keys, if their records are in the DNS",
		"")
}

// dkimVerb is a change of a domain's keys. What is to be done with their records is advice.
func (a *app) dkimVerb(use, short, advice string) *cobra.Command {
	verb, _, _ := strings.Cut(use, " ")
	return &cobra.Command{
		Use: use, Short: short, Args: wants(false, "a DOMAIN"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeKeys(cmd.Context(), admin.KeyOrder{Verb: verb}, args[0], func(list []admin.Key) error {
				if advice == "" || a.json {
					return a.listKeys(list)
				}
				if err := printRecords(a.Stdout, list); err != nil {
					return err
				}
				a.note("%s", advice)
				return nil
			})
		},
	}
}

func (a *app) dkimRetire() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "retire DOMAIN SELECTOR", Short: "Remove a key that signs no more",
		Long: `retire removes a key for good, and its selector is not used again. The keys that sign are refused, and
for eight days those that did: letters they signed may be under way, and need the record.`,
		Args: wants(false, "a DOMAIN", "a SELECTOR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			order := admin.KeyOrder{Verb: "retire", Selector: args[1], Force: force}
			return a.changeKeys(cmd.Context(), order, args[0], func(list []admin.Key) error {
				if a.json {
					return a.listKeys(list)
				}
				_, err := fmt.Fprintf(a.Stdout, "retired %s; its record %s may be removed from the DNS\n", list[0].Selector, list[0].Name)
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "though letters it signed may be under way")
	return cmd
}

func (a *app) dkimDNS() *cobra.Command {
	return &cobra.Command{
		Use: "dns [DOMAIN]", Short: "Print the TXT records of the keys, to paste into the zone",
		Long: `dns prints the records of RFC 6376 as a zone file has them, the text cut into strings of at most 255
octets. A web form of a DNS provider mostly wants the text in one piece: --json has it as "record".`,
		Args: func(cmd *cobra.Command, args []string) error {
			return wants(false, make([]string, min(1, len(args)))...)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withRelayd(func(c *admin.Client) error {
				list, err := c.Keys(cmd.Context(), false)
				if err == nil && len(args) > 0 {
					list, err = keysOf(list, args[0])
				}
				if err != nil {
					return err
				}
				if a.json {
					return a.listKeys(list)
				}
				return printRecords(a.Stdout, list)
			})
		},
	}
}

func keysOf(list []admin.Key, domain string) (found []admin.Key, err error) {
	d, err := relay.ParseDomain(domain)
	if err != nil {
		return nil, usage("", "%s: %v", domain, err)
	}
	for _, k := range list {
		if k.Domain == d {
			found = append(found, k)
		}
	}
	if len(found) == 0 {
		return nil, hint(fmt.Errorf("%s has no keys", d), "relayctl dkim ls shows whose there are")
	}
	return found, nil
}

func (a *app) changeKeys(ctx context.Context, o admin.KeyOrder, domain string, show func([]admin.Key) error) (err error) {
	if o.Domain, err = relay.ParseDomain(domain); err != nil {
		return usage("", "%s: %v", domain, err)
	}
	return a.withRelayd(func(c *admin.Client) error {
		list, err := c.ChangeKeys(ctx, o)
		if err != nil {
			return err
		}
		return show(list)
	})
}

func (a *app) listKeys(list []admin.Key) error {
	t := a.table("DOMAIN", "SELECTOR", "ALGORITHM", "ROLE", "SINCE", "RECORD")
	for _, k := range list {
		if a.json {
			if err := a.printJSON(k); err != nil {
				return err
			}
			continue
		}
		state, paint := describeRecord(k)
		t.add([]string{string(k.Domain), k.Selector, k.Algorithm, k.Role, k.Since.Format(time.DateOnly), printable(state)},
			plain, plain, plain, plain, plain, paint)
	}
	if len(list) == 0 && !a.json {
		a.note("there are no domains to sign for")
	}
	return t.flush()
}

// describeRecord says what the DNS has for a key, and what follows.
func describeRecord(k admin.Key) (string, style) {
	switch {
	case k.Visible && k.Role == "active":
		return "visible, signs", plain
	case k.Visible && k.Role == "next":
		return "visible, relayctl dkim rotate may follow", plain
	case k.Visible:
		return "visible, needed until " + k.Needed.Format(time.DateOnly), plain
	}
	why := cmp.Or(k.Problem, "the DNS has not answered yet")
	if k.Role == "active" {
		return why + ": does not sign", red
	}
	return why, plain
}

// printRecords writes the records as a zone file has them.
func printRecords(w io.Writer, list []admin.Key) error {
	for _, k := range list {
		if _, err := fmt.Fprintf(w, "%s. 3600 IN TXT %s\n", k.Name, k.Strings); err != nil {
			return err
		}
	}
	return nil
}
