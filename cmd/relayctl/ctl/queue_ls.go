package ctl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"relayd/relay/admin"
)

// sortings are the values of --sort. Age is the order in which the queue itself answers.
var sortings = map[string]func(x, y admin.Item) int{
	"age":      func(x, y admin.Item) int { return x.Accepted.Compare(y.Accepted) },
	"size":     func(x, y admin.Item) int { return cmp.Compare(y.Size, x.Size) },
	"attempts": func(x, y admin.Item) int { return cmp.Compare(y.Attempts, x.Attempts) },
	"next":     func(x, y admin.Item) int { return x.Next.Compare(y.Next) },
	"domain":   func(x, y admin.Item) int { return cmp.Compare(x.Domain, y.Domain) },
	"from":     func(x, y admin.Item) int { return cmp.Compare(x.From, y.From) },
	"to":       func(x, y admin.Item) int { return slices.Compare(x.To, y.To) },
	"answer":   func(x, y admin.Item) int { return cmp.Compare(x.LastAnswer, y.LastAnswer) },
}

func sortNames() []string { return slices.Sorted(maps.Keys(sortings)) }

const queueLsExample = `  relayctl queue ls --domain partner.example --older 2h
  relayctl queue ls --held --sort size
  relayctl queue ls --json | jq -r .id`

func (a *app) queueLs() *cobra.Command {
	var f filterFlags
	var order string
	var reverse bool
	cmd := &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List the mail that waits",
		Example: queueLsExample, Args: wants(false),
		RunE: func(cmd *cobra.Command, _ []string) error {
			filter, err := f.filter(cmd)
			if err != nil {
				return err
			}
			if sortings[order] == nil {
				return usage("one of "+strings.Join(sortNames(), ", "), "--sort cannot be %q", order)
			}
			return a.list(cmd.Context(), filter, order, reverse)
		},
	}
	f.register(cmd)
	cmd.Flags().StringVar(&order, "sort", "age", "by `WHAT`: "+strings.Join(sortNames(), ", "))
	cmd.Flags().BoolVar(&reverse, "reverse", false, "the other way round")
	_ = cmd.RegisterFlagCompletionFunc("sort", cobra.FixedCompletions(sortNames(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// list prints the items as they come, or sorted when all have come.
func (a *app) list(ctx context.Context, f admin.Filter, order string, reverse bool) (err error) {
	s, err := a.open()
	if err != nil {
		return err
	}
	defer s.close()
	a.notePauses(ctx, s)
	out := a.newListing()
	defer out.lines.flush()
	out.keep = order != "age" || reverse
	if s.files {
		// Nobody who reads the list in a pager keeps a daemon from starting.
		sp := newSpool(a.Stdout)
		defer func() { err = errors.Join(err, sp.close()) }()
		defer s.close()
		out.lines.out = sp
	}
	if err := out.takeAll(ctx, s, f); err != nil {
		return err
	}
	s.close()
	slices.SortStableFunc(out.kept, sortings[order])
	if reverse {
		slices.Reverse(out.kept)
	}
	for _, it := range out.kept {
		if err := out.print(it); err != nil {
			return err
		}
	}
	return out.end(f.IsZero())
}

// takeAll takes every item, in the form that costs least.
func (l *listing) takeAll(ctx context.Context, s source, f admin.Filter) error {
	items := s.List
	if c, running := s.store.(*admin.Client); running && !l.app.json {
		items = c.Summaries
	} else if running && !l.keep {
		return l.copyLines(c.Lines(ctx, f))
	}
	for it, err := range items(ctx, f) {
		if err := l.take(it, err); err != nil {
			return err
		}
	}
	return nil
}

// copyLines passes on what is to be printed as it came.
func (l *listing) copyLines(texts iter.Seq2[[]byte, error]) error {
	for text, err := range texts {
		if err == nil {
			err = writeJSONText(l.lines, string(text))
		} else {
			err = l.take(admin.Item{}, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// brokenItem reports one item that cannot be read; every other error ends the list.
func (a *app) brokenItem(err error) error {
	if e, ok := errors.AsType[*admin.Error](err); ok && e.Code == 0 {
		a.note("%v", e)
		return nil
	}
	return err
}

// whole passes on the items of a list that can be read, reports the others, and ends with the first
// other error.
func (a *app) whole(list iter.Seq2[admin.Item, error]) iter.Seq2[admin.Item, error] {
	return func(yield func(admin.Item, error) bool) {
		for it, err := range list {
			if err != nil {
				if err = a.brokenItem(err); err == nil {
					continue
				}
			}
			if !yield(it, err) || err != nil {
				return
			}
		}
	}
}

// listing prints items as lines of a table or of JSON.
type listing struct {
	app    *app
	lines  *lines
	table  *table
	totals admin.Totals
	broken int
	keep   bool // until all have come
	kept   []admin.Item
}

func (a *app) newListing() *listing {
	l := &listing{app: a, lines: &lines{out: a.Stdout}}
	l.table = a.table("ID", "AGE", "SIZE", "TRIES", "NEXT", "FROM", "TO", "LAST ANSWER")
	l.table.out = l.lines
	return l
}

// take counts an item or its error, and prints it unless it is to be kept.
func (l *listing) take(it admin.Item, err error) error {
	if err != nil {
		l.broken++
		return l.app.brokenItem(err)
	}
	// Totals counts messages by their neighbours, hence here, before any sorting.
	l.totals.Add(it)
	if l.keep {
		l.kept = append(l.kept, it)
		return nil
	}
	return l.print(it)
}

func (l *listing) print(it admin.Item) error {
	if l.app.json {
		return writeJSON(l.lines, it)
	}
	now := l.app.Now()
	answer := plain
	if strings.HasPrefix(it.LastAnswer, "5") {
		answer = red
	}
	when := plain
	if it.Held || it.Paused {
		when = yellow
	}
	l.table.add([]string{string(it.ID), span(now.Sub(it.Accepted)), size(it.Size), strconv.Itoa(it.Attempts),
		restingNext(it, now), sender(it.From), recipients(it.To), printable(it.LastAnswer)},
		plain, plain, plain, plain, when, plain, plain, answer)
	return l.table.err
}

// recipients names the first ones and counts the rest.
func recipients(to []string) string {
	const shown = 2
	s := printable(strings.Join(to[:min(shown, len(to))], ", "))
	if more := len(to) - shown; more > 0 {
		s += fmt.Sprintf(" and %d more", more)
	}
	return s
}

func (l *listing) end(everything bool) error {
	if !l.app.json {
		if err := l.table.flush(); err != nil {
			return err
		}
		text := "nothing in the queue matches"
		switch {
		case l.totals.Items > 0:
			text = l.app.summary(l.totals)
		case everything:
			text = "the queue is empty"
		}
		if _, err := fmt.Fprintln(l.lines, text); err != nil {
			return err
		}
	}
	if err := l.lines.flush(); err != nil {
		return err
	}
	if l.broken > 0 {
		return fmt.Errorf("%s cannot be read", count(l.broken, "item"))
	}
	return nil
}
