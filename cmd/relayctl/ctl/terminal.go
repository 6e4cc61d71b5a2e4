package ctl

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// SystemEnv is the world of this process.
func SystemEnv() Env {
	env := Env{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Now: time.Now,
		TerminalIn:   term.IsTerminal(int(os.Stdin.Fd())),
		TerminalOut:  term.IsTerminal(int(os.Stdout.Fd())),
		TerminalErr:  term.IsTerminal(int(os.Stderr.Fd())),
		ReadPassword: readPassword,
	}
	if env.TerminalOut {
		// Without a width lines are not cut.
		env.Width, _, _ = term.GetSize(int(os.Stdout.Fd()))
	}
	return env
}

// readPassword reads without echo. Ctrl-C does not end the read, so the echo is put back here.
func readPassword(ctx context.Context) (string, error) {
	fd := int(os.Stdin.Fd())
	state, err := term.GetState(fd)
	if err != nil {
		return "", err
	}
	return interruptible(ctx, func() (string, error) {
		b, err := term.ReadPassword(fd)
		return string(b), err
	}, func() { term.Restore(fd, state) })
}

// interruptible waits for read or ctx. A read of a terminal cannot be taken back: its goroutine
// ends with the process, which is about to.
func interruptible(ctx context.Context, read func() (string, error), undo func()) (string, error) {
	type answer struct {
		text string
		err  error
	}
	got := make(chan answer, 1)
	go func() {
		text, err := read()
		got <- answer{text, err}
	}()
	select {
	case a := <-got:
		return a.text, a.err
	case <-ctx.Done():
		undo()
		return "", ctx.Err()
	}
}

// confirm asks a question on the terminal; only y and yes mean yes, and anything else is an error.
func (a *app) confirm(ctx context.Context, question string) error {
	fmt.Fprintf(a.Stderr, "%s [y/N] ", question)
	text, err := interruptible(ctx, func() (string, error) {
		return bufio.NewReader(io.LimitReader(a.Stdin, 1024)).ReadString('\n')
	}, func() { fmt.Fprintln(a.Stderr) })
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	switch strings.ToLower(strings.TrimSpace(text)) {
	case "y", "yes":
		return nil
	}
	return errors.New("nothing was changed")
}

// interactive says whether there is somebody to ask.
func (a *app) interactive() bool { return a.TerminalIn && a.TerminalErr }

// A style is an SGR parameter (ECMA-48 §8.3.117).
type style string

const (
	plain  style = ""
	bold   style = "1"
	red    style = "31"
	yellow style = "33"
)

// paint gives text a style on a terminal whose owner did not ask for none (no-color.org).
func (a *app) paint(s style, text string) string {
	if s == plain || !a.TerminalOut || a.Getenv("NO_COLOR") != "" || a.Getenv("TERM") == "dumb" {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}

// progress shows a bar on stderr while something long runs; on anything but a terminal it is
// silent.
func (a *app) progress(total int, what string) *progressbar.ProgressBar {
	return progressbar.NewOptions(total, progressbar.OptionSetWriter(a.Stderr),
		progressbar.OptionSetVisibility(a.TerminalErr), progressbar.OptionSetDescription(what),
		progressbar.OptionShowCount(), progressbar.OptionClearOnFinish())
}
