package drop

import "io"

// Text reads what a program wrote as mail carries it: every line ends with CR LF, where it had
// that or a bare CR or LF, and the last one too. A NUL becomes a question mark.
func Text(r io.Reader) io.Reader { return &text{r: r} }

type text struct {
	r    io.Reader
	raw  [4 << 10]byte
	in   []byte
	err  error
	cr   bool // the last octet read was a CR, whose line end has been given out
	lf   bool // an LF is owed
	open bool // the last line has not ended
}

// Read implements io.Reader.
func (t *text) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if t.lf {
			p[n], t.lf = '\n', false
			n++
			continue
		}
		if len(t.in) == 0 && !t.fill(n > 0) {
			break
		}
		if len(t.in) > 0 {
			if c, ok := t.next(); ok {
				p[n] = c
				n++
			}
		}
	}
	if n == 0 && len(p) > 0 {
		return 0, t.err
	}
	return n, nil
}

// fill reads on; false at the end, or where have says that something can be given out first.
func (t *text) fill(have bool) bool {
	if t.err == nil && !have {
		var n int
		n, t.err = t.r.Read(t.raw[:])
		t.in = t.raw[:n]
		return true
	}
	if t.err == io.EOF && t.open && !have {
		t.in = append(t.raw[:0], '\n')
		return true
	}
	return false
}

func (t *text) next() (c byte, ok bool) {
	c = t.in[0]
	t.in = t.in[1:]
	after := t.cr
	t.cr = c == '\r'
	switch {
	case c == '\n' && after:
		return 0, false
	case c == '\n' || c == '\r':
		t.lf, t.open = true, false
		return '\r', true
	case c == 0:
		c = '?'
	}
	t.open = true
	return c, true
}
