package intake

import (
	"bufio"
	"bytes"
	"io"
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

func whole() bool { return true }

// Headers larger than the buffer share a few places; without one, what fits is looked at and the
// rest is taken unseen.
func TestLargeHeadersShareRoom(t *testing.T) {
	text := strings.Repeat("Received: from x\r\n\tby y\r\n", 3000) + "\r\nbody\r\n"
	places := make(chan struct{}, 1)
	first, second := &room{places: places}, &room{places: places}
	scan := func(r *room) header {
		h, more, err := readHeader(iotest.DataErrReader(strings.NewReader(text)), make([]byte, 0, 1000), r.enter)
		if err != nil || !more && len(h.raw) != len(text) {
			t.Fatalf("%d octets, %v", len(h.raw), err)
		}
		return h
	}
	if h := scan(first); h.received != 3000 || h.nonASCII {
		t.Errorf("with room: %d fields, %v", h.received, h.nonASCII)
	}
	if h := scan(second); len(h.raw) != 1000 || h.received != 40 || !h.nonASCII {
		t.Errorf("without room: %d octets, %d fields, %v", len(h.raw), h.received, h.nonASCII)
	}
	first.leave()
	if h := scan(second); h.received != 3000 {
		t.Errorf("with room again: %d fields", h.received)
	}
	second.leave()
	if len(places) != 0 {
		t.Error("a place is still taken")
	}
}

// FuzzHeader: however a letter is cut into reads, its header is found where it ends, every octet
// is kept, and what is counted agrees with the standard library's reader wherever that one can
// read the header at all.
func FuzzHeader(f *testing.F) {
	for _, s := range []string{
		"Received: a\r\n b\r\nreceived : c\r\nDelivered-To: Ann@office.test\r\nTo: x,\r\n\ty\r\n\r\nbody: x\r\n",
		"\r\nReceived: body\r\n", " Received: folded\r\n\r\n", "no colon\r\nReceived: x\r\n\r\n", "Received: x", "a: \xff\r\n\r\n", "\r", ".\r\n\r\n",
	} {
		f.Add([]byte(s), uint8(3))
	}
	f.Fuzz(func(t *testing.T, text []byte, piece uint8) {
		h, more, err := readHeader(&pieces{text, int(piece) + 1}, make([]byte, 0, 16), whole)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(text, h.raw) || !more && len(h.raw) != len(text) {
			t.Fatalf("%q became %q, more %v", text, h.raw, more)
		}
		once, _, err := readHeader(bytes.NewReader(text), make([]byte, 0, maxHeader), whole)
		if err != nil || once.received != h.received || !slices.Equal(once.deliveredTo, h.deliveredTo) || once.visible != h.visible || once.nonASCII != h.nonASCII {
			t.Fatalf("%q: %v in pieces, %v at once", text, h, once)
		}
		differ(t, text, h)
	})
}

// differ compares with net/textproto, which is stricter: what it cannot read says nothing.
func differ(t *testing.T, text []byte, h header) {
	if bytes.Contains(bytes.ReplaceAll(text, []byte("\r\n"), nil), []byte("\n")) || bytes.Contains(text, []byte("\r\r")) {
		return // it takes a bare LF for a line end; smtpd lets none through
	}
	std, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(text))).ReadMIMEHeader()
	if err != nil {
		return
	}
	counts := map[string]int{}
	for name, values := range std {
		counts[strings.ToLower(strings.TrimRight(name, " \t"))] += len(values)
	}
	if h.received != counts["received"] || len(h.deliveredTo) != counts["delivered-to"] {
		t.Errorf("%q: %d Received and %d Delivered-To fields, net/textproto sees %v", text, h.received, len(h.deliveredTo), counts)
	}
}

// pieces gives out a text n octets at a time.
type pieces struct {
	rest []byte
	n    int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.rest[:min(p.n, len(p.rest))])
	p.rest = p.rest[n:]
	return n, nil
}
