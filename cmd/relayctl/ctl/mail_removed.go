package ctl

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"relayd/delivery/maildir"
	"relayd/relay"
)

// maxHead is how much of a letter is read for its header, in octets.
const maxHead = 64 << 10

// choice says which letters are meant. Its zero value means all.
type choice struct {
	since         time.Duration
	from, subject string // as parts of the fields, in any case
	client        netip.Prefix
}

// register adds the flags; since is an age, client an address or a network.
func (c *choice) register(flags *pflag.FlagSet, removed bool) {
	when := "came"
	if removed {
		when = "were removed"
	}
	flags.Func("since", "only letters that "+when+" within an `AGE` such as 2h or 3d", func(s string) (err error) {
		c.since, err = parseAge(s)
		return err
	})
	flags.StringVar(&c.from, "from", "", "only letters with this `TEXT` in From")
	flags.StringVar(&c.subject, "subject", "", "only letters with this `TEXT` in Subject")
	c.registerClient(flags, "only letters removed from an IP `ADDRESS` or network")
}

func (c *choice) registerClient(flags *pflag.FlagSet, usage string) {
	flags.Func("client", usage, func(s string) (err error) {
		if addr, bad := netip.ParseAddr(s); bad == nil {
			c.client = netip.PrefixFrom(addr.Unmap().WithZone(""), addr.Unmap().BitLen())
			return nil
		}
		if c.client, err = netip.ParsePrefix(s); err != nil {
			return errors.New("no IP address or network such as 192.0.2.7 or 192.0.2.0/24")
		}
		c.client = c.client.Masked()
		return nil
	})
}

func (c *choice) isZero() bool { return *c == choice{} }

// holds says whether a letter is meant that came, or was removed, at a time.
func (c *choice) holds(d digest, at, now time.Time) bool {
	contains := func(s, part string) bool { return strings.Contains(strings.ToLower(s), strings.ToLower(part)) }
	return c.recent(at, now) && contains(d.From, c.from) && contains(d.Subject, c.subject)
}

func (c *choice) recent(at, now time.Time) bool { return c.since == 0 || now.Sub(at) <= c.since }

func (c *choice) fromClient(client netip.Addr) bool {
	return !c.client.IsValid() || c.client.Contains(client)
}

// removedLetter is a letter that somebody has removed, as it is listed.
type removedLetter struct {
	ID string `json:"id,omitempty"` // of our 250; empty for letters of other programs
	digest
	Removed time.Time  `json:"removed"`
	Client  netip.Addr `json:"client,omitzero"`

	kept maildir.Removed
}

// name is what the operator calls it.
func (l removedLetter) name() string {
	if l.ID != "" {
		return l.ID
	}
	return l.UID
}

// ownMailbox finds the maildirs, and checks that one belongs to the user.
func (a *app) ownMailbox(user string) (root string, mailbox relay.Address, err error) {
	if mailbox, err = address(user, nil); err != nil {
		return "", mailbox, err
	}
	dir, err := a.dataDir()
	if err != nil {
		return "", mailbox, err
	}
	root = filepath.Join(dir, "mail")
	if _, err = os.Stat(maildir.Dir(root, mailbox)); errors.Is(err, fs.ErrNotExist) {
		err = hint(fmt.Errorf("there is no mailbox of %s in %s", mailbox, root), "this looks into the data of the relayd on this machine")
	}
	return root, mailbox, err
}

// removed lists the removed letters that are meant: all, or those that names name.
func (a *app) removed(user string, c choice, names ...string) (root string, mailbox relay.Address, list []removedLetter, err error) {
	root, mailbox, err = a.ownMailbox(user)
	if err != nil {
		return root, mailbox, nil, err
	}
	kept, err := maildir.ListRemoved(root, mailbox)
	if err != nil {
		return root, mailbox, nil, err
	}
	if kept, err = named(kept, names); err != nil {
		return root, mailbox, nil, err
	}
	for _, k := range kept {
		if !c.fromClient(k.Client) {
			continue
		}
		head, err := headOf(k)
		if errors.Is(err, maildir.ErrGone) {
			continue
		}
		if err != nil {
			return root, mailbox, nil, err
		}
		l := removedLetter{ID: string(k.ID), digest: newDigest(head), Removed: k.At, Client: k.Client, kept: k}
		l.UID, l.Size = k.UID, k.Size
		if c.holds(l.digest, k.At, a.Now()) {
			list = append(list, l)
		}
	}
	return root, mailbox, list, nil
}

