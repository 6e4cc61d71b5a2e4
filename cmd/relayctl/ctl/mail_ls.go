package ctl

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
)

// reading is a verb that reads a mailbox: use and wants name what follows the ADDRESS, which may
// be given as --user instead.
func (a *app) reading(use, short string, many bool, rest []string, run func(ctx context.Context, f account, args []string) error) *cobra.Command {
	var f account
	cmd := &cobra.Command{
		Use: use, Short: short,
		Args: func(cmd *cobra.Command, args []string) error {
			names := rest
			if f.user == "" {
				names = append([]string{"the ADDRESS of a mailbox"}, rest...)
			}
			return wants(many, names...)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.user == "" {
				f.user, args = args[0], args[1:]
			}
			if err := checkLogin(f.user); err != nil {
				return err
			}
			return run(cmd.Context(), f, args)
		},
	}
	f.register(cmd.Flags())
	cmd.Flags().StringVar(&f.user, "user", "", "log in as `NAME`, instead of the argument ADDRESS")
	return cmd
}

// maildrop opens the mailbox that the flags name.
func (a *app) maildrop(ctx context.Context, f account, do func(*popSession) error) error {
	server, err := a.endpoint(ctx, f.server, f.transport, "pop3", "pop3s")
	if err != nil {
		return err
	}
	password, err := a.loginPassword(ctx, f.passwordStdin, f.user)
	if err != nil {
		return err
	}
	return server.maildrop(ctx, f.user, password, do)
}

func (a *app) mailLs() *cobra.Command {
	var brief, removed bool
	var c choice
	cmd := a.reading("ls ADDRESS", "List the letters of a mailbox", false, nil,
		func(ctx context.Context, f account, _ []string) error {
			switch {
			case removed && f.server != "":
				return usage("leave one of them out", "--removed looks into the data of relayd here, --server asks a server")
			case removed:
				return a.listRemoved(f.user, c)
			case c.client.IsValid():
				return usage("", "--client is for --removed: POP3 does not tell")
			}
			return a.maildrop(ctx, f, func(p *popSession) error { return a.listMail(p, brief, c) })
		})
	cmd.Long = `ls lists a mailbox over POP3. With --removed it lists instead what has been removed from a mailbox of
the relayd on this machine and can be brought back; that takes no password but the right to read
its data.`
	cmd.Aliases = []string{"list"}
	cmd.Example = "  relayctl mail ls --server 127.0.0.1:1100 ann@office.test\n  relayctl mail ls --brief ann@office.example"
	cmd.Flags().BoolVar(&brief, "brief", false, "a line for each letter: number, sender, day")
	cmd.Flags().BoolVar(&removed, "removed", false, "list removed letters that relayctl mail undelete can bring back")
	c.register(cmd.Flags(), false)
	return cmd
}

// listMail prints the letters as they are read, as far as they are meant.
func (a *app) listMail(p *popSession, brief bool, c choice) error {
	t := a.table(digestColumns...)
	n, octets := 0, int64(0)
	err := p.digests(func(d digest) error {
		if !c.holds(d, d.Received, a.Now()) {
			return nil
		}
		n, octets = n+1, octets+d.Size
		switch {
		case a.json:
			return a.printJSON(d)
		case brief:
			_, err := fmt.Fprintln(a.Stdout, d.brief())
			return err
		}
		t.add(d.cells())
		return t.err
	})
	if err != nil || a.json || brief {
		return err
	}
	if err := t.flush(); err != nil {
		return err
	}
	total := mailTotal(n, octets)
	if n == 0 && !c.isZero() {
		total = "no such letters"
	}
	_, err = fmt.Fprintln(a.Stdout, total)
	return err
}

func mailTotal(n int, octets int64) string {
	if n == 0 {
		return "the mailbox is empty"
	}
	return fmt.Sprintf("%s, %s", count(n, "letter"), size(octets))
}

// digests calls each for every letter.
func (p *popSession) digests(each func(digest) error) error {
	var all []digest
	err := p.list(func(n int, size int64) error {
		all = append(all, digest{Number: n, Size: size})
		return nil
	})
	if err != nil {
		return fmt.Errorf("listing the letters: %w", err)
	}
	uids, err := p.uids()
	if err != nil {
		return fmt.Errorf("listing the letters: %w", err)
	}
	for _, known := range all {
		text, err := p.header(known.Number)
		if err != nil {
			return fmt.Errorf("letter %d: %w", known.Number, err)
		}
		d := newDigest(text)
		d.Number, d.Size, d.UID = known.Number, known.Size, uids[known.Number]
		if err := each(d); err != nil {
			return err
		}
	}
	return nil
}
