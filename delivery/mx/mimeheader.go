package mx

import (
	"bytes"
	"errors"
	"mime"
	"strings"
)

// mimeHeader is the header of a letter or a part, as it came and by its fields.
type mimeHeader struct {
	raw    []byte
	blank  []byte   // the empty line behind it
	fields [][]byte // of raw, each with its folded lines
}

// header reads a header. end is not nil where a delimiter or the end of the letter comes before its
// empty line.
func (c *converter) header() (*mimeHeader, *mark, error) {
	h := &mimeHeader{}
	end, err := c.lines(func() error {
		switch {
		case c.atStart && len(bytes.TrimRight(c.piece, "\r\n")) == 0:
			h.blank = bytes.Clone(c.piece)
			return errBlank
		case has8Bit(c.piece):
			return c.refuse(errHeader8)
		case c.plan.binary && !isLine(c.piece):
			return c.refuse(errHeaderBinary)
		case len(h.raw)+len(c.piece) > maxMIMEHeader:
			return c.refuse(errMIMEHuge)
		}
		h.raw = append(h.raw, c.piece...)
		return nil
	})
	h.split()
	if errors.Is(err, errBlank) {
		return h, nil, nil
	}
	return h, &end, err
}

// errBlank ends the reading of a header.
var errBlank = errors.New("an empty line")

func (h *mimeHeader) split() {
	start, at := 0, 0
	for line := range bytes.Lines(h.raw) {
		if at > start && line[0] != ' ' && line[0] != '\t' {
			h.fields = append(h.fields, h.raw[start:at])
			start = at
		}
		at += len(line)
	}
	if at > start {
		h.fields = append(h.fields, h.raw[start:at])
	}
}

// get is the unfolded value of the first field of that name.
func (h *mimeHeader) get(name string) (string, bool) {
	for _, f := range h.fields {
		if value, ok := cutField(f, name); ok {
			return strings.TrimSpace(strings.NewReplacer("\r", "", "\n", "").Replace(value)), true
		}
	}
	return "", false
}

func cutField(field []byte, name string) (value string, ok bool) {
	got, value, ok := strings.Cut(string(field), ":")
	return value, ok && strings.EqualFold(strings.TrimRight(got, " \t"), name)
}

func (h *mimeHeader) encoding() string {
	value, _ := h.get("Content-Transfer-Encoding")
	return strings.ToLower(value)
}

// contentType reads the type; one that cannot be read is no text, and so becomes base64 unharmed.
func (h *mimeHeader) contentType(otherwise string) (string, map[string]string) {
	value, ok := h.get("Content-Type")
	if !ok {
		return otherwise, nil
	}
	kind, params, err := mime.ParseMediaType(value)
	if err != nil && kind == "" {
		return "application/octet-stream", nil
	}
	return kind, params
}

// as7Bit is the header of what has parts: a label 8bit or binary would not be true any more.
func (h *mimeHeader) as7Bit() []byte {
	if e := h.encoding(); e != "8bit" && e != "binary" {
		return h.raw
	}
	return append(h.without("Content-Transfer-Encoding"), "Content-Transfer-Encoding: 7bit\r\n"...)
}

// encoded is the header of a part that becomes encoded; a letter that is not MIME becomes it.
func (h *mimeHeader) encoded(as string, whole bool) []byte {
	out := h.without("Content-Transfer-Encoding")
	if _, ok := h.get("MIME-Version"); whole && !ok {
		out = append(out, "MIME-Version: 1.0\r\n"...)
	}
	if _, ok := h.get("Content-Type"); !ok {
		// RFC 1428: nobody has said which characters these are.
		out = append(out, "Content-Type: text/plain; charset=unknown-8bit\r\n"...)
	}
	return append(out, "Content-Transfer-Encoding: "+as+"\r\n"...)
}

func (h *mimeHeader) without(name string) []byte {
	out := make([]byte, 0, len(h.raw)+100)
	for _, f := range h.fields {
		if _, is := cutField(f, name); !is {
			out = append(out, f...)
		}
	}
	return out
}
