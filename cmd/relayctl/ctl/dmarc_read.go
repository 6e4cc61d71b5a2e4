package ctl

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"relayd/delivery/maildir"
	"relayd/relay"
	"relayd/relay/dmarc"
)

// reportReader collects the reports on DMARC that others have sent, each once.
type reportReader struct {
	app   *app
	since time.Duration
	found []dmarc.Report
	seen  map[string]bool
	errs  []error
}

// keep takes what was read from one place.
func (r *reportReader) keep(place string, list []dmarc.Report, err error) {
	for _, one := range list {
		key := one.Metadata.OrgName + "\n" + one.Metadata.ReportID + "\n" + one.Published.Domain
		_, end := one.Period()
		if r.seen[key] && one.Metadata.ReportID != "" || r.since > 0 && r.app.Now().Sub(end) > r.since {
			continue
		}
		r.seen[key] = true
		r.found = append(r.found, one)
	}
	if err != nil {
		r.errs = append(r.errs, fmt.Errorf("%s: %w", place, err))
	}
}

// file reads what the operator named.
func (r *reportReader) file(name string) {
	if name == "-" {
		list, err := dmarc.Read(r.app.Stdin)
		r.keep("standard input", list, err)
		return
	}
	f, err := os.Open(name)
	if err != nil {
		r.errs = append(r.errs, err)
		return
	}
	defer f.Close()
	list, err := dmarc.Read(f)
	r.keep(name, list, err)
}

// ownMailboxes looks through mailboxes here: those named, or else where reports arrive.
func (r *reportReader) ownMailboxes(names []string) error {
	var list []relay.Address
	for _, name := range names {
		a, err := address(name, nil)
		if err != nil {
			return err
		}
		list = append(list, a)
	}
	if len(names) == 0 {
		var err error
		if list, err = r.app.reportMailboxes(); err != nil {
			return err
		}
	}
	dir, err := r.app.dataDir()
	if err != nil {
		return err
	}
	root := filepath.Join(dir, "mail")
	for _, mailbox := range list {
		if _, err := os.Stat(maildir.Dir(root, mailbox)); errors.Is(err, fs.ErrNotExist) {
			if len(names) > 0 {
				return fmt.Errorf("there is no mailbox of %s in %s", mailbox, root)
			}
			continue
		}
		if err := r.mailbox(root, mailbox); err != nil {
			return err
		}
	}
	return nil
}

// reportMailboxes is where the reports on our domains arrive: what the config says, or the mailboxes
// of the postmasters, where relayctl dns has them sent.
func (a *app) reportMailboxes() ([]relay.Address, error) {
	cfg, err := a.load()
	if err != nil {
		return nil, hint(err, "name a mailbox, --mailbox ann@office.example, or a FILE")
	}
	list := slices.Clone(cfg.Policy.ReportMailboxes)
	if len(list) > 0 {
		return list, nil
	}
	for _, d := range slices.Sorted(maps.Keys(cfg.Domains)) {
		targets := cfg.Domains[d].Aliases[relay.Postmaster.Local]
		if len(targets) == 0 {
			targets = []string{cfg.Domains[d].Postmaster}
		}
		for _, t := range targets {
			if p, err := relay.ParseAddress(t, true); err == nil && !slices.Contains(list, p) {
				list = append(list, p)
			}
		}
	}
	return list, nil
}

// mailbox looks through one mailbox: what is new and what has been seen, the folder Junk, and what
// POP3 has removed.
func (r *reportReader) mailbox(root string, mailbox relay.Address) error {
	dir := maildir.Dir(root, mailbox)
	for _, sub := range []string{"new", "cur", ".Junk/new", ".Junk/cur"} {
		files, err := os.ReadDir(filepath.Join(dir, sub))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, f := range files {
			if !f.Type().IsRegular() {
				continue
			}
			path := filepath.Join(dir, sub, f.Name())
			letter, err := os.Open(path)
			if err != nil {
				continue // another program has moved it
			}
			r.letter(path, letter)
		}
	}
	removed, err := maildir.ListRemoved(root, mailbox)
	if err != nil {
		return err
	}
	for _, one := range removed {
		if letter, err := one.Open(); err == nil {
			r.letter(one.UID, letter)
		}
	}
	return nil
}

// letter reads one that says in its Subject that it is a report (RFC 9990 §3.5.2). What is broken in
// it is said, and no reason to read no further.
func (r *reportReader) letter(name string, letter io.ReadCloser) {
	defer letter.Close()
	head := make([]byte, maxHead)
	n, err := io.ReadFull(letter, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return
	}
	h, _ := parseHeader(head[:n])
	if !strings.Contains(strings.ToLower(decoded(h.get("Subject"))), "report domain:") {
		return
	}
	list, err := dmarc.Read(io.MultiReader(strings.NewReader(string(head[:n])), letter))
	if err != nil {
		r.app.note("%s: %v", name, err)
	}
	r.keep(name, list, nil)
}
