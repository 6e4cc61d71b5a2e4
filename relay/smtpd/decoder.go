package smtpd

import "bytes"

// decoder turns the octets of a letter on the wire into its text: dots unstuffed (RFC 5321
// §4.5.2), line ends checked. It works on whatever pieces the wire delivers.
//
// Only CR LF is a line end, for the dots as well: after a bare CR or LF a dot is text, so the
// end of a letter is CRLF.CRLF and nothing that looks like it. The clients of a lenient service that
// speak LF have a definition of their own, anyLF; see Profile.
type decoder struct {
	dots      bool // DATA: unstuff, and end at the lone dot; BDAT: neither
	normalize bool // make CR LF of a bare CR or LF instead of refusing the letter
	anyLF     bool // a bare LF is a line end as CR LF is, for the dots as well; wants normalize
	raw       bool // any octets, passed on as they are (BODY=BINARYMIME)
	state     decoderState
	bad       badness // the first thing found that the letter is refused for
}

type decoderState uint8

const (
	atLineStart decoderState = iota // behind CR LF, or at the very beginning
	inText
	afterDot   // a dot at the start of a line, taken out
	afterDotCR // and a CR behind it
	afterCR    // a CR taken in, not yet given out
	owesLF     // its LF comes next in the input
	makesLF    // the LF of a normalized CR, which is not in the input
	bareLF     // the LF of a normalized LF comes next in the input
)

type badness uint8

const (
	clean badness = iota
	bareCRFound
	bareLFFound
	nulFound
)

// decode reads src into dst until one of them is used up, the letter ends, or the first badness
// is found; what dst then holds lies before it. When bad is already set, decode goes on looking
// for the end, and what it leaves in dst is worth nothing.
func (d *decoder) decode(dst, src []byte) (nd, ns int, end bool) {
	if d.raw {
		n := copy(dst, src)
		return n, n, false
	}
	found := d.bad != clean
	for ns < len(src) && nd < len(dst) && !end && (found || d.bad == clean) {
		var o, i int
		switch d.state {
		case atLineStart:
			i = d.lineStart(src[ns])
		case afterDot:
			i, end = d.dot(src[ns])
		case afterDotCR:
			i, end = d.dotCR(src[ns])
		case afterCR:
			o = d.cr(dst[nd:], src[ns])
		case owesLF, bareLF, makesLF:
			o, i = d.lf(dst[nd:])
		case inText:
			o, i = d.text(dst[nd:], src[ns:])
		}
		nd, ns = nd+o, ns+i
	}
	if found {
		return nd, ns, end
	}
	if i := bytes.IndexByte(dst[:nd], 0); i >= 0 {
		// Before a bare newline that was found in the same piece.
		d.bad, nd = nulFound, i
	}
	return nd, ns, end
}

// finish gives out what is held back when a letter ends without the lone dot (BDAT LAST), an
// octet at a time.
func (d *decoder) finish(dst []byte) (nd int, done bool) {
	switch d.state {
	case afterCR:
		d.note(bareCRFound)
		if !d.normalize {
			return 0, true
		}
		dst[0] = '\r'
		d.state = makesLF
		return 1, false
	case makesLF:
		dst[0] = '\n'
		d.state = inText
		return 1, true
	}
	return 0, true
}

func (d *decoder) lineStart(c byte) (in int) {
	d.state = inText
	if c == '.' && d.dots {
		d.state = afterDot
		return 1
	}
	return 0
}

func (d *decoder) dot(c byte) (in int, end bool) {
	d.state = inText
	switch {
	case c == '\r':
		d.state = afterDotCR
		return 1, false
	case c == '\n' && d.anyLF:
		return 1, true
	}
	return 0, false
}

func (d *decoder) dotCR(c byte) (in int, end bool) {
	if c == '\n' {
		return 1, true
	}
	// ".CR" and then no LF: the dot was stuffing, the CR is one like any other.
	d.state = afterCR
	return 0, false
}

func (d *decoder) cr(dst []byte, next byte) (out int) {
	switch {
	case next == '\n':
		d.state = owesLF
	case d.normalize:
		d.state = makesLF
	default:
		d.note(bareCRFound)
		d.state = inText
		return 0
	}
	dst[0] = '\r'
	return 1
}

func (d *decoder) lf(dst []byte) (out, in int) {
	dst[0] = '\n'
	switch d.state {
	case owesLF:
		d.state = atLineStart
		return 1, 1
	case bareLF:
		d.state = inText
		if d.anyLF {
			d.state = atLineStart
		}
		return 1, 1
	}
	d.state = inText
	return 1, 0
}

// text copies up to the end of the line. One look for LF and one for CR decide whether the line
// is as it should be, and both are as fast as the memory.
func (d *decoder) text(dst, src []byte) (out, in int) {
	line := src[:min(len(src), len(dst))]
	lf := bytes.IndexByte(line, '\n')
	if lf >= 0 {
		line = line[:lf+1]
	}
	switch cr := bytes.IndexByte(line, '\r'); {
	case cr < 0 && lf < 0:
		copy(dst, line)
		return len(line), len(line)
	case cr < 0:
		copy(dst, line[:lf])
		return d.newline(dst[:len(line)], lf)
	case cr == lf-1:
		copy(dst, line)
		d.state = atLineStart
		return len(line), len(line)
	default:
		copy(dst, line[:cr])
		d.state = afterCR
		return cr, cr + 1
	}
}

// newline deals with the bare LF at position i, before which everything is copied.
func (d *decoder) newline(dst []byte, i int) (out, in int) {
	if !d.normalize {
		d.note(bareLFFound)
		return i, i + 1
	}
	dst[i] = '\r'
	d.state = bareLF
	return i + 1, i
}

func (d *decoder) note(b badness) {
	if d.bad == clean && !d.normalize {
		d.bad = b
	}
}
