package filter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// Kind is how a program is spoken to.
type Kind string

// The kinds.
const (
	Rspamd Kind = "rspamd"
	Clamd  Kind = "clamd"
	Milter Kind = "milter"
)

// Config is one program. Two that are equal are the same program to Set.
type Config struct {
	Kind    Kind
	Name    string        // in the log, the metrics and status; unique
	Address string        // "host:port", or "unix:/path"
	Timeout time.Duration // for all of one letter; positive
	Defer   bool          // while it is down letters are refused with 451; otherwise they pass
	MaxSize int64         // octets; a larger letter passes without being shown
	Ours    bool          // the letters of our own people too
}

// program speaks one protocol over a fresh connection, whose deadline is set.
type program interface {
	check(conn net.Conn, l *Letter) (Verdict, error)
	ping(conn net.Conn) error
}

func newProgram(c Config, hostname string) program {
	switch c.Kind {
	case Rspamd:
		return &rspamd{hostname: hostname, greylist: newGreylist()}
	case Clamd:
		return clamd{hostname: hostname}
	}
	return milterProgram{hostname: hostname}
}

// errLimit is what a program says that is alive and will not look at a letter of this size.
var errLimit = errors.New("the letter is larger than it takes")

// dialer connects to a program until a deadline; done ends the connection.
type dialer func(ctx context.Context, address string, deadline time.Time) (conn net.Conn, done func(), err error)

// dial connects, with one deadline for everything until close; ctx may end it before.
func dial(ctx context.Context, address string, deadline time.Time) (conn net.Conn, done func(), err error) {
	network := "tcp"
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, address = "unix", path
	}
	conn, err = (&net.Dialer{Deadline: deadline, Timeout: dialTimeout}).DialContext(ctx, network, address)
	if err != nil {
		return nil, nil, &unreachable{err}
	}
	conn.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	return conn, func() { stop(); conn.Close() }, nil
}

// unreachable is the error of a program that cannot even be connected to.
type unreachable struct{ err error }

func (u *unreachable) Error() string { return u.err.Error() }
func (u *unreachable) Unwrap() error { return u.err }

// bounded ends a connection on which more is said than there can be reason for.
type bounded struct {
	net.Conn
	left int
}

var errTooMuch = errors.New("its answer is too long")

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooMuch
	}
	n, err := b.Conn.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// maxAnswer is how much any program may say about one letter, in octets.
const maxAnswer = 4 << 20

// errDivider says where a body begins.
var errDivider = errors.New("filter: the letter is shorter than was said")

// text skips the empty line between header and body.
func (l *Letter) text() (io.Reader, error) {
	body := l.Body()
	if len(l.Header) == 0 {
		return body, nil
	}
	var line [2]byte
	n, err := io.ReadFull(body, line[:])
	if n == 0 {
		return strings.NewReader(""), nil
	}
	if err != nil || string(line[:]) != "\r\n" {
		return nil, fmt.Errorf("%w: no empty line behind the header", errDivider)
	}
	return body, nil
}
