package ctl

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"
)

func (a *app) mailGet() *cobra.Command {
	var raw, removed bool
	cmd := a.reading("get ADDRESS N", "Print a letter", false, []string{"the number of a letter"},
		func(ctx context.Context, f account, args []string) error {
			if removed && f.server != "" {
				return usage("leave one of them out", "--removed looks into the data of relayd here, --server asks a server")
			}
			if removed {
				return a.getRemoved(f.user, args[0], raw)
			}
			n, err := letterNumber(args[0])
			if err != nil {
				return err
			}
			return a.maildrop(ctx, f, func(p *popSession) error { return a.getMail(p, n, raw) })
		})
	cmd.Long = "get prints a letter of a mailbox by its number in ls, its bytes as they are except on a terminal.\n" +
		"With --removed it prints a removed letter by its ID in ls --removed."
	cmd.Example = "  relayctl mail get --server 127.0.0.1:1100 ann@office.test 1 > letter.eml"
	cmd.Flags().BoolVar(&raw, "raw", false, "leave the line ends CRLF, as they came")
	cmd.Flags().BoolVar(&removed, "removed", false, "print a removed letter of the relayd on this machine, by its ID")
	return cmd
}

func letterNumber(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return 0, usage("relayctl mail ls shows the numbers", "%q is not the number of a letter", text)
	}
	return n, nil
}

func (a *app) getMail(p *popSession, n int, raw bool) error {
	r, err := p.retrieve(n)
	if err == nil {
		err = a.printLetter(r, raw)
	}
	if err != nil {
		return fmt.Errorf("letter %d: %w", n, err)
	}
	return nil
}

// printLetter gives the letter away as it is, except to a terminal, which would obey it.
func (a *app) printLetter(r io.Reader, raw bool) error {
	switch {
	case a.TerminalOut:
		return copyPrintable(a.Stdout, r)
	case raw:
		_, err := io.Copy(a.Stdout, r)
		return err
	}
	return copyLF(a.Stdout, r)
}

// copyLF turns CRLF into LF; a CR that stands alone stays.
func copyLF(w io.Writer, r io.Reader) error {
	in, out := bufio.NewReader(r), bufio.NewWriter(w)
	for {
		b, err := in.ReadByte()
		if err == io.EOF {
			return out.Flush()
		}
		if err != nil {
			return err
		}
		if b == '\r' {
			if next, _ := in.Peek(1); len(next) == 1 && next[0] == '\n' {
				continue
			}
		}
		if err := out.WriteByte(b); err != nil {
			return err
		}
	}
}
