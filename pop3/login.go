package pop3

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"time"
	"unicode/utf8"

	"relayd/relay"
)

// user implements USER (RFC 1939 §7). Every name is accepted, so that nobody learns who exists.
// Where somebody may not log in, no password is looked at, so that a client that is set up wrongly
// finds out before it has sent one.
func (s *session) user(_ context.Context, arg string) {
	switch {
	case !s.mayLogin():
		s.wrong(badLogin, textNeedTLS)
	case arg == "" || !utf8.ValidString(arg) || strings.ContainsFunc(arg, func(r rune) bool { return r < ' ' || r == 0x7f }):
		s.wrong(none, textUserSyntax)
	default:
		s.name = arg
		s.ok(textPassword)
	}
}

// pass implements PASS: the password is the whole rest of the line, spaces and all.
func (s *session) pass(ctx context.Context, arg string) {
	name := s.name
	s.name = ""
	switch {
	case !s.mayLogin():
		s.wrong(badLogin, textNeedTLS)
	case name == "":
		s.wrong(none, textUserFirst)
	default:
		s.login(ctx, name, arg)
	}
}

// greeting offers APOP where somebody has a secret for it, by a challenge that never comes again,
// and only where a login is allowed: its digest falls to who listens and tries words.
func (s *session) greeting() phrase {
	greeting := textReady
	if auth, ok := s.server.cfg.Auth.(relay.APOPAuthenticator); ok && s.mayLogin() && auth.HasAPOP() {
		s.challenge = fmt.Sprintf("<%s.%d@%s>", strings.ToLower(rand.Text()), time.Now().Unix(), s.server.cfg.Hostname)
		for l := range greeting {
			greeting[l] += " " + s.challenge
		}
	}
	return greeting
}

// apop implements APOP (RFC 1939 §7). The secret is not the password, of which we keep a hash.
func (s *session) apop(ctx context.Context, arg string) {
	auth, ok := s.server.cfg.Auth.(relay.APOPAuthenticator)
	if !ok || s.challenge == "" {
		s.wrong(none, textNoAPOP)
		return
	}
	// The digest has no space; who knows of the name.
	i := strings.LastIndexByte(arg, ' ')
	if i <= 0 || len(arg)-i-1 != 32 {
		s.wrong(none, textAPOPSyntax)
		return
	}
	mailbox, err := auth.APOP(ctx, arg[:i], s.challenge, arg[i+1:], s.client.Addr())
	s.enter(ctx, arg[:i], mailbox, err)
}

// login checks the password and opens the maildrop.
func (s *session) login(ctx context.Context, name, password string) {
	mailbox, err := s.server.cfg.Auth.Authenticate(ctx, name, password, s.client.Addr())
	s.enter(ctx, name, mailbox, err)
}

// enter opens the maildrop of a login, or says what err made of it.
func (s *session) enter(ctx context.Context, name string, mailbox relay.Address, err error) {
	switch {
	case errors.Is(err, relay.ErrLoginSyntax):
		s.wrong(none, textLoginSyntax)
		return
	case errors.Is(err, relay.ErrDenied):
		s.denied(ctx, name)
		return
	case err != nil:
		level := slog.LevelError
		if _, meant := errors.AsType[*relay.Failure](err); meant {
			level = slog.LevelInfo // a client that has guessed too often is no trouble of ours
		}
		s.log.Log(ctx, level, "cannot check a password", "user", printable(name), "err", err)
		s.err(temporary, textCannotCheck)
		return
	}
	if left := s.server.cfg.Delay.left(mailbox); left > 0 {
		s.log.Info("too soon after the last login", "user", mailbox, "dur", left)
		s.wrong(loginDelay, textTooSoon, seconds(left))
		return
	}
	drop, err := s.server.cfg.Open(ctx, mailbox, s.client.Addr())
	switch {
	case errors.Is(err, relay.ErrInUse):
		s.log.Info("the maildrop is in use", "user", mailbox)
		s.err(inUse, textInUse)
		return
	case err != nil:
		level := slog.LevelError
		if _, meant := errors.AsType[*relay.Failure](err); meant {
			level = slog.LevelInfo // the operator let POP3 rest
		}
		s.log.Log(ctx, level, "cannot open the maildrop", "user", mailbox, "err", err)
		s.trouble(err, textCannotOpen, textCannotOpenEver)
		return
	}
	s.server.cfg.Delay.note(mailbox)
	s.drop, s.mailbox, s.list, s.errors = drop, mailbox, drop.Messages(), 0
	s.deleted = make([]bool, len(s.list))
	s.count()
	s.log.Info("logged in", "user", mailbox, "messages", s.kept.count, "size", s.kept.octets)
	s.ok(textMailbox, mailbox, s.kept.count, s.kept.octets)
}

// trouble answers that something of ours is wrong. Wrong permissions stay until somebody mends
// them; everything else may pass.
func (s *session) trouble(err error, passing, lasting phrase, args ...any) {
	if errors.Is(err, fs.ErrPermission) {
		s.err(permanent, lasting, args...)
	} else {
		s.err(temporary, passing, args...)
	}
}

// denied answers a wrong name and a wrong password alike, after a while (RFC 3206 §3).
func (s *session) denied(ctx context.Context, name string) {
	s.log.Warn("refused", "user", printable(name), "err", relay.ErrDenied)
	// What the client was told so far must not wait with this answer.
	if s.flush() != nil || !relay.Sleep(ctx, s.server.cfg.Limits.FailedDelay) {
		s.over = true
		return
	}
	if s.tries++; s.tries >= s.server.cfg.Limits.FailedTries {
		s.over = true
	}
	s.err(badLogin, textDenied)
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
