package ctl

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"relayd/queue"
	"relayd/relay/admin"
	"relayd/relay/orders"
)

const queueCheckLong = `check reads every record and every message that waits and says what is wrong: damage on the disk,
records and messages that do not belong together, due times that are lost. It changes nothing.
Exit status 1 when something is wrong. What a crash left behind or what was set aside before is
told as a note, and is no fault.`

func (a *app) queueCheck() *cobra.Command {
	return &cobra.Command{
		Use: "check", Short: "Say what is wrong with the queue on the disk", Long: queueCheckLong,
		Args: wants(false),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.checkQueue(cmd.Context()) },
	}
}

func (a *app) checkQueue(ctx context.Context) error {
	var report queue.Report
	err := a.withQueue(func(c *admin.Client) (err error) {
		report, err = c.Check(ctx)
		return err
	}, func(dir string) (err error) {
		report, err = queue.Inspect(ctx, dir)
		return err
	})
	if err != nil {
		return err
	}
	faults, err := a.faults("", report.Faults)
	if err != nil {
		return err
	}
	if !a.json {
		fmt.Fprintf(a.Stdout, "checked %s in %s: %s\n", count(report.Letters, "message"), count(report.Items, "item"), faultCount(faults))
	}
	return a.remaining(report, "relayctl queue repair mends what can be mended")
}

const queueRepairLong = `repair mends what queue check finds, as far as anything is left to mend it from. A damaged record is
made anew from the message, and then everybody of that domain gets it, perhaps twice; due times are
found again from the records; the end of a message file, which says whom it is for, is written
again. Nothing is thrown away: what is damaged is kept in queue/corrupt.

It works while relayd runs, except on a database whose pages are damaged. Stop relayd for that, or
just restart it: every start makes the same repair.`

func (a *app) queueRepair() *cobra.Command {
	return &cobra.Command{
		Use: "repair", Short: "Mend what queue check finds", Long: queueRepairLong,
		Args: wants(false),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.repairQueue(cmd.Context()) },
	}
}

func (a *app) repairQueue(ctx context.Context) error {
	var done queue.Repaired
	err := a.withQueue(func(c *admin.Client) (err error) {
		done, err = c.Repair(ctx)
		return err
	}, func(dir string) (err error) {
		hold, err := standingHold(filepath.Join(filepath.Dir(dir), ordersFile))
		if err != nil {
			return err
		}
		done, err = queue.Repair(ctx, dir, queue.Options{Hold: hold})
		return errors.Join(err, giveBack(dir))
	})
	if err != nil {
		return err
	}
	if _, err := a.faults("mended", done.Mended); err != nil {
		return err
	}
	left, err := a.faults("", done.Left.Faults)
	if err != nil {
		return err
	}
	if !a.json {
		fmt.Fprintf(a.Stdout, "mended %s; left in %s: %s\n", count(len(done.Mended), "fault"), count(done.Left.Items, "item"), faultCount(left))
	}
	return a.remaining(done.Left, "stop relayd, and relayctl queue repair can mend its database too")
}

// standingHold is by which rule in the file of orders a letter is held that a repair takes in. Nothing is
// taken in past a file that cannot be read: what should be held would leave.
func standingHold(path string) (func(*queue.Item) string, error) {
	if _, _, err := orders.Read(path); err != nil {
		return nil, fmt.Errorf("the rules to hold mail in %s: %w", path, err)
	}
	book, err := orders.Open(path, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	return func(it *queue.Item) string { return book.Hold(it.From, it.Domain, it.Rcpts) }, nil
}

// withQueue asks the running relayd, or opens the queue's directory where none runs.
func (a *app) withQueue(running func(*admin.Client) error, stopped func(dir string) error) error {
	dir, err := a.dataDir()
	if err != nil {
		return err
	}
	c, err := admin.Dial(dir)
	if err == nil {
		defer c.Close()
		return running(c)
	}
	if !errors.Is(err, admin.ErrNotRunning) {
		return err
	}
	err = stopped(filepath.Join(dir, "queue"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return noQueue(dir)
	case err != nil:
		return fmt.Errorf("relayd is not running, and its queue cannot be read: %w", err)
	}
	a.note("relayd is not running: this is the queue in %s", dir)
	return nil
}

// faultLine is a fault as --json prints it.
type faultLine struct {
	queue.Fault
	Mended bool `json:"mended"`
}

// faults prints each fault under the name of what became of it, and counts those that are no
// mere notes.
func (a *app) faults(became string, list []queue.Fault) (n int, err error) {
	for _, f := range list {
		word := became
		switch {
		case word != "":
		case f.Note:
			word = "note"
		default:
			word = "fault"
		}
		if !f.Note {
			n++
		}
		if a.json {
			err = a.printJSON(faultLine{f, became != ""})
		} else {
			_, err = fmt.Fprintf(a.Stdout, "%s: %s\n", word, printable(f.Text))
		}
		if err == nil && !a.json && f.Repair != "" && became == "" {
			_, err = fmt.Fprintf(a.Stdout, "  repair %s\n", printable(f.Repair))
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

func faultCount(n int) string {
	if n == 0 {
		return "nothing is wrong"
	}
	return count(n, "fault")
}

// remaining fails when something is wrong still, with a piece of advice where one helps.
func (a *app) remaining(r queue.Report, advice string) error {
	if r.Omitted > 0 {
		a.note("%d more are not shown", r.Omitted)
	}
	if r.Err() == nil {
		return nil
	}
	helps := false
	for _, f := range r.Faults {
		helps = helps || f.Repair != "" || f.Kind == queue.FaultDatabase
	}
	if helps {
		fmt.Fprintln(a.Stderr, "hint: "+advice)
	}
	return errSilent
}

// giveBack gives the files that root has just made to whom the queue belongs: relayd itself does
// not run as root.
func giveBack(dir string) error {
	info, err := os.Stat(dir)
	if err != nil || os.Geteuid() != 0 {
		return ignoreMissing(err)
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || owner.Uid == 0 {
		return nil
	}
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return ignoreMissing(err)
		}
		info, err := d.Info()
		if err != nil {
			return ignoreMissing(err)
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid == 0 {
			return os.Lchown(path, int(owner.Uid), int(owner.Gid))
		}
		return nil
	})
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
