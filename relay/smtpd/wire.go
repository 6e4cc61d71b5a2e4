package smtpd

import (
	"bytes"
	"errors"
	"net"
	"sync"
	"time"
)

// wire is the buffered two-way line to a client, above TLS where there is TLS. It belongs to the
// session's goroutine; only stop and kill may be called from elsewhere.
//
// Replies pile up until we have to wait for the client, so a batch of pipelined commands gets
// one write. An idle wire holds a few hundred octets; larger buffers are lent by a pool.
type wire struct {
	raw   net.Conn // the socket; closing it ends everything
	conn  net.Conn // raw, or TLS above it
	small [512]byte
	big   *[]byte // lent by the pool, or nil
	in    []byte  // small or *big
	r, w  int     // in[r:w] has been read and not yet used
	out   []byte  // replies not yet written
	deaf  error   // why nothing more can be written

	writeTimeout time.Duration

	once     sync.Once // kill
	mu       sync.Mutex
	stopping bool // the server shuts down: do not wait for another command
	idle     bool // nothing is under way that a stop would spoil
}

var (
	errStopping = errors.New("the server is shutting down")
	errLineLong = errors.New("the line is too long")
	errEndless  = errors.New("the line does not end")
	errTLS      = errors.New("a TLS hello where a command belongs")
)

// bigBuffer holds the longest AUTH line, and makes a read of a letter worth its system call.
const bigBuffer = 16 << 10

// notALine is a limit for what begins like no command at all.
const notALine = -1

// maxHeldReplies is how much of replies may pile up in one batch before they are written.
const maxHeldReplies = 4 << 10

var bigBuffers = sync.Pool{New: func() any { b := make([]byte, bigBuffer); return &b }}

func (w *wire) init(c net.Conn, writeTimeout time.Duration) {
	w.raw, w.conn, w.writeTimeout = c, c, writeTimeout
	w.in = w.small[:]
}

// window is what has been read and not yet used. It is valid until the next fill.
func (w *wire) window() []byte { return w.in[w.r:w.w] }

// use marks the first n octets of the window as used.
func (w *wire) use(n int) { w.r += n }

// fill waits for more octets until the deadline, after writing what we owe. idle says that a
// server that stops may end the wait.
func (w *wire) fill(until time.Time, idle bool) error {
	if err := w.flush(); err != nil {
		return err
	}
	w.makeRoom()
	if err := w.arm(until, idle); err != nil {
		return err
	}
	for range 100 { // a Reader may return 0, nil, but not for ever
		n, err := w.conn.Read(w.in[w.w:])
		w.w += n
		if n > 0 {
			return nil
		}
		if err != nil {
			return w.stopped(err)
		}
	}
	return errors.New("smtpd: reads return nothing")
}

func (w *wire) arm(until time.Time, idle bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.idle = idle; idle && w.stopping {
		return errStopping
	}
	return w.conn.SetReadDeadline(until)
}

// stopped tells the deadline that stop set from one that ran out.
func (w *wire) stopped(err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.idle && w.stopping {
		return errStopping
	}
	return err
}

func (w *wire) isStopping() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stopping
}

// stop lets the session end as soon as nothing is under way.
func (w *wire) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopping = true
	if w.idle {
		w.raw.SetReadDeadline(time.Unix(1, 0))
	}
}

// kill ends the session now. The socket is closed once: a listener that counts its connections
// would count down twice.
func (w *wire) kill() { w.once.Do(func() { w.raw.Close() }) }

// makeRoom makes in[w:] non-empty; what is in the window is kept. No caller lets the window fill
// the big buffer.
func (w *wire) makeRoom() {
	if w.w == len(w.small) && w.big == nil {
		// The last read took all there was room for: a batch is coming in.
		w.grow()
	}
	if w.r == w.w {
		w.r, w.w = 0, 0
	}
	if w.w < len(w.in) {
		return
	}
	if w.r > 0 {
		w.w = copy(w.in, w.in[w.r:w.w])
		w.r = 0
	}
}

// grow changes to the big buffer, for a letter or for a batch that fills the small one.
func (w *wire) grow() {
	if w.big != nil {
		return
	}
	w.big = bigBuffers.Get().(*[]byte)
	w.w = copy(*w.big, w.window())
	w.r, w.in = 0, *w.big
}

// shrink gives the big buffer back once the rest fits into the small one.
func (w *wire) shrink() {
	if w.big == nil || w.w-w.r > len(w.small) {
		return
	}
	w.w = copy(w.small[:], w.window())
	w.r, w.in = 0, w.small[:]
	bigBuffers.Put(w.big)
	w.big = nil
}

// line returns the next line with its LF, waiting for it until the deadline. The slice is valid
// until the next fill. A line longer than its limit is used up and answered with errLineLong; one
// that never ends is errEndless.
func (w *wire) line(limit func(start []byte) int, until time.Time, idle bool) ([]byte, error) {
	searched := 0
	for {
		win := w.window()
		most := limit(win)
		if most == notALine {
			return nil, errTLS
		}
		if i := bytes.IndexByte(win[searched:], '\n'); i >= 0 {
			line := win[:searched+i+1]
			w.use(len(line))
			if len(line) > most {
				return nil, errLineLong
			}
			return line, nil
		}
		if len(win) >= most {
			return nil, w.swallowLine(until, idle)
		}
		searched = len(win)
		if searched == 0 && w.r == w.w && w.w < len(w.in) {
			w.shrink()
		}
		if err := w.fill(until, idle); err != nil {
			return nil, err
		}
	}
}

func (w *wire) swallowLine(until time.Time, idle bool) error {
	for swallowed := 0; swallowed < maxSwallowedLine; {
		win := w.window()
		if i := bytes.IndexByte(win, '\n'); i >= 0 {
			w.use(i + 1)
			return errLineLong
		}
		swallowed += len(win)
		w.use(len(win))
		if err := w.fill(until, idle); err != nil {
			return err
		}
	}
	return errEndless
}

// flush writes the replies we owe. A client that did not take one in time is not given another.
func (w *wire) flush() error {
	if w.deaf != nil || len(w.out) == 0 {
		return w.deaf
	}
	w.conn.SetWriteDeadline(time.Now().Add(w.writeTimeout))
	_, err := w.conn.Write(w.out)
	w.deaf = err
	if cap(w.out) > 1<<10 {
		w.out = nil
	}
	w.out = w.out[:0]
	return err
}

// release gives back what the pool lent; the wire is done.
func (w *wire) release() {
	if w.big != nil {
		bigBuffers.Put(w.big)
		w.big = nil
	}
	w.in, w.out, w.r, w.w = nil, nil, 0, 0
}
