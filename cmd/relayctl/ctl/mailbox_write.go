package ctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"relayd/relay"
	"relayd/relay/users"
)

// errUnsent says that the input ended in the middle of the form.
var errUnsent = errors.New("the input ended before the message did; nothing was sent")

// write is the form of S1.6: every field is checked when it is given, and nothing is sent before the
// last one is.
func (m *mailbox) write(ctx context.Context) error {
	letter, err := m.form(ctx)
	if errors.Is(err, errNobody) {
		return errUnsent
	}
	if err != nil {
		return err
	}
	if letter == nil {
		m.say("nothing was sent\n")
		return nil
	}
	reply, err := m.smtp.submit(ctx, *letter, login{user: m.user, password: m.password, optional: true})
	if err != nil {
		return err
	}
	return m.app.sent(reply)
}

// form fills in a letter; nil means that the person has thought better of it.
func (m *mailbox) form(ctx context.Context) (*outgoing, error) {
	var letter outgoing
	err := m.until(ctx, fmt.Sprintf("From [%s]: ", m.user), func(line string) (err error) {
		letter.from, err = m.sender(line)
		return err
	})
	if err != nil {
		return nil, err
	}
	given := false
	err = m.until(ctx, "To (empty: do not send): ", func(line string) (err error) {
		if given = line != ""; given {
			letter.rcpts, err = mailAddresses(line)
		}
		return err
	})
	if err != nil || !given {
		return nil, err
	}
	subject := ""
	err = m.until(ctx, "Subject: ", func(line string) error {
		subject = line
		_, err := foldSubject(line)
		return err
	})
	if err != nil {
		return nil, err
	}
	body, err := m.message(ctx)
	if err != nil {
		return nil, err
	}
	text, err := compose(subject, body)
	if err == nil {
		letter.text, err = complete(text, letter.from, letter.rcpts, m.app.Now())
	}
	return &letter, err
}

// until asks again until the answer will do.
func (m *mailbox) until(ctx context.Context, question string, check func(line string) error) error {
	for {
		line, err := m.ask(ctx, question)
		if err != nil {
			return err
		}
		if err := check(line); err == nil {
			return nil
		} else {
			m.app.complain(err)
		}
	}
}

// sender reads the From of a letter, which is whoever is logged in. Where the name to log in with
// is no address, the server has to know.
func (m *mailbox) sender(line string) (relay.Address, error) {
	me, err := relay.ParseAddress(m.user, true)
	if line == "" {
		line = m.user
	}
	from, wrong := mailAddress(line)
	if wrong == nil && err == nil && users.Normalize(from) != users.Normalize(me) {
		wrong = fmt.Errorf("you are %s, and letters come from you", m.user)
	}
	return from, wrong
}

// message reads the text up to the line that is a dot.
func (m *mailbox) message(ctx context.Context) ([]byte, error) {
	m.say("Enter your message (end with a single dot '.')\n")
	var b bytes.Buffer
	for {
		line, err := m.line(ctx)
		if err != nil {
			return nil, err
		}
		if strings.TrimRight(line, " \t") == "." {
			return b.Bytes(), nil
		}
		if b.Len()+len(line) > maxLetter {
			return nil, fmt.Errorf("the letter is larger than %s", size(maxLetter))
		}
		b.WriteString(line + "\r\n")
	}
}
