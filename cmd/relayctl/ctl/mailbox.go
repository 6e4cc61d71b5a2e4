package ctl

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// Bounds of the mailbox.
const (
	maxFormLine = 1 << 20 // octets of a line somebody types
	maxShown    = 1 << 20 // octets of a letter shown
	loginTries  = 3
)

// mailboxFlags answer what the mailbox would otherwise ask.
type mailboxFlags struct {
	transport
	smtp, pop3, user string
}

func (f *mailboxFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.smtp, "smtp", "", "send through the server `HOST:PORT`")
	flags.StringVar(&f.pop3, "pop3", "", "read from the server `HOST:PORT`")
	flags.StringVar(&f.user, "user", "", "log in as `NAME`")
	f.transport.register(flags)
}

// mailbox is a person's mailbox with its menu (S1.4). Every answer of the person is a short session
// of its own: no lock is held and nothing can be lost while somebody thinks, and what was deleted
// is gone at once.
type mailbox struct {
	app        *app
	in         *bufio.Reader
	smtp, pop3 endpoint
	user       string
	password   string

	letters []digest // as listed last
	shown   *digest  // the letter read last, which d alone deletes
}

// mailbox opens one and stays in it until the person leaves.
func (a *app) mailbox(ctx context.Context, f mailboxFlags) error {
	m := &mailbox{app: a, in: bufio.NewReader(a.Stdin), user: f.user}
	err := m.enter(ctx, f)
	if err == nil {
		err = m.menu(ctx)
	}
	if errors.Is(err, errNobody) {
		fmt.Fprintln(a.Stderr)
		return nil
	}
	return err
}

// enter finds out where the servers are and who this is.
func (m *mailbox) enter(ctx context.Context, f mailboxFlags) (err error) {
	if m.smtp, err = m.askServer(ctx, "SMTP", f.smtp, f.transport, "submission", "submissions", "smtp"); err != nil {
		return err
	}
	if m.pop3, err = m.askServer(ctx, "POP3", f.pop3, f.transport, "pop3", "pop3s"); err != nil {
		return err
	}
	for m.user == "" {
		if m.user, err = m.ask(ctx, "user name: "); err != nil {
			return err
		}
	}
	if err := checkLogin(m.user); err != nil {
		return err
	}
	return m.logIn(ctx)
}

// askServer asks only for what neither flags nor a configuration tell.
func (m *mailbox) askServer(ctx context.Context, name, flag string, t transport, services ...string) (endpoint, error) {
	e, err := m.app.endpoint(ctx, flag, t, services...)
	for err != nil {
		if flag != "" {
			m.app.complain(err)
		}
		if flag, err = m.ask(ctx, name+" server (HOST:PORT): "); err != nil {
			return endpoint{}, err
		}
		if flag == "" {
			err = errSilent
			continue
		}
		e, err = m.app.endpoint(ctx, flag, t)
	}
	return e, nil
}

// logIn tries the password; a person may mistype it.
func (m *mailbox) logIn(ctx context.Context) error {
	for try := 1; ; try++ {
		var err error
		if m.password, err = m.app.loginPassword(ctx, false, m.user); err != nil {
			return err
		}
		err = m.fetch(ctx)
		_, refused := errors.AsType[popError](err)
		if err == nil || !refused || try == loginTries || m.app.Getenv(passwordVariable) != "" {
			return err
		}
		m.app.complain(err)
	}
}

const menuText = `
1  manage mail
2  send mail
3  quit
`

func (m *mailbox) menu(ctx context.Context) error {
	for {
		m.say("%s", menuText)
		choice, err := m.ask(ctx, "> ")
		if err != nil {
			return err
		}
		switch choice {
		case "1":
			err = m.manage(ctx)
		case "2":
			err = m.write(ctx)
		case "3", "q", "quit":
			return nil
		case "":
		default:
			m.say("type 1, 2 or 3\n")
		}
		if err := m.forgive(ctx, err); err != nil {
			return err
		}
	}
}

// forgive prints an error and goes on, unless there is nobody to go on with.
func (m *mailbox) forgive(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil || errors.Is(err, errNobody) || errors.Is(err, errUnsent) {
		return err
	}
	m.app.complain(err)
	return nil
}

const manageHelp = "a number reads that letter, d deletes it, d NUMBER deletes another, l lists again, -1 goes back"

// manage lists the letters, shows and deletes them (S1.5).
func (m *mailbox) manage(ctx context.Context) error {
	if err := m.fetch(ctx); err != nil {
		return err
	}
	m.list()
	m.say("%s\n", manageHelp)
	for {
		line, err := m.ask(ctx, "letter: ")
		if err != nil {
			return err
		}
		if line == "-1" {
			return nil
		}
		if err := m.forgive(ctx, m.obey(ctx, line)); err != nil {
			return err
		}
	}
}

func (m *mailbox) obey(ctx context.Context, line string) error {
	verb, rest, _ := strings.Cut(line, " ")
	switch verb {
	case "":
		return nil
	case "l":
		err := m.fetch(ctx)
		if err == nil {
			m.list()
		}
		return err
	case "d":
		return m.remove(ctx, strings.TrimSpace(rest))
	}
	d, err := m.find(line)
	if err != nil {
		return err
	}
	return m.show(ctx, d)
}

