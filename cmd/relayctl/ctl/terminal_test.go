package ctl_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"relayd/cmd/relayctl/ctl"
	"relayd/relay/users"
)

// terminal is an Env in which somebody sits at a terminal and types.
type terminal struct {
	ctl.Env
	out, err  bytes.Buffer
	passwords []string
}

func newTerminal(typed string) *terminal {
	t := &terminal{}
	t.Env = ctl.Env{Stdin: strings.NewReader(typed), Stdout: &t.out, Stderr: &t.err,
		Getenv: func(string) string { return "" }, Now: time.Now,
		TerminalIn: true, TerminalOut: true, TerminalErr: true, Width: 200,
		ReadPassword: func(context.Context) (string, error) {
			if len(t.passwords) == 0 {
				return "", io.EOF
			}
			p := t.passwords[0]
			t.passwords = t.passwords[1:]
			return p, nil
		}}
	return t
}

func (term *terminal) run(t *testing.T, want int, args ...string) {
	t.Helper()
	if got := ctl.Run(t.Context(), args, term.Env); got != want {
		t.Errorf("relayctl %q: status %d, want %d\n%s%s", args, got, want, &term.out, &term.err)
	}
}

// serving is a stage with a daemon and three letters.
func serving(t *testing.T) *stage {
	t.Helper()
	s := &stage{dir: t.TempDir()}
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Error(err)
		}
	})
	for _, to := range []string{"bob@one.example", "carol@one.example", "dan@two.example"} {
		if _, err := s.letter("ann@office.example", []string{to}, time.Hour, "Subject: x\n\ny\n"); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestConfirmation(t *testing.T) {
	t.Parallel()
	s := serving(t)
	term := newTerminal("n\n")
	term.run(t, 1, "--data-dir", s.dir, "queue", "drop", "--domain", "one.example")
	if want := "drop 2 messages, 2 recipients, 34 B, oldest 1 h? [y/N] relayctl: nothing was changed\n"; term.err.String() != want {
		t.Errorf("asked %q, want %q", &term.err, want)
	}
	newTerminal("").run(t, 1, "--data-dir", s.dir, "queue", "drop", "--all")
	newTerminal("\n").run(t, 1, "--data-dir", s.dir, "queue", "hold", "--all")
	if n := s.queue.Stats().Items; n != 3 || s.queue.Stats().Held != 0 {
		t.Fatalf("%+v, although nobody said yes", s.queue.Stats())
	}
	term = newTerminal("Yes\n")
	term.run(t, 0, "--data-dir", s.dir, "queue", "drop", "--domain", "one.example")
	if term.out.String() != "dropped 2 items\n" || s.queue.Stats().Items != 1 {
		t.Errorf("%q, %+v", term.out.String(), s.queue.Stats())
	}
	// --yes and verbs that undo themselves by ID do not ask.
	newTerminal("").run(t, 0, "--data-dir", s.dir, "queue", "hold", "--all", "--yes")
	newTerminal("").run(t, 0, "--data-dir", s.dir, "queue", "retry", "0")
}

// hesitating is a terminal whose user says yes when one more letter to one.example has come.
func hesitating(s *stage) *terminal {
	term := newTerminal("")
	term.Stdin = readFunc(func(p []byte) (int, error) {
		if _, err := s.letter("ann@office.example", []string{"late@one.example"}, 0, "Subject: late\n\n"); err != nil {
			return 0, err
		}
		return copy(p, "y\n"), nil
	})
	return term
}

// What is dropped is what was shown: a letter that came meanwhile was not confirmed.
func TestConfirmationIsForWhatWasShown(t *testing.T) {
	t.Parallel()
	s := serving(t)
	term := hesitating(s)
	term.run(t, 0, "--data-dir", s.dir, "queue", "drop", "--domain", "one.example")
	if term.out.String() != "dropped 2 items\n" || s.queue.Stats().Items != 2 {
		t.Errorf("%q, %+v", term.out.String(), s.queue.Stats())
	}
}

// Edit changes no letter that came while it asked.
func TestEditIsForWhatWasShown(t *testing.T) {
	t.Parallel()
	s := serving(t)
	term := hesitating(s)
	term.run(t, 0, "--data-dir", s.dir, "queue", "edit", "--domain", "one.example", "--set-sender", "eve@office.example")
	if out := term.out.String(); !strings.HasPrefix(out, "edited 2 items\n") || strings.Count(out, "\n") != 3 {
		t.Errorf("said %q", out)
	}
	if said := term.err.String(); said != "edit 2 items? [y/N] " {
		t.Errorf("asked %q", said)
	}
	term = newTerminal("")
	term.run(t, 0, "--data-dir", s.dir, "queue", "ls", "--from", "eve@office.example")
	if out := term.out.String(); strings.Contains(out, "late@") || !strings.Contains(out, "bob@one.example") || !strings.Contains(out, "carol@one.example") {
		t.Errorf("eve has sent\n%s", out)
	}
	newTerminal("n\n").run(t, 1, "--data-dir", s.dir, "queue", "edit", "--all", "--set-sender", "x@office.example")
}

// A long edit shows how far it is, and a recipient who is added gets each letter once all the same.
func TestEditShowsABar(t *testing.T) {
	t.Parallel()
	s := serving(t)
	var to []string
	for i := range 510 {
		to = append(to, fmt.Sprintf("bob@d%d.example", i))
	}
	if _, err := s.letter("ann@office.example", to, 0, "Subject: many\n\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.letter("ann@office.example", []string{"last@z.example"}, 0, "Subject: last\n\n"); err != nil {
		t.Fatal(err)
	}
	term := newTerminal("")
	term.run(t, 0, "--data-dir", s.dir, "queue", "edit", "--all", "--yes", "--add-recipient", "fred@one.example")
	if said := term.err.String(); !strings.Contains(said, "(513/514") {
		t.Errorf("showed %q", said)
	}
	if out := term.out.String(); !strings.HasPrefix(out, "edited 5 items\n") {
		t.Errorf("said %q", out)
	}
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// Ctrl-C while a question waits ends relayctl and changes nothing.
func TestInterruptedQuestion(t *testing.T) {
	t.Parallel()
	s := serving(t)
	ctx, cancel := context.WithCancel(t.Context())
	pr, pw := io.Pipe()
	defer pw.Close()
	term := newTerminal("")
	term.Stdin = readFunc(func(p []byte) (int, error) {
		cancel()
		return pr.Read(p)
	})
	if got := ctl.Run(ctx, []string{"--data-dir", s.dir, "queue", "drop", "--all"}, term.Env); got != 1 {
		t.Errorf("status %d", got)
	}
	if !strings.Contains(term.err.String(), "relayctl: interrupted") || s.queue.Stats().Items != 3 {
		t.Errorf("%q, %+v", &term.err, s.queue.Stats())
	}
}

func TestPasswordPrompt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	term := newTerminal("")
	term.passwords = []string{"first", "second"}
	term.run(t, 1, "--data-dir", dir, "user", "add", "ann@office.example")
	if !strings.Contains(term.err.String(), "the two passwords differ") {
		t.Errorf("said %q", &term.err)
	}
	if _, err := os.Stat(filepath.Join(dir, "users")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a users file came to be: %v", err)
	}
	term.passwords = []string{"same", "same"}
	term.run(t, 0, "--data-dir", dir, "user", "add", "ann@office.example")
	store, err := users.Open(filepath.Join(dir, "users"))
	if err != nil {
		t.Fatal(err)
	}
	if list, _ := store.List(); len(list) != 1 {
		t.Errorf("users %v", list)
	}
	if got := term.err.String() + term.out.String(); strings.Contains(got, "same") || !strings.Contains(got, "password for ann@office.example: ") {
		t.Errorf("said %q", got)
	}
}

func TestColour(t *testing.T) {
	t.Parallel()
	s := serving(t)
	for _, tc := range []struct {
		name   string
		set    func(*terminal)
		colour bool
	}{
		{"terminal", func(*terminal) {}, true},
		{"NO_COLOR", func(e *terminal) { e.Getenv = getenv("NO_COLOR", "1") }, false},
		{"dumb terminal", func(e *terminal) { e.Getenv = getenv("TERM", "dumb") }, false},
		{"pipe", func(e *terminal) { e.TerminalOut = false }, false},
	} {
		term := newTerminal("")
		tc.set(term)
		term.run(t, 0, "--data-dir", s.dir, "queue", "ls")
		if got := strings.Contains(term.out.String(), "\x1b["); got != tc.colour {
			t.Errorf("%s: colour %v, want %v", tc.name, got, tc.colour)
		}
	}
}

func getenv(name, value string) func(string) string {
	return func(n string) string {
		if n == name {
			return value
		}
		return ""
	}
}

// A narrow terminal gets lines that fit.
func TestWidth(t *testing.T) {
	t.Parallel()
	s := serving(t)
	term := newTerminal("")
	term.Width, term.Getenv = 100, getenv("NO_COLOR", "1")
	term.run(t, 0, "--data-dir", s.dir, "queue", "ls")
	for line := range strings.Lines(term.out.String()) {
		if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > 100 {
			t.Errorf("%d columns: %q", n, line)
		}
	}
}
