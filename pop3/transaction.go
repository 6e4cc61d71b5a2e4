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

// stat implements STAT (RFC 1939 §5).
func (s *session) stat(_ context.Context, arg string) {
	if arg != "" {
		s.wrong("STAT takes no argument")
		return
	}
	s.ok(strconv.Itoa(s.kept.count) + " " + strconv.FormatInt(s.kept.octets, 10))
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
			s.ok(string(column(fmt.Appendf(line[:0], "%d ", n), s.list[n-1])))
		}
		return
	}
	s.ok(fmt.Sprintf("%d messages (%d octets)", s.kept.count, s.kept.octets))
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
		s.wrong("a message number is needed")
	case v < 1 || v > int64(len(s.list)):
		s.err(fmt.Sprintf("no such message, there are %d", len(s.list)))
		return 0, false
	case s.deleted[v-1]:
		s.err(fmt.Sprintf("message %d is already deleted", v))
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
	if !s.send(n, &d, strconv.FormatInt(s.list[n-1].Size, 10)+" octets") {
		return
	}
	s.fetched = append(s.fetched, fetch{n, s.written()})
	s.server.count.fetched.Add(1)
	m := s.list[n-1]
	s.log.LogAttrs(context.Background(), slog.LevelInfo, "fetched",
		slog.String("id", string(m.ID)), slog.String("user", s.mailbox.String()), slog.String("uid", m.UID), slog.Int64("size", d.octets))
	if d.octets != m.Size {
		s.log.Warn("a message has another size than its name says", "id", m.ID, "uid", m.UID, "size", d.octets, "want", m.Size)
	}
}

// topLines implements TOP n lines (RFC 1939 §7).
func (s *session) topLines(_ context.Context, arg string) {
	first, second, _ := strings.Cut(arg, " ")
	lines, ok := digits(second)
	if !ok {
		s.wrong("TOP needs a message number and a number of lines")
		return
	}
	if n, ok := s.number(first); ok {
		s.send(n, &dots{wire: s.wire, top: true, lines: lines}, "the header and the first lines follow")
	}
}

// send sends a message and its closing dot, and says whether all of it went out. Where it cannot
// be read to its end the connection is cut: every other end would look like a whole message.
func (s *session) send(n int, d *dots, text string) bool {
	r, err := s.drop.Open(n)
	switch {
	case errors.Is(err, relay.ErrGone):
		s.err(fmt.Sprintf("[SYS/TEMP] message %d has been removed by another program", n))
		return false
	case err != nil:
		s.log.Error("cannot read a message", "user", s.mailbox, "id", s.list[n-1].ID, "err", err)
		s.err(fmt.Sprintf("[SYS/TEMP] message %d cannot be read now", n))
		return false
	}
	defer r.Close()
	s.ok(text)
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
	s.ok(fmt.Sprintf("message %d deleted", n))
}

func (s *session) noop(_ context.Context, arg string) {
	if arg != "" {
		s.wrong("NOOP takes no argument")
		return
	}
	s.ok("still here")
}

// rset implements RSET and says how many messages it brought back.
func (s *session) rset(_ context.Context, arg string) {
	if arg != "" {
		s.wrong("RSET takes no argument")
		return
	}
	restored := len(s.list) - s.kept.count
	clear(s.deleted)
	s.count()
	s.ok(fmt.Sprintf("%d messages restored, there are %d (%d octets)", restored, s.kept.count, s.kept.octets))
}
