package ctl

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"relayd/config"
	"relayd/relay"
	"relayd/relay/users"
)

const userLong = `user keeps the users file in the data directory: who has a mailbox and may log in.

It edits the file itself, whether relayd runs or not; a running relayd sees the change at once.`

func (a *app) user() *cobra.Command {
	cmd := a.group("user", "Add and remove users, change passwords", userLong)
	cmd.AddCommand(a.userAdd(), a.userPasswd(), a.userRm(), a.userLs(), a.userRelease(), a.userPurge())
	return cmd
}

// openUsers opens the users file. cfg is nil where --data-dir was given instead.
func (a *app) openUsers(create bool) (store *users.Store, cfg *config.Config, err error) {
	dir := ""
	if a.dataFlag != "" {
		dir, err = filepath.Abs(a.dataFlag)
	} else if cfg, err = a.load(); err == nil {
		dir = cfg.DataDir
	}
	if err != nil {
		return nil, nil, err
	}
	if create {
		if err := a.makeDataDir(dir); err != nil {
			return nil, nil, err
		}
	}
	store, err = users.Open(filepath.Join(dir, "users"))
	return store, cfg, err
}

// openUser opens the users file for a verb about one user, which text names.
func (a *app) openUser(text string, create bool) (store *users.Store, cfg *config.Config, user relay.Address, err error) {
	if store, cfg, err = a.openUsers(create); err == nil {
		user, err = address(text, cfg)
	}
	return store, cfg, users.Normalize(user), err
}

// makeDataDir lets users be added before relayd has run for the first time.
func (a *app) makeDataDir(dir string) error {
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	a.note("made the data directory %s", dir)
	if os.Geteuid() == 0 {
		a.note("it belongs to root: if relayd runs as another user, give it to that user")
	}
	return nil
}

// address reads an argument that names a user.
func address(text string, cfg *config.Config) (relay.Address, error) {
	a, err := relay.ParseAddress(text, true)
	if err == nil {
		return a, nil
	}
	advice := "such as ann@office.example"
	if cfg != nil && cfg.DefaultDomain != "" && !strings.Contains(text, "@") {
		advice = fmt.Sprintf("did you mean %s@%s?", text, cfg.DefaultDomain)
	}
	return relay.Address{}, usage(advice, "%q: %v", text, err)
}

// maxPasswordLine bounds what is read of a password; relay/users has the real limit.
const maxPasswordLine = 4096

// password gets a new password from where the flags and the terminal allow.
func (a *app) password(ctx context.Context, fromStdin bool, user relay.Address) (string, error) {
	switch {
	case fromStdin:
		return passwordLine(a.Stdin)
	case !a.interactive():
		return "", usage("--password-stdin reads it from standard input",
			"no password: there is no terminal to ask for it")
	}
	first, err := a.prompt(ctx, fmt.Sprintf("password for %s: ", printable(user.String())))
	if err != nil {
		return "", err
	}
	again, err := a.prompt(ctx, "once more: ")
	if err != nil {
		return "", err
	}
	if first != again {
		return "", errors.New("the two passwords differ, nothing was changed")
	}
	return first, nil
}

func (a *app) prompt(ctx context.Context, question string) (string, error) {
	fmt.Fprint(a.Stderr, question)
	text, err := a.ReadPassword(ctx)
	fmt.Fprintln(a.Stderr) // the Enter was not echoed
	return text, err
}

// passwordLine reads the first line, without its end.
func passwordLine(r io.Reader) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(r, maxPasswordLine)).ReadString('\n')
	if err != nil && err != io.EOF {
		return "", fmt.Errorf("reading the password: %w", err)
	}
	return strings.TrimRight(line, "\r\n"), nil
}

// userFailed adds advice to the errors of relay/users.
func userFailed(err error, user relay.Address) error {
	switch {
	case errors.Is(err, users.ErrExists):
		return hint(fmt.Errorf("%s is a user already", user), "relayctl user passwd %s changes the password", user)
	case errors.Is(err, users.ErrUnknown):
		return hint(fmt.Errorf("there is no user %s", user), "relayctl user ls shows them")
	}
	return err
}

// userDone reports a change.
func (a *app) userDone(verb, done string, user relay.Address) error {
	if a.json {
		return a.printJSON(struct {
			Verb string `json:"verb"`
			User string `json:"user"`
		}{verb, user.String()})
	}
	_, err := fmt.Fprintln(a.Stdout, printable(done))
	return err
}
