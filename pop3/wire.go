package pop3

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

const (
	maxLine    = 255     // octets of a command with its line end (RFC 2449 §4)
	maxAnswer  = 4096    // octets of a client's answer in AUTH, which carries a name and a password in base 64
	maxGarbage = 1 << 20 // octets of an over-long line that are skipped before we hang up
	readSize   = 2048
	chunk      = 64 << 10
)

var errLongLine = errors.New("the line is too long")

// writeBuffers holds buffers that only sessions with something to say have in hand, so that an
// idle session costs little.
var writeBuffers = sync.Pool{New: func() any { b := make([]byte, 0, chunk); return &b }}

// wire is the line reader and buffered writer of one connection. Replies are gathered while more
// commands are waiting and go out in one write before anything waits (RFC 2449 §6.6).
type wire struct {
	conn    net.Conn
	in      [readSize]byte
	r, w    int // in[r:w] has been read and not used
	out     *[]byte
	err     error // the first error of a write; nothing is written after it
	timeout time.Duration
	octets  struct{ in, out int64 }
	sent    func() // called when octets.out has grown; may not write

	lag time.Duration // how long to wait for a command once Shutdown has begun

	mu      sync.Mutex // guards what follows, conn and its deadlines against hurry and kill
	closing bool       // Shutdown has begun
	gone    bool       // the connection has been cut
}

// readLine returns the next line without its end, in memory that the next call overwrites, and
// whether it ended in CRLF rather than LF alone. The whole line must have come by deadline. After
// errLongLine the line has been skipped and the session can go on.
func (w *wire) readLine(limit int, deadline time.Time) (line []byte, crlf bool, err error) {
	if limit > readSize {
		return w.readLong(limit, deadline)
	}
	armed := false
	for {
		if i := bytes.IndexByte(w.in[w.r:w.w], '\n'); i >= 0 {
			line = w.in[w.r : w.r+i]
			w.r += i + 1
			if i+1 > limit {
				return nil, false, errLongLine
			}
			line, crlf = bytes.CutSuffix(line, []byte{'\r'})
			return line, crlf, nil
		}
		if w.w-w.r >= limit {
			return nil, false, w.skipLine(deadline, &armed)
		}
		if err := w.fill(deadline, &armed); err != nil {
			return nil, false, err
		}
	}
}

// readLong is readLine for the rare line that does not fit the buffer.
func (w *wire) readLong(limit int, deadline time.Time) (line []byte, crlf bool, err error) {
	armed := false
	for {
		have := w.in[w.r:w.w]
		i := bytes.IndexByte(have, '\n')
		if i >= 0 {
			have = have[:i+1]
		}
		if len(line)+len(have) > limit {
			return nil, false, w.skipLine(deadline, &armed)
		}
		line = append(line, have...)
		w.r += len(have)
		if i >= 0 {
			line, crlf = bytes.CutSuffix(line[:len(line)-1], []byte{'\r'})
			return line, crlf, nil
		}
		if err := w.fill(deadline, &armed); err != nil {
			return nil, false, err
		}
	}
}

// skipLine reads to the end of an over-long line.
func (w *wire) skipLine(deadline time.Time, armed *bool) error {
	for skipped := 0; skipped < maxGarbage; {
		if i := bytes.IndexByte(w.in[w.r:w.w], '\n'); i >= 0 {
			w.r += i + 1
			return errLongLine
		}
		skipped += w.w - w.r
		w.r, w.w = 0, 0
		if err := w.fill(deadline, armed); err != nil {
			return err
		}
	}
	return io.ErrShortBuffer
}

// fill reads more, after everything that was said has been sent: the client may be waiting for it.
func (w *wire) fill(deadline time.Time, armed *bool) error {
	if err := w.flush(); err != nil {
		return err
	}
	if !*armed {
		*armed = true
		w.arm(deadline)
	}
	if w.r > 0 {
		w.w = copy(w.in[:], w.in[w.r:w.w])
		w.r = 0
	}
	n, err := w.conn.Read(w.in[w.w:])
	w.w += n
	w.octets.in += int64(n)
	if n > 0 {
		return nil
	}
	return err
}

// pending says whether the client has sent more than what has been read as lines.
func (w *wire) pending() bool { return w.w > w.r }

// arm sets the deadline of a line. A session that begins to wait during a Shutdown does not get
// the full time.
func (w *wire) arm(deadline time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.gone {
		return // kill has set its own
	}
	if w.closing {
		if soon := time.Now().Add(w.lag); soon.Before(deadline) {
			deadline = soon
		}
	}
	w.conn.SetReadDeadline(deadline)
}

// hurry shortens the wait of a session that is idle when Shutdown begins.
func (w *wire) hurry() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closing = true
	if !w.gone {
		w.conn.SetReadDeadline(time.Now().Add(w.lag))
	}
}

// kill closes the connection under the session's feet.
func (w *wire) kill() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gone = true
	w.conn.SetDeadline(time.Unix(1, 0))
}

// replace puts TLS on top of the connection, and forgets everything read from below it.
func (w *wire) replace(conn net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conn, w.r, w.w = conn, 0, 0
}

// room returns the output buffer with at least n octets free (n is far below its size).
func (w *wire) room(n int) *[]byte {
	if w.out == nil {
		w.out = writeBuffers.Get().(*[]byte)
	}
	if cap(*w.out)-len(*w.out) < n {
		w.send()
	}
	return w.out
}

func (w *wire) writeString(s string) {
	for len(s) > 0 && w.err == nil {
		b := w.room(1)
		n := copy((*b)[len(*b):cap(*b)], s)
		*b, s = (*b)[:len(*b)+n], s[n:]
	}
}

func (w *wire) write(p []byte) {
	for len(p) > 0 && w.err == nil {
		b := w.room(1)
		n := copy((*b)[len(*b):cap(*b)], p)
		*b, p = (*b)[:len(*b)+n], p[n:]
	}
}

// send writes out the buffer. The client has the write timeout to take it: that is also the
// lowest rate at which we send, 64 KiB in a minute.
func (w *wire) send() {
	if w.err == nil && len(*w.out) > 0 {
		w.mu.Lock()
		if w.gone {
			w.err = os.ErrDeadlineExceeded
		} else {
			w.conn.SetWriteDeadline(time.Now().Add(w.timeout))
		}
		w.mu.Unlock()
	}
	if w.err == nil && len(*w.out) > 0 {
		var n int
		n, w.err = w.conn.Write(*w.out)
		w.octets.out += int64(n)
		w.sent()
	}
	*w.out = (*w.out)[:0]
}

// written is how many octets will have been sent when the buffer is.
func (w *wire) written() int64 {
	if w.out == nil {
		return w.octets.out
	}
	return w.octets.out + int64(len(*w.out))
}

// flush sends what is buffered and gives the buffer back.
func (w *wire) flush() error {
	if w.out != nil {
		w.send()
		writeBuffers.Put(w.out)
		w.out = nil
	}
	return w.err
}
