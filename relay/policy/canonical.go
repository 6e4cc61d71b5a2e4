package policy

import (
	"bytes"
	"crypto/sha256"
	"hash"
	"strings"
)

// bodyHash is the hash of a body in one of the two canonical forms (RFC 6376 §3.4.3, §3.4.4). The
// body is written in pieces of any size.
type bodyHash struct {
	relaxed bool
	sum     hash.Hash
	size    int64  // octets of the canonical form so far
	out     []byte // not yet in sum
	owed    int    // line ends that count only if text follows
	space   bool   // relaxed: white space that counts only if text follows on the line
	cr      bool   // the last octet was a CR
}

func newBodyHash(relaxed bool) *bodyHash {
	return &bodyHash{relaxed: relaxed, sum: sha256.New(), out: make([]byte, 0, 4<<10)}
}

func (b *bodyHash) write(p []byte) {
	for len(p) > 0 {
		if b.cr {
			b.cr = false
			if p[0] == '\n' {
				b.owed++
				b.space = false
				p = p[1:]
				continue
			}
			b.text([]byte{'\r'})
		}
		i := bytes.IndexByte(p, '\r')
		if i < 0 {
			b.text(p)
			return
		}
		b.text(p[:i])
		b.cr = true
		p = p[i+1:]
	}
}

// text takes octets of one line.
func (b *bodyHash) text(p []byte) {
	for b.relaxed && len(p) > 0 {
		i := bytes.IndexAny(p, " \t")
		if i == 0 {
			b.space = true
			p = p[1:]
			continue
		}
		if i < 0 {
			i = len(p)
		}
		b.pay()
		if b.space {
			b.space = false
			b.putWord(" ")
		}
		b.put(p[:i])
		p = p[i:]
	}
	if len(p) > 0 {
		b.pay()
		b.put(p)
	}
}

// pay writes the line ends before a text.
func (b *bodyHash) pay() {
	for ; b.owed > 0; b.owed-- {
		b.putWord("\r\n")
	}
}

// putWord puts what fits into out. A slice made for it would be garbage for each word of a letter.
func (b *bodyHash) putWord(s string) {
	b.size += int64(len(s))
	if len(b.out)+len(s) > cap(b.out) {
		b.sum.Write(b.out)
		b.out = b.out[:0]
	}
	b.out = append(b.out, s...)
}

func (b *bodyHash) put(p []byte) {
	b.size += int64(len(p))
	if len(b.out)+len(p) > cap(b.out) {
		b.sum.Write(b.out)
		b.out = b.out[:0]
	}
	if len(p) > cap(b.out) {
		b.sum.Write(p)
		return
	}
	b.out = append(b.out, p...)
}

// close ends the body and returns its hash. Empty lines at the end do not count; a body that has
// nothing else is one line end in the simple form and nothing in the relaxed one.
func (b *bodyHash) close() []byte {
	if b.cr {
		b.text([]byte{'\r'})
	}
	if b.size > 0 || !b.relaxed {
		b.putWord("\r\n")
	}
	b.sum.Write(b.out)
	return b.sum.Sum(nil)
}

// canonicalField is a header field with its line end in one of the two canonical forms (RFC 6376
// §3.4.1, §3.4.2).
func canonicalField(field string, relaxed bool) string {
	if !relaxed {
		return field
	}
	name, value, _ := strings.Cut(field, ":")
	var b strings.Builder
	b.WriteString(strings.ToLower(strings.TrimRight(name, " \t")))
	b.WriteByte(':')
	value = strings.Trim(strings.ReplaceAll(value, "\r\n", ""), " \t")
	space := false
	for i := range len(value) {
		if value[i] == ' ' || value[i] == '\t' {
			space = true
			continue
		}
		if space {
			b.WriteByte(' ')
			space = false
		}
		b.WriteByte(value[i])
	}
	b.WriteString("\r\n")
	return b.String()
}

// fields divides a header into its fields, each with its folded lines and its line end.
func fields(header string) (all []string) {
	for len(header) > 0 {
		end := 0
		for {
			i := strings.Index(header[end:], "\r\n")
			if i < 0 {
				// The letter ended inside its header.
				return append(all, header+"\r\n")
			}
			end += i + 2
			if end >= len(header) || header[end] != ' ' && header[end] != '\t' {
				break
			}
		}
		all = append(all, header[:end])
		header = header[end:]
	}
	return all
}
