package pop3

import (
	"bytes"
	"errors"
	"io"
	"sync"
)

// headerSize is what TOP reads first: most headers fit, and most of the letter is not wanted.
const headerSize = 4 << 10

var readBuffers = sync.Pool{New: func() any { b := make([]byte, chunk); return &b }}

// dots sends a message as the body of a multi-line reply (RFC 1939 §3): lines end in CRLF, a line
// that begins with a dot gets another, and a last line without an end gets one.
type dots struct {
	wire   *wire
	line   int   // octets of the current line so far
	cr     bool  // the last of them is a CR
	octets int64 // sent, without the added dots

	top   bool  // stop after the header and this many lines of the body:
	lines int64 // left to send
	body  bool  // the blank line has been passed
}

// copy sends r until its end or, for TOP, until enough lines have gone. The closing dot is left to
// the caller, because a message that could not be read whole must not look complete.
func (d *dots) copy(r io.Reader) error {
	buf := readBuffers.Get().(*[]byte)
	defer readBuffers.Put(buf)
	most := len(*buf)
	if d.top {
		most = headerSize
	}
	for {
		n, err := r.Read((*buf)[:most])
		most = len(*buf)
		d.put((*buf)[:n])
		switch {
		case d.wire.err != nil:
			return d.wire.err
		case d.enough():
			return nil
		case errors.Is(err, io.EOF):
			if d.line > 0 {
				d.end(nil, "\r\n")
			}
			return nil
		case err != nil:
			return err
		}
	}
}

func (d *dots) enough() bool { return d.top && d.body && d.lines == 0 }

// put sends p, which may begin and end anywhere in a line.
func (d *dots) put(p []byte) {
	for len(p) > 0 && !d.enough() && d.wire.err == nil {
		if p = d.wholeLines(p); len(p) == 0 {
			return
		}
		if d.line == 0 && p[0] == '.' {
			d.wire.writeString(".")
		}
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			d.wire.write(p)
			d.octets += int64(len(p))
			d.line, d.cr = d.line+len(p), p[len(p)-1] == '\r'
			return
		}
		if i > 0 {
			d.line, d.cr = d.line+i, p[i-1] == '\r'
		}
		if d.cr {
			d.end(p[:i], "\n")
		} else {
			d.end(p[:i], "\r\n")
		}
		p = p[i+1:]
	}
}

// wholeLines sends what it can of p without looking at more than it must: whole lines of a body,
// as far as the buffer has room. It returns the rest.
func (d *dots) wholeLines(p []byte) []byte {
	if d.line > 0 || !d.body || d.top {
		return p
	}
	const most = 3 // octets that are added to a line
	out := d.wire.room(readSize)
	b, from := *out, len(*out)
	added := 0
	for {
		i := bytes.IndexByte(p, '\n')
		if i < 0 || cap(b)-len(b) < i+most {
			break
		}
		if p[0] == '.' {
			b = append(b, '.')
			added++
		}
		if i > 0 && p[i-1] == '\r' {
			b = append(b, p[:i+1]...)
		} else {
			b = append(append(b, p[:i]...), '\r', '\n')
		}
		p = p[i+1:]
	}
	d.octets += int64(len(b) - from - added)
	*out = b
	return p
}

// end sends the rest of a line and its end.
func (d *dots) end(rest []byte, eol string) {
	d.octets += int64(len(rest) + len(eol))
	d.wire.write(rest)
	b := d.wire.room(len(eol))
	*b = append(*b, eol...)
	switch {
	case d.body:
		d.lines--
	case d.line == 0 || d.line == 1 && d.cr:
		d.body = true
	}
	d.line, d.cr = 0, false
}
