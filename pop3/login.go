package pop3

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"relayd/relay"
)

// Where somebody may not log in, no password is looked at, so that a client that is set up wrongly
// finds out before it has sent one.
const needTLS = "[AUTH] TLS is required to log in: use STLS, or the POP3S port"

// user implements USER (RFC 1939 §7). Every name is accepted, so that nobody learns who exists.
func (s *session) user(_ context.Context, arg string) {
	switch {
	case !s.mayLogin():
		s.wrong(needTLS)
	case arg == "" || strings.ContainsFunc(arg, func(r rune) bool { return r < ' ' || r == 0x7f }):
		s.wrong("USER needs a name")
	default:
		s.name = arg
		s.ok("now the password")
	}
}

// pass implements PASS: the password is the whole rest of the line, spaces and all.
func (s *session) pass(ctx context.Context, arg string) {
	name := s.name
	s.name = ""
	switch {
	case !s.mayLogin():
		s.wrong(needTLS)
	case name == "":
		s.wrong("USER first")
	default:
		s.login(ctx, name, arg)
	}
}

// auth implements AUTH PLAIN (RFC 5034, RFC 4616), with or without an initial response. AUTH alone
// lists the mechanisms, which is older than the RFC and still asked by some clients.
func (s *session) auth(ctx context.Context, arg string) {
	mechanism, initial, found := strings.Cut(arg, " ")
	switch {
	case !s.mayLogin():
		s.wrong(needTLS)
	case arg == "":
		s.writeString("+OK\r\nPLAIN\r\n.\r\n")
	case !strings.EqualFold(mechanism, "PLAIN"):
		s.wrong("unknown mechanism, PLAIN is the one")
	case found:
		s.plain(ctx, initial)
	default:
		s.writeString("+ \r\n")
		line, _, err := s.readLine(maxAnswer, s.deadline())
		switch {
		case errors.Is(err, errLongLine):
			s.wrong("the line is too long")
		case err != nil:
			s.over = true
		case string(line) == "*":
			s.err("cancelled")
		default:
			s.plain(ctx, string(line))
		}
	}
}

func (s *session) plain(ctx context.Context, response string) {
	raw, err := base64.StdEncoding.Strict().DecodeString(response)
	parts := bytes.Split(raw, []byte{0})
	if err != nil || len(parts) != 3 {
		s.wrong("that is not a PLAIN response in base 64")
		return
	}
	authzid, name, password := string(parts[0]), string(parts[1]), string(parts[2])
	if authzid != "" && authzid != name {
		// Nobody may read as somebody else; the answer is that of a wrong password.
		s.denied(ctx, name)
		return
	}
	s.login(ctx, name, password)
}

// login checks the password and opens the maildrop.
func (s *session) login(ctx context.Context, name, password string) {
	mailbox, err := s.server.cfg.Auth.Authenticate(ctx, name, password, s.client.Addr())
	switch {
	case errors.Is(err, relay.ErrDenied):
		s.denied(ctx, name)
		return
	case err != nil:
		s.log.Error("cannot check a password", "err", err)
		s.err("[SYS/TEMP] the password cannot be checked now, try again later")
		return
	}
	drop, err := s.server.cfg.Open(ctx, mailbox)
	switch {
	case errors.Is(err, relay.ErrInUse):
		s.log.Info("the maildrop is in use", "user", mailbox)
		s.err("[IN-USE] the mailbox is open in another session, try again later")
		return
	case err != nil:
		s.log.Error("cannot open the maildrop", "user", mailbox, "err", err)
		s.err("[SYS/TEMP] the mailbox cannot be opened now, try again later")
		return
	}
	s.drop, s.mailbox, s.list, s.errors = drop, mailbox, drop.Messages(), 0
	s.deleted = make([]bool, len(s.list))
	s.count()
	s.server.count.logins.Add(1)
	s.log.Info("logged in", "user", mailbox, "messages", s.kept.count, "size", s.kept.octets)
	s.ok(fmt.Sprintf("%s has %d messages (%d octets)", mailbox, s.kept.count, s.kept.octets))
}

// denied answers a wrong name and a wrong password alike, after a while (RFC 3206 §3).
func (s *session) denied(ctx context.Context, name string) {
	s.server.count.loginErrors.Add(1)
	s.log.Warn("refused", "user", printable(name), "err", relay.ErrDenied)
	// What the client was told so far must not wait with this answer.
	if s.flush() != nil || !sleep(ctx, s.server.cfg.Limits.FailedDelay) {
		s.over = true
		return
	}
	if s.tries++; s.tries >= s.server.cfg.Limits.FailedTries {
		s.over = true
	}
	s.err("[AUTH] the name or the password is wrong")
}

// printable makes what a stranger typed fit for a log: a password in the wrong place is cut short
// and control characters are masked.
func printable(name string) string {
	name = strings.ToValidUTF8(name, "?")
	if len(name) > 128 {
		name = strings.ToValidUTF8(name[:128], "")
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, name)
}

// count computes what STAT says: messages not marked as deleted, and their octets.
func (s *session) count() {
	s.kept.count, s.kept.octets = 0, 0
	for i, m := range s.list {
		if !s.deleted[i] {
			s.kept.count++
			s.kept.octets += m.Size
		}
	}
}
