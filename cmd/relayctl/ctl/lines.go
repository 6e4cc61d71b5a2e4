package ctl

import (
	"io"
	"time"
)

// lines collects the lines of a long list: a write for each was a third of the list's time. The
// first goes out alone, at once, and nothing waits for long while others follow.
type lines struct {
	out  io.Writer
	buf  []byte
	sent time.Time
}

const (
	linesSize = 32 << 10
	linesWait = 50 * time.Millisecond
)

// Write takes whole lines.
func (l *lines) Write(p []byte) (int, error) {
	l.buf = append(l.buf, p...)
	if len(l.buf) < linesSize && time.Since(l.sent) < linesWait {
		return len(p), nil
	}
	return len(p), l.flush()
}

// flush writes what is held back.
func (l *lines) flush() error {
	if len(l.buf) == 0 {
		return nil
	}
	_, err := l.out.Write(l.buf)
	l.buf, l.sent = l.buf[:0], time.Now()
	return err
}
