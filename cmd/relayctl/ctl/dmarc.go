package ctl

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayd/relay/admin"
	"relayd/relay/dmarc"
)

const dmarcLong = `dmarc is about DMARC aggregate reports (RFC 9990): those that others send about mail in the name of your
domains (report), and those relayd gathers about mail in the name of others (pending, send).`

func (a *app) dmarc() *cobra.Command {
	g := a.group("dmarc", "Who sends as your domains, and what others are told of theirs", dmarcLong)
	g.AddCommand(a.dmarcReport(), a.dmarcPending(), a.dmarcSend())
	return g
}

func (a *app) dmarcPending() *cobra.Command {
	return &cobra.Command{
		Use: "pending", Short: "Show what has been gathered for the reports to others", Args: wants(false),
		Long: `pending shows, for each domain that asks for reports, how many letters in its name came since the last
one, and for how many of them DMARC did not pass. The reports leave in the hour after midnight, UTC.
relayd must be running.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := ask(cmd.Context(), a, (*admin.Client).PendingReports)
			if err != nil {
				return err
			}
			return a.listPending(list)
		},
	}
}

func (a *app) listPending(list []admin.PendingReport) error {
	t := a.table("DOMAIN", "SINCE", "LETTERS", "FAILED", "TO")
	for _, p := range list {
		if a.json {
			if err := a.printJSON(p); err != nil {
				return err
			}
			continue
		}
		t.add([]string{printable(p.Domain), p.Begin.Format(time.DateTime), strconv.Itoa(p.Letters), strconv.Itoa(p.Failed), printable(p.RUA)})
	}
	if len(list) == 0 && !a.json {
		a.note("nothing has been gathered")
	}
	return t.flush()
}

func (a *app) dmarcSend() *cobra.Command {
	return &cobra.Command{
		Use: "send", Short: "Send the reports to others now", Args: wants(false),
		Long: `send does not wait for midnight: every domain gets the report of what has been gathered until now, and
later another one of the rest of the day. relayd must be running.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			sent, err := ask(cmd.Context(), a, (*admin.Client).SendReports)
			switch {
			case err != nil:
				return err
			case a.json:
				return a.printJSON(sent)
			}
			if _, err := fmt.Fprintf(a.Stdout, "%d done\n", sent.Done); err != nil || sent.Left == 0 {
				return err
			}
			return hint(fmt.Errorf("%d could not be sent just now", sent.Left), "relayd tries again within an hour; its log says why")
		},
	}
}

const dmarcReportLong = `report reads the DMARC reports that others send about your domains and sums up who sends as them, from
which address, and whether it passes: FAIL means that the address is a forger's, or a service of
yours that SPF and DKIM do not know yet.

It reads each FILE: a letter, or the report in it, as XML, gzip or zip; - is standard input. Without
a FILE it looks through the mailboxes that policy.report_mailboxes names, or else those of the
postmasters, their Junk and what was removed lately too, and takes no password: it reads the data
directory. A report that lies there twice counts once.`

// reportChoice says which lines of which reports are meant.
type reportChoice struct {
	mailboxes []string
	since     time.Duration
	domain    string
	failed    bool
	each      bool
}

