package ctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"relayd/config"
	"relayd/relay/admin"
	"relayd/relay/drop"
)

// The exit statuses of sendmail, which programs look at (sysexits.h).
const (
	exMailUsage   = 64
	exData        = 65
	exNoUser      = 67
	exNoHost      = 68
	exUnavailable = 69
	exIOErr       = 74
	exTempFail    = 75
	exNoPerm      = 77
	exConfig      = 78
)

const sendmailLong = `sendmail takes a letter from a program on this machine, as /usr/sbin/sendmail always did. relayctl
does the same under the name sendmail: ln -s relayctl /usr/sbin/sendmail.

While relayd runs it gets the letter over its control socket. While it does not, or the user may not
use the socket, the letter waits in the drop directory.

  -t            the recipients stand in To, Cc and Bcc, beside those named here
  -i, -oi       a line with nothing but a dot does not end the letter
  -f, -r ADDR   the sender; otherwise the user who runs the program
  -F NAME       the full name, for a letter without From
  -v            say what became of the letter
  -C FILE       the configuration, as --config
  -B -N -O -o -R -V -h -L -X -p -A -e -G -U -n -m -x are understood and change nothing.

Exit status as in sysexits.h: 0 done, 64 wrong usage, 65 the letter is wrong, 67 no such recipient, 68 no
such domain, 69 refused, 74 trouble with a file, 75 try again later, 77 no permission, 78 wrong configuration.`

func (a *app) sendmail() *cobra.Command {
	return &cobra.Command{
		Use: "sendmail [-t] [-i] [-f ADDR] [-F NAME] [RECIPIENT...]", Short: "Take a letter from a program, as /usr/sbin/sendmail does",
		Long: sendmailLong, DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := parseMailArgs(args)
			if err != nil {
				return exits(exMailUsage, err)
			}
			if m.help {
				return cmd.Help()
			}
			if m.config != "" {
				a.configFile = m.config
			}
			if m.dataDir != "" {
				a.dataFlag = m.dataDir
			}
			a.json = a.json || m.json
			return a.takeMail(cmd.Context(), m)
		},
	}
}

// Command is what the process was called with, without its own name: a link called sendmail is
// relayctl sendmail.
func Command(args []string) []string {
	if len(args) > 0 && filepath.Base(args[0]) == "sendmail" {
		return append([]string{"sendmail"}, args[1:]...)
	}
	return args[1:]
}

// exitError fails with a status of its own.
type exitError struct {
	error
	status int
}

func (e *exitError) Unwrap() error { return e.error }

func exits(status int, err error) error { return &exitError{err, status} }

func (a *app) takeMail(ctx context.Context, m mailArgs) error {
	letter, err := a.readMail(m.wholeInput)
	if err != nil {
		return exits(exIOErr, err)
	}
	order, err := orderOf(m, letter)
	if err != nil {
		return err
	}
	dataDir, dropDir, err := a.mailPlaces()
	if err != nil {
		return exits(exConfig, err)
	}
	done, err := submitMail(ctx, dataDir, order, letter)
	if err == nil {
		return a.mailSubmitted(m, done)
	}
	if refused, ok := errors.AsType[*admin.Error](err); ok {
		return exits(exTempFail, refused)
	}
	return a.dropMail(m, dropDir, order, letter)
}

// readMail reads a letter up to its end or, as sendmail does without -i, to a lone dot.
func (a *app) readMail(whole bool) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(a.Stdin, maxLetter+1))
	if err != nil {
		return nil, fmt.Errorf("reading the letter: %w", err)
	}
	if len(text) > maxLetter {
		return nil, fmt.Errorf("the letter is larger than %s", size(maxLetter))
	}
	if whole {
		return text, nil
	}
	at := 0
	for line := range bytes.Lines(text) {
		if string(bytes.TrimRight(line, "\r\n")) == "." {
			return text[:at], nil
		}
		at += len(line)
	}
	return text, nil
}

