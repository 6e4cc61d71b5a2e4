// Package ctl is relayctl: one file for each verb, over relay/admin's client while relayd runs
// and over the files themselves where that is safe without it. It stands apart from its main so
// that tests of both programs can run it.
//
// Its voice: results on stdout, the rest on stderr, lower case, no full stop, a hint where one
// helps. Exit status 0 done, 1 failed, 2 wrong usage. What strangers wrote (addresses, replies,
// letters) never reaches a terminal with its control characters.
package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"relayd/config"
	"relayd/relay/admin"
)

// The exit statuses.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// Env is the world relayctl runs in.
type Env struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Getenv         func(string) string
	Now            func() time.Time

	// Which of the three are terminals, and how many columns stdout has; 0: do not cut lines.
	TerminalIn, TerminalOut, TerminalErr bool
	Width                                int
	// ReadPassword reads a line from the terminal without echo.
	ReadPassword func(ctx context.Context) (string, error)
}

// Main runs relayctl in the process's own world; the result is its exit status.
func Main(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return Run(ctx, args, SystemEnv())
}

// Run runs relayctl in env.
func Run(ctx context.Context, args []string, env Env) int {
	app := &app{Env: env}
	root := app.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	app.complain(err)
	if e, ok := errors.AsType[*exitError](err); ok {
		return e.status
	}
	if _, ok := errors.AsType[*usageError](err); ok {
		return exitUsage
	}
	return exitFailed
}

// app is one run: the world, and what the global flags said.
type app struct {
	Env
	configFile string
	dataFlag   string
	json       bool
}

// usageError is a command line that cannot be meant: status 2.
type usageError struct{ text, hint string }

func (e *usageError) Error() string { return e.text }

func usage(hint, format string, args ...any) error {
	return &usageError{text: fmt.Sprintf(format, args...), hint: hint}
}

// hinted is an error with a piece of advice.
type hinted struct {
	error
	hint string
}

func (e hinted) Unwrap() error { return e.error }

func hint(err error, format string, args ...any) error {
	return hinted{err, fmt.Sprintf(format, args...)}
}

// errSilent fails without a word: everything has been said.
var errSilent = errors.New("failed")

// complain prints an error the way relayctl speaks.
func (a *app) complain(err error) {
	if errors.Is(err, errSilent) {
		return
	}
	if bad, ok := errors.AsType[*config.Invalid](err); ok {
		a.complaints(bad.Complaints)
		return
	}
	fmt.Fprintln(a.Stderr, "relayctl: "+printableLines(err.Error()))
	if h := hintOf(err); h != "" && !strings.Contains(err.Error(), "hint: ") {
		fmt.Fprintln(a.Stderr, "hint: "+printableLines(h))
	}
}

func hintOf(err error) string {
	if e, ok := errors.AsType[*usageError](err); ok {
		return e.hint
	}
	if e, ok := errors.AsType[hinted](err); ok {
		return e.hint
	}
	if e, ok := errors.AsType[*admin.Error](err); ok && e.Hint != "" {
		return e.Hint
	}
	switch {
	case errors.Is(err, admin.ErrNotRunning):
		return "start it with systemctl start relayd; queue ls, show, check, repair and user work without it"
	case errors.Is(err, os.ErrPermission):
		return "run it as root or as the user of relayd: sudo relayctl ..."
	}
	return ""
}

// complaints prints what is wrong or doubtful in a configuration.
func (a *app) complaints(list []config.Complaint) {
	for _, c := range list {
		fmt.Fprintln(a.Stderr, printableLines(c.String()))
	}
}

// note tells the operator something beside the result.
func (a *app) note(format string, args ...any) {
	fmt.Fprintln(a.Stderr, "relayctl: "+printable(fmt.Sprintf(format, args...)))
}