// named chooses letters by their IDs or unique-ids, or the beginning of one that no other has.
func named(all []maildir.Removed, names []string) ([]maildir.Removed, error) {
	if len(names) == 0 {
		return all, nil
	}
	var chosen []maildir.Removed
	for _, name := range names {
		var found []maildir.Removed
		exact := false
		for _, l := range all {
			same := name == string(l.ID) || name == l.UID
			if same || !exact && name != "" && (strings.HasPrefix(string(l.ID), name) || strings.HasPrefix(l.UID, name)) {
				if same && !exact {
					exact, found = true, nil
				}
				found = append(found, l)
			}
		}
		switch {
		case len(found) == 0:
			return nil, hint(fmt.Errorf("no removed letter is called %q", name), "relayctl mail ls --removed shows what is kept")
		case len(found) > 1 && !exact:
			return nil, usage("give more of it", "%q begins the names of %d letters", name, len(found))
		}
		chosen = append(chosen, found...)
	}
	return chosen, nil
}

func headOf(l maildir.Removed) ([]byte, error) {
	r, err := l.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(io.LimitReader(r, maxHead))
}

var removedColumns = []string{"ID", "FROM", "REMOVED", "BY", "SIZE", "SUBJECT"}

// listRemoved prints the removed letters of a mailbox.
func (a *app) listRemoved(user string, c choice) error {
	_, _, list, err := a.removed(user, c)
	if err != nil {
		return err
	}
	t, octets := a.table(removedColumns...), int64(0)
	for _, l := range list {
		octets += l.Size
		if a.json {
			if err := a.printJSON(l); err != nil {
				return err
			}
			continue
		}
		by := "-"
		if l.Client.IsValid() {
			by = l.Client.String()
		}
		t.add([]string{printable(l.name()), cut(sender(l.Sender), 40), l.Removed.Local().Format("2006-01-02 15:04"), by,
			size(l.Size), printable(l.Subject)})
	}
	if a.json {
		return nil
	}
	if err := t.flush(); err != nil {
		return err
	}
	if len(list) == 0 {
		_, err = fmt.Fprintln(a.Stdout, "no removed letters")
	} else {
		_, err = fmt.Fprintf(a.Stdout, "%s removed, %s\n", count(len(list), "letter"), size(octets))
	}
	return err
}

// getRemoved prints one removed letter.
func (a *app) getRemoved(user, name string, raw bool) error {
	_, _, list, err := a.removed(user, choice{}, name)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return maildir.ErrGone
	}
	r, err := list[0].kept.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	return a.printLetter(r, raw)
}

func (a *app) mailUndelete() *cobra.Command {
	var c choice
	all := false
	cmd := &cobra.Command{
		Use: "undelete ADDRESS [ID...]", Short: "Bring letters back that somebody removed",
		Long: `undelete puts removed letters back into their mailbox, those that are named, that the flags choose,
or --all. relayctl mail ls --removed shows them. It needs no password but the right to read the
data of relayd, which may run or not.

The letters come as new ones: every mail program collects them again.`,
		Example: "  relayctl mail undelete --since 2h ann@office.example\n  relayctl mail undelete --client 192.0.2.7 ann@office.example",
		Args:    wants(true, "the ADDRESS of a mailbox"),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 1 && c.isZero() && !all {
				return usage("relayctl mail undelete --help", "undelete what? name letters, choose them with flags, or say --all")
			}
			return a.undelete(args[0], c, args[1:])
		},
	}
	c.register(cmd.Flags(), true)
	cmd.Flags().BoolVar(&all, "all", false, "all letters that are kept")
	return cmd
}

func (a *app) undelete(user string, c choice, names []string) error {
	root, mailbox, list, err := a.removed(user, c, names...)
	if err != nil {
		return err
	}
	kept := make([]maildir.Removed, len(list))
	for i, l := range list {
		kept[i] = l.kept
	}
	back, err := maildir.Undelete(root, mailbox, kept...)
	if a.json {
		return errors.Join(err, a.printJSON(struct {
			Verb  string `json:"verb"`
			Count int    `json:"count"`
		}{"undelete", back}))
	}
	_, bad := fmt.Fprintf(a.Stdout, "undeleted %s\n", count(back, "letter"))
	return errors.Join(err, bad)
}
