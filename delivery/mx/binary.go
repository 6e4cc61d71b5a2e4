package mx

import (
	"bytes"
	"errors"
	"io"

	"relayd/relay"
)

// AsText reads a letter of BODY=BINARYMIME (RFC 3030), which may hold any octets, and says how it is
// written as text that every server, every mailbox and every signature can carry: its binary parts
// become base64, and those with 8-bit text quoted-printable (RFC 2045 §6). It is the MIME structure that
// may not be binary; a letter whose structure is, or that must not be touched, is a *relay.Failure with
// 5.6.3. Other errors are of reading.
func AsText(body io.ReadSeeker) (write func(io.Writer) error, err error) {
	p, err := newPlan(body, true)
	if err != nil {
		return nil, err
	}
	if p.err != nil {
		return nil, notText(p.err)
	}
	return func(w io.Writer) error {
		check := &textChecker{w: w}
		if err := p.write(check, body); err != nil {
			return err
		}
		return check.end()
	}, nil
}

func notText(err error) error {
	return relay.Refuse("mx: as text", 554, "5.6.3", "the message is binary and cannot be written as text: "+err.Error())
}

// octets looks at the text of a part, piece by piece.
type octets struct {
	eight, binary bool
	cr            bool // the last octet was a CR
	line          int  // octets of the line so far
}

// maxTextLine is the longest line of text, without its end (RFC 5322 §2.1.1).
const maxTextLine = 998

func (o *octets) see(p []byte) {
	for _, b := range p {
		switch {
		case b > 127:
			o.eight = true
		case b == 0, o.cr != (b == '\n'):
			o.binary = true
		}
		if b > 127 && o.cr {
			o.binary = true
		}
		o.cr = b == '\r'
		if o.line++; b == '\n' {
			o.line = 0
		} else if o.line > maxTextLine+1 {
			o.binary = true
		}
	}
}

// content is what was seen. Letters that came as text are text: what is odd in them is left as it is.
func (o *octets) content(mayBeBinary bool) content {
	switch {
	case mayBeBinary && (o.binary || o.cr):
		return binaryText
	case o.eight:
		return eightBit
	}
	return plainText
}

// isLine says whether p is one line of text with its end.
func isLine(p []byte) bool {
	text, ok := bytes.CutSuffix(p, []byte("\r\n"))
	return ok && !bytes.ContainsAny(text, "\r\n\x00")
}

// textChecker lets only text with CR LF line ends through.
type textChecker struct {
	w    io.Writer
	look octets
}

var errStillBinary = errors.New("its structure is not one of text")

func (c *textChecker) Write(p []byte) (int, error) {
	c.look.line = -len(p) // long lines are allowed here: of preambles, and of parts that are text
	if c.look.see(p); c.look.binary || c.look.eight {
		return 0, notText(errStillBinary)
	}
	return c.w.Write(p)
}

func (c *textChecker) end() error {
	if c.look.cr {
		return notText(errStillBinary)
	}
	return nil
}
