package ctl

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"
)

func (a *app) mailRm() *cobra.Command {
	cmd := a.reading("rm ADDRESS N...", "Delete letters", true, []string{"the number of a letter"},
		func(ctx context.Context, f account, args []string) error {
			var numbers []int
			for _, arg := range args {
				n, err := letterNumber(arg)
				if err != nil {
					return err
				}
				numbers = append(numbers, n)
			}
			// The same letter twice would fail at the second time, and delete nothing.
			slices.Sort(numbers)
			return a.removeMail(ctx, f, slices.Compact(numbers))
		})
	cmd.Long = "rm deletes letters of a mailbox by their numbers in ls: all of them or, when one cannot be deleted, none."
	return cmd
}

func (a *app) removeMail(ctx context.Context, f account, numbers []int) error {
	err := a.maildrop(ctx, f, func(p *popSession) error {
		for _, n := range numbers {
			if err := p.remove(n); err != nil {
				return fmt.Errorf("letter %d: %w; nothing was deleted", n, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(struct {
			Verb    string `json:"verb"`
			Numbers []int  `json:"numbers"`
		}{"rm", numbers})
	}
	_, err = fmt.Fprintf(a.Stdout, "deleted %s\n", count(len(numbers), "letter"))
	return err
}
