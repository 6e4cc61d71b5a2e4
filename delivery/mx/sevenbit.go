package mx

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"mime/quotedprintable"
	"slices"
	"strings"
)

// Bounds of a letter that is converted; beyond them it is refused as one that cannot be.
const (
	maxMIMEHeader = 256 << 10
	maxMIMEDepth  = 20
	maxMIMEParts  = 10_000
	mimeBuffer    = 64 << 10
)

// Why a letter cannot be converted for a host without 8BITMIME.
var (
	errSigned       = errors.New("a part is signed, and would not be what was signed any more")
	errHeader8      = errors.New("there are 8-bit characters in its header")
	errHeaderBinary = errors.New("there are control characters in its header")
	errMislabel     = errors.New("a part is not encoded as it says")
	errMIMEHuge     = errors.New("its MIME structure is larger than we look at")
	errMIMEOther    = errors.New("a part has a type that must not be encoded")
)

// sevenBit is how a letter with 8-bit text goes to a host without 8BITMIME (RFC 6152 §3): each part
// with octets above 127 becomes quoted-printable or base64 (RFC 2045 §6), everything else stays as it
// is. It is made by reading the letter once, keeps one octet for a part, and writes in one more pass.
type sevenBit struct {
	parts []content // leaves in their order
	size  int64     // octets of the converted letter
	err   error     // it cannot be

	binary bool // it may hold anything (BODY=BINARYMIME); otherwise its lines are lines
}

// content is what a leaf needs an encoding for.
type content byte

const (
	plainText  content = iota // none
	eightBit                  // octets above 127
	binaryText                // what is no text at all: see octets
)

// newSevenBit reads the letter. errors of reading are in the second result.
func newSevenBit(body io.ReadSeeker) (*sevenBit, error) { return newPlan(body, false) }

func newPlan(body io.ReadSeeker, binary bool) (*sevenBit, error) {
	p := &sevenBit{binary: binary}
	scan := &converter{plan: p, scanning: true, w: io.Discard}
	if err := scan.pass(body); err != nil {
		if !scan.refused {
			return nil, err
		}
		p.err = err
		return p, nil
	}
	n := &counter{}
	err := p.write(n, body)
	p.size = n.n
	return p, err
}