// orderOf finds out who gets the letter.
func orderOf(m mailArgs, letter []byte) (drop.Order, error) {
	o := drop.Order{From: m.from, Name: m.name, UID: os.Getuid()}
	h, _ := parseHeader(letter) // a letter without a header is one, too
	o.Unsigned = !h.has("From")
	for _, r := range m.rcpts {
		o.Rcpts = append(o.Rcpts, addressesIn(r)...)
	}
	if m.fromHeader {
		names := []string{"To", "Cc", "Bcc"}
		if h.has("Resent-To", "Resent-Cc", "Resent-Bcc") {
			names = []string{"Resent-To", "Resent-Cc", "Resent-Bcc"} // RFC 5322 §3.6.6
		}
		for _, f := range h {
			if slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, f.name) }) {
				o.Rcpts = append(o.Rcpts, addressesIn(f.value)...)
			}
		}
	}
	switch {
	case len(o.Rcpts) == 0:
		return o, exits(exMailUsage, usage("name them, or give -t for those in To, Cc and Bcc", "who gets the letter?"))
	case len(o.Rcpts) > drop.MaxRcpts:
		return o, exits(exData, fmt.Errorf("%d recipients are too many", len(o.Rcpts)))
	}
	return o, nil
}

// mailPlaces are the data directory and the drop directory.
func (a *app) mailPlaces() (data, dropped string, err error) {
	if a.dataFlag != "" {
		data, err = filepath.Abs(a.dataFlag)
		return data, filepath.Join(data, config.DropName), err
	}
	cfg, err := a.load()
	if err != nil {
		return "", "", err
	}
	return cfg.DataDir, cfg.DropDir, nil
}

func submitMail(ctx context.Context, dataDir string, o drop.Order, letter []byte) (admin.Submitted, error) {
	c, err := admin.Dial(dataDir)
	if err != nil {
		return admin.Submitted{}, err
	}
	defer c.Close()
	return c.Submit(ctx, o, bytes.NewReader(letter))
}

// mailSubmitted tells what the daemon answered, and exits with what it means.
func (a *app) mailSubmitted(m mailArgs, done admin.Submitted) error {
	if len(done.Refused) == 0 {
		return a.mailTaken(m, "accepted", "accepted as "+string(done.ID), string(done.ID))
	}
	status := 0
	var lines []string
	for _, r := range done.Refused {
		lines = append(lines, strings.TrimPrefix(fmt.Sprintf("%s: %d %s %s", r.Rcpt, r.Code, r.Status, r.Text), ": "))
		status = max(status, mailStatus(r))
	}
	return exits(status, errors.New(strings.Join(lines, "\n")))
}

// mailStatus is the exit status for a refusal. Of several the greatest counts, and so 75, try
// again, before those that are for good.
func mailStatus(r admin.Refused) int {
	switch {
	case r.Code < 500:
		return exTempFail
	case r.Status[1] == 1 && (r.Status[2] == 2 || r.Status[2] == 10):
		return exNoHost
	case r.Status[1] == 1:
		return exNoUser
	case r.Rcpt == "":
		return exData
	}
	return exUnavailable
}

// dropMail leaves the letter where the daemon will find it.
func (a *app) dropMail(m mailArgs, dir string, o drop.Order, letter []byte) error {
	err := drop.Write(dir, o, bytes.NewReader(letter))
	if errors.Is(err, fs.ErrNotExist) {
		if err = drop.MakeDir(dir); err == nil {
			err = drop.Write(dir, o, bytes.NewReader(letter))
		}
	}
	switch {
	case err == nil:
		return a.mailTaken(m, "dropped", "relayd will take it from "+dir, "")
	case errors.Is(err, fs.ErrPermission):
		return exits(exNoPerm, hint(err, "only root and the user of relayd may send so; drop_dir in the configuration lets others, see the README"))
	}
	return exits(exTempFail, err)
}

// mailTaken says nothing unless asked to, as programs expect.
func (a *app) mailTaken(m mailArgs, verb, text, id string) error {
	if a.json {
		return a.printJSON(struct {
			Verb string `json:"verb"`
			ID   string `json:"id,omitempty"`
		}{verb, id})
	}
	if m.verbose {
		_, err := fmt.Fprintln(a.Stdout, text)
		return err
	}
	return nil
}