func (a *app) dmarcReport() *cobra.Command {
	var c reportChoice
	cmd := &cobra.Command{
		Use: "report [FILE...]", Short: "Show who sends as your domains, by the reports of others", Long: dmarcReportLong,
		Example: "  relayctl dmarc report\n  relayctl dmarc report --failed --since 7d\n  relayctl dmarc report google.com!office.example!1763596800!1763683199.zip",
		RunE: func(_ *cobra.Command, args []string) error {
			found, err := a.reports(args, c)
			if shown := a.showReports(found, c); shown != nil {
				return shown
			}
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&c.mailboxes, "mailbox", nil, "look through the mailbox of this `ADDRESS`; may be given more than once")
	flags.Func("since", "only reports on days within an `AGE` such as 7d", func(s string) (err error) {
		c.since, err = parseAge(s)
		return err
	})
	flags.StringVar(&c.domain, "domain", "", "only mail in the name of this `DOMAIN` and of names below it")
	flags.BoolVar(&c.failed, "failed", false, "only what did not pass")
	flags.BoolVar(&c.each, "each", false, "every line of every report, instead of the sum")
	return cmd
}

// reports reads those in files, or else in mailboxes. What can be read comes back beside the error.
func (a *app) reports(files []string, c reportChoice) (found []dmarc.Report, err error) {
	if len(files) > 0 && len(c.mailboxes) > 0 {
		return nil, usage("", "a FILE and --mailbox do not go together")
	}
	r := &reportReader{app: a, since: c.since, seen: map[string]bool{}}
	if len(files) > 0 {
		for _, name := range files {
			r.file(name)
		}
	} else if err := r.ownMailboxes(c.mailboxes); err != nil {
		return nil, err
	}
	if len(r.found) == 0 && len(r.errs) == 0 && len(files) == 0 {
		a.note("no reports have come")
	}
	return r.found, errors.Join(r.errs...)
}

// reportLine is one row of a report, or the sum of many.
type reportLine struct {
	Domain      string    `json:"domain"` // in From
	Source      string    `json:"source"`
	Letters     int       `json:"letters"`
	DMARC       string    `json:"dmarc"` // pass or fail, as are DKIM and SPF: proven, and for the domain in From
	DKIM        string    `json:"dkim"`
	SPF         string    `json:"spf"`
	Disposition string    `json:"disposition"`
	Signers     []string  `json:"signers,omitempty"`   // whose signature was good
	Envelopes   []string  `json:"envelopes,omitempty"` // domains of MAIL FROM
	Reporters   []string  `json:"reporters"`
	ReportIDs   []string  `json:"report_ids"`
	Begin       time.Time `json:"begin"`
	End         time.Time `json:"end"`
}

func (a *app) showReports(found []dmarc.Report, c reportChoice) error {
	t := a.table("FROM", "SOURCE", "LETTERS", "DMARC", "DKIM", "SPF", "DONE", "SIGNED BY", "SENDER", "REPORTED BY")
	for _, l := range linesOf(found, c) {
		if a.json {
			if err := a.printJSON(l); err != nil {
				return err
			}
			continue
		}
		paint := plain
		if l.DMARC != "pass" {
			paint = red
		}
		t.add([]string{printable(l.Domain), printable(l.Source), strconv.Itoa(l.Letters), strings.ToUpper(l.DMARC), printable(l.DKIM), printable(l.SPF),
			printable(l.Disposition), some(l.Signers), some(l.Envelopes), some(l.Reporters)}, plain, plain, plain, paint)
	}
	return t.flush()
}

// some is a few of many names.
func some(all []string) string {
	const few = 3
	text := strings.Join(all[:min(len(all), few)], ",")
	if len(all) > few {
		text += fmt.Sprintf("+%d", len(all)-few)
	}
	if text == "" {
		text = "-"
	}
	return printable(text)
}

// linesOf are the lines that are meant: the failed ones first, then those with the most letters.
func linesOf(found []dmarc.Report, c reportChoice) []*reportLine {
	var list []*reportLine
	sums := map[string]*reportLine{}
	for _, r := range found {
		for _, rec := range r.Records {
			if c.failed && rec.Passes() || c.domain != "" && !within(rec.HeaderFrom, strings.ToLower(c.domain)) {
				continue
			}
			l := newLine(r, rec)
			key := strings.Join([]string{l.Domain, l.Source, l.DKIM, l.SPF, l.Disposition}, " ")
			if sum := sums[key]; sum != nil && !c.each {
				sum.add(l)
				continue
			}
			sums[key] = l
			list = append(list, l)
		}
	}
	slices.SortStableFunc(list, func(a, b *reportLine) int {
		return cmp.Or(cmp.Compare(a.Domain, b.Domain), cmp.Compare(a.DMARC, b.DMARC), cmp.Compare(b.Letters, a.Letters), cmp.Compare(a.Source, b.Source))
	})
	return list
}

func within(name, domain string) bool { return name == domain || strings.HasSuffix(name, "."+domain) }

func newLine(r dmarc.Report, rec dmarc.Record) *reportLine {
	l := &reportLine{Domain: rec.HeaderFrom, Source: rec.Source, Letters: rec.Count, DMARC: "fail", DKIM: rec.DKIM, SPF: rec.SPF,
		Disposition: rec.Disposition, Reporters: []string{r.Metadata.OrgName}, ReportIDs: []string{r.Metadata.ReportID}}
	if rec.Passes() {
		l.DMARC = "pass"
	}
	l.Begin, l.End = r.Period()
	for _, s := range rec.AuthDKIM {
		if s.Result == "pass" {
			l.Signers = addName(l.Signers, s.Domain)
		}
	}
	if rec.EnvelopeFrom != "" {
		l.Envelopes = []string{rec.EnvelopeFrom}
	} else if len(rec.AuthSPF) > 0 && rec.AuthSPF[0].Domain != "" {
		l.Envelopes = []string{rec.AuthSPF[0].Domain}
	}
	return l
}

func (l *reportLine) add(more *reportLine) {
	l.Letters += more.Letters
	for _, p := range []struct {
		to   *[]string
		from []string
	}{{&l.Signers, more.Signers}, {&l.Envelopes, more.Envelopes}, {&l.Reporters, more.Reporters}, {&l.ReportIDs, more.ReportIDs}} {
		for _, name := range p.from {
			*p.to = addName(*p.to, name)
		}
	}
	if more.Begin.Before(l.Begin) {
		l.Begin = more.Begin
	}
	if more.End.After(l.End) {
		l.End = more.End
	}
}

// maxNames bounds how many names a sum keeps.
const maxNames = 100

func addName(all []string, name string) []string {
	if slices.Contains(all, name) || len(all) >= maxNames {
		return all
	}
	return append(all, name)
}