// find is the letter with that number in the list.
func (m *mailbox) find(text string) (*digest, error) {
	n, err := letterNumber(text)
	if err != nil {
		return nil, errors.New(manageHelp)
	}
	i := slices.IndexFunc(m.letters, func(d digest) bool { return d.Number == n })
	if i < 0 {
		return nil, fmt.Errorf("there is no letter %d", n)
	}
	return &m.letters[i], nil
}

// fetch reads the list anew.
func (m *mailbox) fetch(ctx context.Context) error {
	m.letters, m.shown = nil, nil
	return m.session(ctx, func(p *popSession) error {
		return p.digests(func(d digest) error {
			m.letters = append(m.letters, d)
			return nil
		})
	})
}

func (m *mailbox) session(ctx context.Context, do func(*popSession) error) error {
	return m.pop3.maildrop(ctx, m.user, m.password, do)
}

func (m *mailbox) list() {
	t, octets := m.app.table(digestColumns...), int64(0)
	for _, d := range m.letters {
		t.add(d.cells())
		octets += d.Size
	}
	t.flush()
	fmt.Fprintln(m.app.Stdout, mailTotal(len(m.letters), octets))
}

// errEnough ends a session in which everything worth reading has been read.
var errEnough = errors.New("the rest of the letter is not wanted")

// show prints a letter the way people read it: who, when, what about, and the text.
func (m *mailbox) show(ctx context.Context, d *digest) error {
	var text []byte
	err := m.session(ctx, func(p *popSession) error {
		n, err := p.locate(d)
		if err != nil {
			return err
		}
		r, err := p.retrieve(n)
		if err != nil {
			return err
		}
		if text, err = io.ReadAll(io.LimitReader(r, maxShown)); err == nil && len(text) == maxShown {
			err = errEnough
		}
		return err
	})
	cutOff := errors.Is(err, errEnough)
	if err != nil && !cutOff {
		return fmt.Errorf("letter %d: %w", d.Number, err)
	}
	m.shown = d
	return m.display(text, cutOff)
}

func (m *mailbox) display(text []byte, cutOff bool) error {
	h, _ := parseHeader(text)
	for _, name := range []string{"From", "To", "Cc", "Date", "Subject"} {
		if h.has(name) {
			fmt.Fprintf(m.app.Stdout, "%s: %s\n", name, printable(decoded(h.get(name))))
		}
	}
	// Behind an empty first line there is no header.
	_, body, _ := bytes.Cut(append([]byte("\r\n"), text...), []byte("\r\n\r\n"))
	fmt.Fprintln(m.app.Stdout)
	if err := copyPrintable(m.app.Stdout, bytes.NewReader(body)); err != nil {
		return err
	}
	if cutOff {
		m.say("[the letter is longer; relayctl mail get prints it whole]\n")
	}
	return nil
}

// locate finds a listed letter in this session, in which it may have another number: letters before
// it may have gone.
func (p *popSession) locate(d *digest) (int, error) {
	if d.UID == "" {
		return d.Number, nil
	}
	uids, err := p.uids()
	if err != nil {
		return 0, err
	}
	for n, uid := range uids {
		if uid == d.UID {
			return n, nil
		}
	}
	return 0, errors.New("another program has removed it")
}

// remove deletes the letter with that number, or the one read last.
func (m *mailbox) remove(ctx context.Context, number string) error {
	d := m.shown
	if number != "" {
		var err error
		if d, err = m.find(number); err != nil {
			return err
		}
	}
	if d == nil {
		return errors.New("which one? d NUMBER deletes a letter")
	}
	err := m.session(ctx, func(p *popSession) error {
		n, err := p.locate(d)
		if err != nil {
			return err
		}
		return p.remove(n)
	})
	if err != nil {
		return fmt.Errorf("letter %d: %w", d.Number, err)
	}
	// d points into the list that is about to change.
	gone := d.Number
	m.letters = slices.DeleteFunc(m.letters, func(x digest) bool { return x.Number == gone })
	m.say("deleted letter %d\n", gone)
	m.shown = nil
	return nil
}

func (m *mailbox) say(format string, args ...any) {
	fmt.Fprint(m.app.Stderr, printableLines(fmt.Sprintf(format, args...)))
}

// ask prints a question and reads a line, trimmed.
func (m *mailbox) ask(ctx context.Context, question string) (string, error) {
	m.say("%s", question)
	line, err := m.line(ctx)
	return strings.TrimSpace(line), err
}

// errNobody says that the input has ended. A bare io.EOF could be a server's as well.
var errNobody = errors.New("nobody answers any more")

// line reads a line without its end.
func (m *mailbox) line(ctx context.Context) (string, error) {
	return interruptible(ctx, func() (string, error) {
		var line []byte
		for {
			piece, err := m.in.ReadSlice('\n')
			line = append(line, piece...)
			switch {
			case len(line) > maxFormLine:
				return "", fmt.Errorf("a line is longer than %s", size(maxFormLine))
			case err == bufio.ErrBufferFull:
				continue
			case err == io.EOF && len(line) > 0:
				err = nil
			case err == io.EOF:
				err = errNobody
			}
			return strings.TrimRight(string(line), "\r\n"), err
		}
	}, func() { fmt.Fprintln(m.app.Stderr) })
}
