package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"relayd/relay"
	"relayd/relay/admin"
)

// A letter of an export is two files: ID.eml, octet for octet as it would be sent, and ID.json, its
// envelope. The envelope comes last, and an import that has taken the letter renames it.
const (
	letterSuffix   = ".eml"
	envelopeSuffix = ".json"
	importedSuffix = ".imported"
)

func (a *app) queueExport() *cobra.Command {
	var f filterFlags
	var all, dry bool
	cmd := &cobra.Command{
		Use: "export DIR [ID...]", Short: "Copy waiting letters into a folder, for queue import",
		Long: `export writes two files for each letter into DIR, which it makes: ID.eml, the letter as it would be sent,
and ID.json, its envelope with the recipients who have not got it yet. Nothing leaves the queue: hold the
letters before and drop them afterwards, or they are sent from both places. Works while relayd is stopped.`,
		Example: "  relayctl queue export /var/tmp/letters --domain partner.example",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage(cmd.UseLine(), "queue export where to?")
			}
			c := &change{app: a, queueVerb: queueVerb{name: "export"}, filter: f, all: all, dry: dry}
			order, err := c.order(cmd, args[1:])
			if err != nil {
				return err
			}
			if dry {
				return c.rehearse(cmd.Context(), order)
			}
			return a.export(cmd.Context(), args[0], order.Filter)
		},
	}
	f.register(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "everything in the queue")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "write nothing, say what would be")
	return cmd
}

// export writes every letter once, with the recipients of those of its items that were chosen.
func (a *app) export(ctx context.Context, dir string, f admin.Filter) error {
	s, err := a.open()
	if err != nil {
		return err
	}
	defer s.close()
	var ids []relay.ID
	chosen := map[relay.ID][]string{}
	for it, err := range a.whole(s.List(ctx, f)) {
		if err != nil {
			return err
		}
		if chosen[it.ID] == nil {
			ids = append(ids, it.ID)
		}
		chosen[it.ID] = append(chosen[it.ID], it.Key())
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	bar := a.progress(len(ids), "exporting")
	done := 0
	for _, id := range ids {
		switch err := a.exportLetter(ctx, s, dir, id, chosen[id]); {
		case isGone(err): // it was delivered meanwhile
		case err != nil:
			return fmt.Errorf("exported %s, then %s: %w", count(done, "letter"), id, err)
		default:
			done++
		}
		_ = bar.Add(1) // a bar that cannot be drawn stops nothing
	}
	_ = bar.Finish()
	return a.reportLetters("export", "exported", done)
}

func isGone(err error) bool {
	e, ok := errors.AsType[*admin.Error](err)
	return ok && e.IsNotFound()
}

func (a *app) exportLetter(ctx context.Context, s source, dir string, id relay.ID, keys []string) error {
	var out admin.Exported
	for i, key := range keys {
		part, err := s.Export(ctx, key)
		if err != nil {
			return err
		}
		if i == 0 {
			out = part
			continue
		}
		out.Rcpts, out.Keys, out.Held = append(out.Rcpts, part.Rcpts...), append(out.Keys, part.Keys...), out.Held || part.Held
	}
	letter, err := s.Body(ctx, string(id))
	if err != nil {
		return err
	}
	defer letter.Close()
	name := filepath.Join(dir, string(id))
	if err := writeNew(name+letterSuffix, letter); err != nil {
		return err
	}
	text, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		return err
	}
	return writeNew(name+envelopeSuffix, strings.NewReader(string(text)+"\n"))
}

// writeNew writes a file that is not there, durably, for its owner alone.
func writeNew(name string, r io.Reader) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return hint(err, "export into a folder of its own")
	}
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		os.Remove(name)
	}
	return err
}

func (a *app) queueImport() *cobra.Command {
	var dry, held bool
	cmd := &cobra.Command{
		Use: "import DIR", Short: "Take the letters of an export into the queue", Args: wants(false, "a DIR"),
		Long: `import has every letter that queue export wrote into DIR taken into the queue, as durably as if it came
by SMTP, under a new ID and with the age it had. What was held is held again. The envelope of a letter that
was taken is renamed to .imported, so that an import that was broken off goes on where it stopped and none
sends a letter twice. A letter that still waits here is refused.`,
		Example: "  relayctl queue import /var/tmp/letters",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.importAll(cmd.Context(), args[0], held, dry)
		},
	}
	cmd.Flags().BoolVar(&held, "hold", false, "hold all of them")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "change nothing, say what would be")
	return cmd
}

func (a *app) importAll(ctx context.Context, dir string, held, dry bool) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), envelopeSuffix); ok && e.Type().IsRegular() {
			names = append(names, filepath.Join(dir, name))
		}
	}
	if dry {
		if a.json {
			return a.printJSON(lettersDone{"import", len(names), true})
		}
		_, err := fmt.Fprintf(a.Stdout, "import would be for %s\n", count(len(names), "letter"))
		return err
	}
	client, err := a.dial()
	if err != nil {
		return err
	}
	defer client.Close()
	bar := a.progress(len(names), "importing")
	done, failed := 0, 0
	for _, name := range names {
		if err := importLetter(ctx, client, name, held); err != nil {
			a.note("%s: %v", filepath.Base(name), err)
			if h := hintOf(err); h != "" {
				a.note("hint: %s", h)
			}
			failed++
		} else {
			done++
		}
		_ = bar.Add(1) // as above
	}
	_ = bar.Finish()
	err = a.reportLetters("import", "imported", done)
	if failed > 0 {
		err = fmt.Errorf("%s not imported", count(failed, "letter"))
	}
	return err
}

func importLetter(ctx context.Context, client *admin.Client, name string, held bool) error {
	text, err := os.ReadFile(name + envelopeSuffix)
	if err != nil {
		return err
	}
	var order admin.Import
	if err := json.Unmarshal(text, &order); err != nil {
		return fmt.Errorf("the envelope cannot be read: %w", err)
	}
	order.Held = order.Held || held
	letter, err := os.Open(name + letterSuffix)
	if err != nil {
		return err
	}
	defer letter.Close()
	if _, err := client.Import(ctx, order, letter); err != nil {
		return err
	}
	return os.Rename(name+envelopeSuffix, name+envelopeSuffix+importedSuffix)
}

// lettersDone is the result of export and import, with the stable names of --json.
type lettersDone struct {
	Verb  string `json:"verb"`
	Count int    `json:"count"` // letters
	Dry   bool   `json:"dry_run,omitempty"`
}

func (a *app) reportLetters(verb, done string, n int) error {
	if a.json {
		return a.printJSON(lettersDone{verb, n, false})
	}
	_, err := fmt.Fprintf(a.Stdout, "%s %s\n", done, count(n, "letter"))
	return err
}
