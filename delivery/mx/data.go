package mx

import (
	"bufio"
	"bytes"
	"sync"
)

// dataWriter turns a letter into what DATA sends: a dot before every line that starts with one
// (RFC 5321 §4.5.2) and CRLF.CRLF at the end, whether or not the letter ends its last line. The
// letter comes with CRLF line ends; should a bare CR or LF have got that far it leaves as CRLF,
// because a bare one on the wire is how letters are smuggled past the next server. Close writes
// the end; the letter is not over before it.
type dataWriter struct {
	w      *bufio.Writer
	inLine bool // the last octet written belongs to a line that has not ended
	cr     bool // a CR has been taken in and not yet written
}

// dataBuffer is what sending a letter needs beside the letter. A small letter goes out in one
// write, so that its dot travels with it.
type dataBuffer struct {
	out   *bufio.Writer
	block [blockSize]byte
}

const blockSize = 32 << 10

var dataBuffers = sync.Pool{New: func() any { return &dataBuffer{out: bufio.NewWriterSize(nil, blockSize)} }}

// release gives the buffer back without what was not flushed.
func (b *dataBuffer) release() {
	b.out.Reset(nil)
	dataBuffers.Put(b)
}

func (d *dataWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if !d.inLine && !d.cr {
			plain := plainLines(p)
			if _, err := d.w.Write(p[:plain]); err != nil {
				return 0, err
			}
			if p = p[plain:]; len(p) == 0 {
				break
			}
		}
		if d.cr {
			if p[0] == '\n' {
				p = p[1:]
			}
			if err := d.endLine(); err != nil {
				return 0, err
			}
			continue
		}
		line := p[:lineLen(p)]
		if err := d.text(line); err != nil {
			return 0, err
		}
		if p = p[len(line):]; len(p) == 0 {
			break
		}
		d.cr = p[0] == '\r'
		if !d.cr {
			if err := d.endLine(); err != nil {
				return 0, err
			}
		}
		p = p[1:]
	}
	return n, nil
}

// Close writes CRLF.CRLF, without the first CRLF where the letter has just written one, and
// flushes. It does not close what is underneath.
func (d *dataWriter) Close() error {
	if d.cr || d.inLine {
		if err := d.endLine(); err != nil {
			return err
		}
	}
	if _, err := d.w.WriteString(".\r\n"); err != nil {
		return err
	}
	return d.w.Flush()
}

// text writes a piece of a line, without its end.
func (d *dataWriter) text(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if !d.inLine && p[0] == '.' {
		if err := d.w.WriteByte('.'); err != nil {
			return err
		}
	}
	d.inLine = true
	_, err := d.w.Write(p)
	return err
}

func (d *dataWriter) endLine() error {
	d.inLine, d.cr = false, false
	_, err := d.w.WriteString("\r\n")
	return err
}

// plainLines is the length of the whole lines at the beginning of p that go out as they are: nearly
// all of a letter.
func plainLines(p []byte) (n int) {
	for n < len(p) && p[n] != '.' {
		lf := bytes.IndexByte(p[n:], '\n')
		if lf < 1 || bytes.IndexByte(p[n:n+lf], '\r') != lf-1 {
			break
		}
		n += lf + 1
	}
	return n
}

// lineLen is the number of octets before the first CR or LF.
func lineLen(p []byte) int {
	if i := bytes.IndexAny(p, "\r\n"); i >= 0 {
		return i
	}
	return len(p)
}
