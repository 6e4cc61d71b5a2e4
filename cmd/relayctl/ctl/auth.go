package ctl

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"

	"github.com/spf13/cobra"

	"relayd/relay"
	"relayd/relay/admin"
)

const authLong = `auth shows who has tried wrong passwords, over SMTP and POP3, and who is refused for it.

Wrong passwords are counted for each name and address, and for each address over all names. They
make the next one wait, and then the name, or the whole address, is refused for a while.`

func (a *app) auth() *cobra.Command {
	cmd := a.group("auth", "Show and lift refusals after wrong passwords", authLong)
	cmd.AddCommand(a.authLs(), a.authClear())
	return cmd
}

func (a *app) authLs() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List who has tried wrong passwords within a day", Args: wants(false),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := ask(cmd.Context(), a, (*admin.Client).Guesses)
			if err != nil {
				return err
			}
			return a.listGuesses(list)
		},
	}
}

func (a *app) listGuesses(list []admin.Guessing) error {
	t := a.table("ADDRESS", "USER", "WRONG", "LAST", "REFUSED")
	for _, g := range list {
		if a.json {
			if err := a.printJSON(g); err != nil {
				return err
			}
			continue
		}
		refused := "no"
		if left := g.Until.Sub(a.Now()); left > 0 {
			refused = "for " + span(left)
		}
		t.add([]string{guesser(g.Client), printable(guessed(g)), strconv.Itoa(g.Failures), span(a.Now().Sub(g.Last)) + " ago", refused})
	}
	if len(list) == 0 && !a.json {
		a.note("nobody has tried a wrong password within a day")
	}
	return t.flush()
}

// guesser is an address as people write it.
func guesser(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

func guessed(g admin.Guessing) string {
	switch {
	case g.All:
		return "(all names)"
	case g.User == "":
		return "(nobody's name)"
	}
	return g.User
}

func (a *app) authClear() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "clear [WHO...]", Short: "Forget wrong passwords, so that nobody waits or is refused for them",
		Long: `Forgets the wrong passwords of each WHO, a user such as ann@office.example or an IP address.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if all == (len(args) > 0) {
				return usage("name users and IP addresses, or give --all", "auth clear whom?")
			}
			pardons, err := a.pardons(args)
			if err != nil {
				return err
			}
			return a.clearGuesses(cmd.Context(), pardons)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "everybody")
	return cmd
}

// pardons reads the command line; no argument means everybody.
func (a *app) pardons(args []string) ([]admin.Pardon, error) {
	if len(args) == 0 {
		return []admin.Pardon{{All: true}}, nil
	}
	var list []admin.Pardon
	for _, arg := range args {
		if client, err := netip.ParseAddr(arg); err == nil {
			list = append(list, admin.Pardon{Client: client})
			continue
		}
		if p, err := netip.ParsePrefix(arg); err == nil { // as auth ls shows it
			list = append(list, admin.Pardon{Client: p.Addr()})
			continue
		}
		user, err := relay.ParseAddress(arg, true)
		if err != nil {
			return nil, usage("such as ann@office.example or 192.0.2.7", "%q is neither a user nor an IP address", arg)
		}
		list = append(list, admin.Pardon{User: user})
	}
	return list, nil
}

func (a *app) clearGuesses(ctx context.Context, pardons []admin.Pardon) error {
	c, err := a.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	total := 0
	for _, p := range pardons {
		n, err := c.Forgive(ctx, p)
		if err != nil {
			return err
		}
		total += n
	}
	if a.json {
		return a.printJSON(struct {
			Verb  string `json:"verb"`
			Count int    `json:"count"`
		}{"clear", total})
	}
	text := fmt.Sprintf("cleared %d", total)
	if total == 0 {
		text = "nothing was held against them"
	}
	_, err = fmt.Fprintln(a.Stdout, text)
	return err
}
