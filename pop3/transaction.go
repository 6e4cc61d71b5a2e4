package pop3

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	"relayd/relay"
)

// fact sends a reply that programs read: it is the same in every language.
func (s *session) fact(format string, args ...any) {
	var line [maxReply]byte
	s.write(append(fmt.Appendf(append(line[:0], "+OK "...), format, args...), '\r', '\n'))
}

// stat implements STAT (RFC 1939 §5).
func (s *session) stat(_ context.Context, _ string) {
	s.fact("%d %d", s.kept.count, s.kept.octets)
}

// listing implements LIST [n].
func (s *session) listing(_ context.Context, arg string) {
	s.scan(arg, func(b []byte, m Message) []byte { return strconv.AppendInt(b, m.Size, 10) })
}

// uidl implements UIDL [n] (RFC 1939 §7).
func (s *session) uidl(_ context.Context, arg string) {
	s.scan(arg, func(b []byte, m Message) []byte { return append(b, m.UID...) })
}

// scan lists one message or all that are not deleted.
func (s *session) scan(arg string, column func([]byte, Message) []byte) {
	var line [128]byte
	if arg != "" {
		if n, ok := s.number(arg); ok {
			s.fact("%s", column(fmt.Appendf(line[:0], "%d ", n), s.list[n-1]))
		}
		return
	}
	s.ok(textList, s.kept.count, s.kept.octets)
	for i, m := range s.list {
		if s.deleted[i] {
			continue
		}
		b := append(strconv.AppendInt(line[:0], int64(i+1), 10), ' ')
		s.write(append(column(b, m), '\r', '\n'))
	}
	s.writeString(".\r\n")
}

// number reads a message number and answers, if need be, why there is no such message.
func (s *session) number(arg string) (n int, ok bool) {
	v, ok := digits(arg)
	switch {
	case !ok:
		s.wrong(none, textNeedNumber)
	case v < 1 || v > int64(len(s.list)):
		s.err(none, textNoMessage, len(s.list))
		return 0, false
	case s.deleted[v-1]:
		s.err(none, textDeletedAlready, v)
		return 0, false
	}
	return int(v), ok
}

// digits reads a number without signs or other liberties. Whatever is too large for us is larger
// than all we have.
func digits(s string) (int64, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		v = 1<<63 - 1
	}
	return v, true
}

// retr implements RETR.
func (s *session) retr(_ context.Context, arg string) {
	n, ok := s.number(arg)
	if !ok {
		return
	}
	d := dots{wire: s.wire}
	if !s.send(n, &d, textOctets, s.list[n-1].Size) {
		return
	}
	s.fetched = append(s.fetched, fetch{n, s.written(), d.octets})
	if m := s.list[n-1]; d.octets != m.Size {
		s.log.Warn("a message has another size than its name says", "id", m.ID, "uid", m.UID, "size", d.octets, "want", m.Size)
	}
}

// report logs the messages whose last octet has been written by now. What still lies in our buffer
// when the link drops has not been fetched.
func (s *session) report() {
	for ; s.reported < len(s.fetched) && s.fetched[s.reported].end <= s.octets.out; s.reported++ {
		f := s.fetched[s.reported]
		m := s.list[f.n-1]
		if s.drop != nil {
			s.drop.Seen(f.n)
		}
		s.log.LogAttrs(context.Background(), slog.LevelInfo, "fetched",
			slog.String("id", string(m.ID)), slog.String("user", s.mailbox.String()), slog.String("uid", m.UID), slog.Int64("size", f.size))
	}
}

// topLines implements TOP n lines (RFC 1939 §7).
func (s *session) topLines(_ context.Context, arg string) {
	first, second, _ := strings.Cut(arg, " ")
	lines, ok := digits(second)
	if !ok {
		s.wrong(none, textTopSyntax)
		return
	}
	if n, ok := s.number(first); ok {
		s.send(n, &dots{wire: s.wire, top: true, lines: lines}, textTop)
	}
}

// send sends a message and its closing dot, and says whether all of it went out. Where it cannot
// be read to its end the connection is cut: every other end would look like a whole message.
func (s *session) send(n int, d *dots, text phrase, args ...any) bool {
	r, err := s.drop.Open(n)
	switch {
	case errors.Is(err, relay.ErrGone):
		s.err(temporary, textGone, n)
		return false
	case err != nil:
		s.log.Error("cannot read a message", "user", s.mailbox, "id", s.list[n-1].ID, "err", err)
		s.trouble(err, textUnreadable, textUnreadableEver, n)
		return false
	}
	defer r.Close()
	s.ok(text, args...)
	if err := d.copy(r); err != nil {
		if s.wire.err == nil {
			s.log.Error("cannot read a message to its end", "user", s.mailbox, "id", s.list[n-1].ID, "err", err)
		}
		s.over = true
		return false
	}
	s.writeString(".\r\n")
	return s.wire.err == nil
}

// dele implements DELE: the message is marked, and removed at QUIT.
func (s *session) dele(_ context.Context, arg string) {
	n, ok := s.number(arg)
	if !ok {
		return
	}
	s.deleted[n-1] = true
	s.kept.count--
	s.kept.octets -= s.list[n-1].Size
	s.ok(textDeleted, n)
}

func (s *session) noop(_ context.Context, _ string) { s.ok(textNoop) }

// rset implements RSET and says how many messages it brought back.
func (s *session) rset(_ context.Context, _ string) {
	restored := len(s.list) - s.kept.count
	clear(s.deleted)
	s.count()
	s.ok(textRestored, restored, s.kept.count, s.kept.octets)
}