// write writes the converted letter.
func (p *sevenBit) write(w io.Writer, body io.ReadSeeker) error {
	c := &converter{plan: p, w: w}
	return c.pass(body)
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

// converter is one pass over a letter.
type converter struct {
	plan     *sevenBit
	scanning bool
	refused  bool // the error is about the letter, not of reading it
	leaf     int  // the next one

	br         *bufio.Reader
	w          io.Writer
	boundaries []string // of the multiparts around, the outermost first

	piece   []byte // of a line; valid until the next read
	atStart bool   // piece begins the line
	ended   bool   // the last piece ended its line
	cr      bool   // the last piece ended with a CR
}

// mark is where an entity ended: at a delimiter of the multipart at level, or with the letter.
type mark struct {
	level int
	last  bool // the closing delimiter
	eof   bool
}

func (c *converter) pass(body io.ReadSeeker) error {
	if _, err := body.Seek(0, io.SeekStart); err != nil {
		return err
	}
	c.br, c.ended = bufio.NewReaderSize(body, mimeBuffer), true
	_, err := c.entity("text/plain", true, 0)
	return err
}

func (c *converter) refuse(err error) error {
	c.refused = true
	return err
}

// next reads a line, or a piece of one that is longer than the buffer.
func (c *converter) next() error {
	piece, err := c.br.ReadSlice('\n')
	if err == io.EOF && len(piece) > 0 || errors.Is(err, bufio.ErrBufferFull) {
		err = nil
	}
	c.piece, c.atStart = piece, c.ended
	// Only CR LF ends a line that a delimiter may follow; the buffer may have come between.
	c.ended = bytes.HasSuffix(piece, []byte("\r\n")) || c.cr && string(piece) == "\n" || !c.plan.binary && bytes.HasSuffix(piece, []byte("\n"))
	c.cr = bytes.HasSuffix(piece, []byte("\r"))
	return err
}

// delimiter says whether the line is a delimiter of a multipart around (RFC 2046 §5.1.1).
func (c *converter) delimiter() (mark, bool) {
	if !c.atStart || !bytes.HasPrefix(c.piece, []byte("--")) {
		return mark{}, false
	}
	line := strings.TrimRight(string(c.piece[2:]), " \t\r\n")
	for level := len(c.boundaries) - 1; level >= 0; level-- {
		switch line {
		case c.boundaries[level]:
			return mark{level: level}, true
		case c.boundaries[level] + "--":
			return mark{level: level, last: true}, true
		}
	}
	return mark{}, false
}

// entity converts a header and the body behind it. whole says that it is a letter, not a part.
func (c *converter) entity(defaultType string, whole bool, depth int) (mark, error) {
	if depth > maxMIMEDepth {
		return mark{}, c.refuse(errMIMEHuge)
	}
	h, end, err := c.header()
	if err != nil || end != nil {
		if end == nil {
			end = &mark{eof: true}
		}
		return *end, errors.Join(err, c.put(h.raw))
	}
	kind, params := h.contentType(defaultType)
	top, _, _ := strings.Cut(kind, "/")
	switch {
	case kind == "multipart/signed":
		return c.copied(h, errSigned)
	case top == "multipart" && params["boundary"] != "":
		return c.multipart(h, kind, params["boundary"], whole, depth)
	case kind == "message/rfc822" || kind == "message/global":
		if err := c.put(h.as7Bit(), h.blank); err != nil {
			return mark{}, err
		}
		return c.entity("text/plain", true, depth+1)
	case top == "message" || top == "multipart":
		return c.copied(h, errMIMEOther)
	}
	return c.leafPart(h, top, whole)
}

func (c *converter) multipart(h *mimeHeader, kind, boundary string, whole bool, depth int) (mark, error) {
	if err := c.put(h.as7Bit(), h.blank); err != nil {
		return mark{}, err
	}
	defaultType := "text/plain"
	if kind == "multipart/digest" {
		defaultType = "message/rfc822"
	}
	level := len(c.boundaries)
	c.boundaries = append(c.boundaries, boundary)
	end, err := c.plain()
	for err == nil && !end.eof && end.level == level && !end.last {
		if err = c.put(c.piece); err == nil {
			end, err = c.entity(defaultType, false, depth+1)
		}
	}
	c.boundaries = c.boundaries[:level]
	if err != nil || end.eof || end.level != level {
		return end, err
	}
	if err := c.put(c.piece); err != nil {
		return end, err
	}
	return c.plain()
}

// plain copies what nobody reads, before the first part and after the last, with ? for what a host
// without 8BITMIME could not take.
func (c *converter) plain() (mark, error) {
	return c.lines(func() error {
		for i, b := range c.piece {
			if b > 127 || b == 0 || c.plan.binary && (b == '\r' || b == '\n') && !c.isLineEnd(i) {
				c.piece[i] = '?'
			}
		}
		return c.put(c.piece)
	})
}

// copied is a part that may not be touched.
func (c *converter) copied(h *mimeHeader, bad error) (mark, error) {
	if err := c.put(h.raw, h.blank); err != nil {
		return mark{}, err
	}
	look := octets{}
	return c.lines(func() error {
		if look.see(c.piece); look.content(c.plan.binary) != plainText {
			return c.refuse(bad)
		}
		return c.put(c.piece)
	})
}

// isLineEnd says whether octet i of the piece belongs to its CR LF.
func (c *converter) isLineEnd(i int) bool {
	return i >= len(c.piece)-2 && bytes.HasSuffix(c.piece, []byte("\r\n"))
}

// lines hands every piece up to a delimiter to each.
func (c *converter) lines(each func() error) (mark, error) {
	for {
		if err := c.next(); err == io.EOF {
			return mark{eof: true}, nil
		} else if err != nil {
			return mark{}, err
		}
		if m, ok := c.delimiter(); ok {
			return m, nil
		}
		if err := each(); err != nil {
			return mark{}, err
		}
	}
}

// leafPart is a part without parts of its own.
func (c *converter) leafPart(h *mimeHeader, top string, whole bool) (mark, error) {
	if c.scanning {
		return c.scan(h)
	}
	kind := plainText
	if c.leaf < len(c.plan.parts) {
		kind = c.plan.parts[c.leaf]
	}
	c.leaf++
	if kind == plainText {
		if err := c.put(h.raw, h.blank); err != nil {
			return mark{}, err
		}
		return c.lines(func() error { return c.put(c.piece) })
	}
	encoding := "base64"
	if top == "text" && kind == eightBit {
		encoding = "quoted-printable"
	}
	if err := c.put(h.encoded(encoding, whole), h.blank); err != nil {
		return mark{}, err
	}
	wrapped := &lineWrapper{w: c.w}
	enc := io.WriteCloser(quotedprintable.NewWriter(c.w))
	if encoding == "base64" {
		enc = base64.NewEncoder(base64.StdEncoding, wrapped)
	}
	// The line end before a delimiter belongs to the delimiter.
	var held []byte
	end, err := c.lines(func() error {
		if string(held) == "\r" && string(c.piece) == "\n" { // the buffer came between
			held = append(held, '\n')
			return nil
		}
		_, err := enc.Write(held)
		text, ok := bytes.CutSuffix(c.piece, []byte("\r\n"))
		if !ok {
			text = bytes.TrimSuffix(text, []byte("\r"))
		}
		held = append(held[:0], c.piece[len(text):]...)
		if err == nil {
			_, err = enc.Write(text)
		}
		return err
	})
	if err == nil && end.eof {
		_, err = enc.Write(held)
		held = nil
	}
	err = errors.Join(err, enc.Close())
	if encoding == "base64" {
		held = []byte("\r\n")
	}
	return end, errors.Join(err, c.put(held))
}

// scan notes whether the part has 8-bit octets.
func (c *converter) scan(h *mimeHeader) (mark, error) {
	if len(c.plan.parts) == maxMIMEParts {
		return mark{}, c.refuse(errMIMEHuge)
	}
	look := octets{}
	end, err := c.lines(func() error {
		look.see(c.piece)
		return nil
	})
	kind := look.content(c.plan.binary)
	if kind != plainText && err == nil && !slices.Contains([]string{"", "7bit", "8bit", "binary"}, h.encoding()) {
		err = c.refuse(errMislabel)
	}
	c.plan.parts = append(c.plan.parts, kind)
	return end, err
}

func (c *converter) put(pieces ...[]byte) error {
	for _, p := range pieces {
		if _, err := c.w.Write(p); err != nil {
			return err
		}
	}
	return nil
}

func has8Bit(p []byte) bool {
	return slices.ContainsFunc(p, func(b byte) bool { return b > 127 })
}

// lineWrapper ends a line after 76 characters (RFC 2045 §6.8).
type lineWrapper struct {
	w  io.Writer
	at int
}

func (l *lineWrapper) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if l.at == 76 {
			if _, err := io.WriteString(l.w, "\r\n"); err != nil {
				return 0, err
			}
			l.at = 0
		}
		piece := p[:min(len(p), 76-l.at)]
		if _, err := l.w.Write(piece); err != nil {
			return 0, err
		}
		l.at += len(piece)
		p = p[len(piece):]
	}
	return n, nil
}
