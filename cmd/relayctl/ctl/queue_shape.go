package ctl

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayd/relay/admin"
)

type ageColumn struct {
	name  string
	under time.Duration
}

// ages are the columns of shape: items younger than that, and at least as old as the column
// before says. The last one has those that are older still.
var ages = []ageColumn{
	{"5m", 5 * time.Minute}, {"15m", 15 * time.Minute}, {"1h", time.Hour}, {"4h", 4 * time.Hour},
	{"12h", 12 * time.Hour}, {"1d", 24 * time.Hour}, {"3d", 3 * 24 * time.Hour}, {"older", 1<<63 - 1},
}

// groupings are the values of --by.
var groupings = map[string]func(admin.Item) string{
	"domain": func(it admin.Item) string { return string(it.Domain) },
	"sender": func(it admin.Item) string { return sender(it.From) },
	"from-domain": func(it admin.Item) string {
		_, domain, _ := strings.Cut(it.From[max(strings.LastIndexByte(it.From, '@'), 0):], "@")
		return cmp.Or(domain, "<>")
	},
}

func (a *app) queueShape() *cobra.Command {
	var f filterFlags
	var by string
	cmd := &cobra.Command{
		Use: "shape", Short: "Count the mail that waits by destination and age",
		Long: `shape counts the items that wait for each destination by their age: the column 1h has those that have
waited less than an hour and at least as long as the column before says. The fullest comes first. One
destination that fills the old columns is in trouble; all of them, and the trouble is here.`,
		Example: "  relayctl queue shape\n  relayctl queue shape --by sender --domain partner.example",
		Args:    wants(false),
		RunE: func(cmd *cobra.Command, _ []string) error {
			filter, err := f.filter(cmd)
			if err != nil {
				return err
			}
			if groupings[by] == nil {
				return usage("one of domain, from-domain, sender", "--by cannot be %q", by)
			}
			return a.shape(cmd.Context(), filter, by)
		},
	}
	f.register(cmd)
	cmd.Flags().StringVar(&by, "by", "domain", "a line for each `WHAT`: domain (they go to), sender, from-domain")
	_ = cmd.RegisterFlagCompletionFunc("by", cobra.FixedCompletions([]string{"domain", "sender", "from-domain"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// shapeRow is one line of shape, with the stable names of --json.
type shapeRow struct {
	Name   string    `json:"name"` // empty: of everything
	Items  int       `json:"items"`
	Held   int       `json:"held"`
	Oldest time.Time `json:"oldest"`
	Ages   []ageRow  `json:"ages"`
}

type ageRow struct {
	Under string `json:"under"` // as a column is called
	Items int    `json:"items"`
}

func newShapeRow(name string) *shapeRow {
	r := &shapeRow{Name: name}
	for _, a := range ages {
		r.Ages = append(r.Ages, ageRow{Under: a.name})
	}
	return r
}

func (r *shapeRow) add(it admin.Item, now time.Time) {
	r.Items++
	if it.Held {
		r.Held++
	}
	if r.Oldest.IsZero() || it.Accepted.Before(r.Oldest) {
		r.Oldest = it.Accepted
	}
	old := now.Sub(it.Accepted)
	at := slices.IndexFunc(ages[:len(ages)-1], func(c ageColumn) bool { return old < c.under })
	if at < 0 {
		at = len(ages) - 1
	}
	r.Ages[at].Items++
}

// shape counts all items, in memory that grows with the destinations and not with the items.
func (a *app) shape(ctx context.Context, f admin.Filter, by string) error {
	s, err := a.open()
	if err != nil {
		return err
	}
	defer s.close()
	items := s.List
	if c, running := s.store.(*admin.Client); running {
		items = c.Summaries
	}
	all, rows, now := newShapeRow(""), map[string]*shapeRow{}, a.Now()
	for it, err := range a.whole(items(ctx, f)) {
		if err != nil {
			return err
		}
		name := groupings[by](it)
		if rows[name] == nil {
			rows[name] = newShapeRow(name)
		}
		rows[name].add(it, now)
		all.add(it, now)
	}
	s.close()
	var sorted []*shapeRow
	for _, r := range rows {
		sorted = append(sorted, r)
	}
	slices.SortFunc(sorted, func(x, y *shapeRow) int {
		return cmp.Or(cmp.Compare(y.Items, x.Items), cmp.Compare(x.Name, y.Name))
	})
	return a.printShape(all, sorted, by)
}

func (a *app) printShape(all *shapeRow, rows []*shapeRow, by string) error {
	if a.json {
		for _, r := range rows {
			if err := a.printJSON(r); err != nil {
				return err
			}
		}
		return nil
	}
	if all.Items == 0 {
		_, err := a.Stdout.Write([]byte("nothing in the queue matches\n"))
		return err
	}
	header := []string{strings.ToUpper(by), "ITEMS", "HELD"}
	for _, c := range ages {
		header = append(header, strings.ToUpper(c.name))
	}
	t := a.table(header...)
	all.Name = "all"
	for _, r := range append([]*shapeRow{all}, rows...) {
		cells := []string{printable(r.Name), strconv.Itoa(r.Items), strconv.Itoa(r.Held)}
		for _, c := range r.Ages {
			cells = append(cells, strconv.Itoa(c.Items))
		}
		t.add(cells)
	}
	return t.flush()
}
