package relaytest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const usage = `usage: relaytest dns -listen ADDR -zone FILE
       relaytest mx -listen ADDR [-script FILE] [-dir DIR]
both take -ready FILE and -until-eof`

// reread is how often a helper command looks whether its zone or script has changed.
const reread = 50 * time.Millisecond

// Main runs a server as a helper command of the scripts: `dns` or `mx`. Once it listens it prints
// its address to standard output, and into the file of -ready; it ends at SIGINT or SIGTERM, with
// -until-eof also when standard input ends. A zone or script file that changes is taken over
// within a moment. The result is the exit status.
func Main(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return Run(ctx, args, os.Stdin, os.Stdout, os.Stderr)
}

// Run is Main until ctx ends.
func Run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprintln(stderr, usage)
		return 2
	}
	h := helper{stdin: stdin, stdout: stdout, stderr: stderr}
	flags := flag.NewFlagSet("relaytest "+args[0], flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&h.listen, "listen", "127.0.0.1:0", "address and port")
	flags.StringVar(&h.ready, "ready", "", "file to write the address into")
	flags.BoolVar(&h.untilEOF, "until-eof", false, "end when standard input ends")
	var run func(context.Context) error
	switch args[0] {
	case "dns":
		flags.StringVar(&h.file, "zone", "", "zone file")
		run = h.dns
	case "mx":
		flags.StringVar(&h.file, "script", "", "script file")
		flags.StringVar(&h.dir, "dir", "", "where to keep letters")
		run = h.mx
	default:
		fmt.Fprintln(stderr, usage)
		return 2
	}
	if err := flags.Parse(args[1:]); err != nil {
		return 2
	}
	if err := run(ctx); err != nil {
		fmt.Fprintln(stderr, "relaytest:", err)
		return 1
	}
	return 0
}

// helper is one run of a helper command.
type helper struct {
	stdin          io.Reader
	stdout, stderr io.Writer

	listen, file, dir, ready string
	untilEOF                 bool
}

func (h *helper) dns(ctx context.Context) error {
	text, err := h.read()
	if err != nil {
		return err
	}
	s, err := NewDNS(h.listen, text)
	if err != nil {
		return err
	}
	defer s.Close()
	return h.serve(ctx, s.Addr().String(), text, s.SetZone)
}

func (h *helper) mx(ctx context.Context) error {
	text, err := h.read()
	if err != nil {
		return err
	}
	script, err := ParseMXScript(text)
	if err != nil {
		return err
	}
	s, err := NewMX(h.listen, script)
	if err != nil {
		return err
	}
	defer s.Close()
	if h.dir != "" {
		if err := s.KeepIn(h.dir); err != nil {
			return err
		}
	}
	return h.serve(ctx, s.Addr().String(), text, func(text string) error {
		script, err := ParseMXScript(text)
		if err == nil {
			s.SetScript(script)
		}
		return err
	})
}

func (h *helper) read() (string, error) {
	if h.file == "" {
		return "", nil
	}
	b, err := os.ReadFile(h.file)
	return string(b), err
}

// serve says where we listen and hands changes of the file, which said last when we began, over
// until the end.
func (h *helper) serve(ctx context.Context, addr, last string, changed func(text string) error) error {
	if _, err := fmt.Fprintln(h.stdout, addr); err != nil {
		return err
	}
	if h.ready != "" {
		err := os.WriteFile(h.ready+".tmp", []byte(addr), 0o600)
		if err := errors.Join(err, os.Rename(h.ready+".tmp", h.ready)); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if h.untilEOF {
		// Nothing waits for this reader: it ends with standard input, and with it the command.
		go func() {
			_, _ = io.Copy(io.Discard, h.stdin)
			cancel()
		}()
	}
	ticker := time.NewTicker(reread)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		// A file that is being rewritten may be empty or cut short for a moment; what it says then
		// is complained of, and the next look mends it.
		text, err := h.read()
		if err != nil || text == last {
			continue
		}
		last = text
		if err := changed(text); err != nil {
			fmt.Fprintln(h.stderr, "relaytest:", err)
		}
	}
}
