package queue

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"relayd/relay"
	"relayd/relay/durable"
)

// A body file is the letter as it was written to Staged, from octet 0, and after it a trailer
// that tells whose letter this is: the envelope as one line of JSON, and a last line of fixed
// length with the checksums of both and the length of the JSON. The trailer is what Rebuild
// reads when the database is lost; everybody else reads the first Envelope.Size octets.
const (
	trailerFormat = "\r\nrelayd1 %08x %08x %08x\r\n"
	trailerLen    = 2 + 8 + 9 + 9 + 8 + 2
)

// errBody is what opening says of a body that is missing or not as it was written.
var errBody = errors.New("the body is damaged")

// errUnfinished is what is said of a file that ends before its trailer does.
var errUnfinished = fmt.Errorf("%w: no trailer", errBody)

// errReused: the file still holds the letter that had it before, or its end. A crash came before
// the new one was written, so nobody was promised it; and the old one is settled.
var errReused = fmt.Errorf("%w: the file is that of a letter that has been settled", errBody)

// bodyWriter writes a body file.
type bodyWriter struct {
	file   *os.File
	reused int64 // octets the file had before
	behind durable.Behind
	buf    *bufio.Writer

	sum  hash.Hash32
	size int64
	bit8 bool // an octet above 127 was written: the letter needs 8BITMIME (RFC 6152)
}

// writers and blocks are buffers: with one of each for a letter, most garbage was buffers.
var (
	writers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, 16<<10) }}
	blocks  = sync.Pool{New: func() any { return new([32 << 10]byte) }}
)

func newBodyWriter(f *os.File) *bodyWriter {
	buf := writers.Get().(*bufio.Writer)
	w := &bodyWriter{file: f, buf: buf, sum: crc32.New(castagnoli)}
	if info, err := f.Stat(); err == nil {
		w.reused = info.Size()
	}
	buf.Reset(toFile{w})
	return w
}

func (w *bodyWriter) Write(p []byte) (int, error) {
	if w.buf == nil {
		return 0, os.ErrClosed
	}
	n, err := w.buf.Write(p)
	w.sum.Write(p[:n])
	w.size += int64(n)
	w.bit8 = w.bit8 || has8Bit(p[:n])
	return n, err
}

// toFile is where the buffer goes.
type toFile struct{ w *bodyWriter }

func (t toFile) Write(p []byte) (int, error) {
	n, err := t.w.file.Write(p)
	if err == nil {
		err = t.w.behind.Wrote(t.w.file, n)
	}
	return n, err
}

// has8Bit looks at eight octets at a time: every letter passes here.
func has8Bit(p []byte) bool {
	for ; len(p) >= 8; p = p[8:] {
		if binary.LittleEndian.Uint64(p)&0x8080808080808080 != 0 {
			return true
		}
	}
	for _, c := range p {
		if c >= 0x80 {
			return true
		}
	}
	return false
}

// finish writes the trailer; nothing can be written after it. env.Size is that of the body.
func (w *bodyWriter) finish(env relay.Envelope) error {
	defer w.release()
	text, err := json.Marshal(env)
	if err != nil {
		return err
	}
	w.buf.Write(text)
	fmt.Fprintf(w.buf, trailerFormat, w.sum.Sum32(), crc32.Checksum(text, castagnoli), len(text))
	if err := w.buf.Flush(); err != nil {
		return err
	}
	// The trailer is found from the end, and what was a longer letter's file goes on behind it.
	if end := w.size + int64(len(text)) + trailerLen; w.reused > end {
		return w.file.Truncate(end)
	}
	return nil
}

func (w *bodyWriter) release() {
	if w.buf != nil {
		w.buf.Reset(nil)
		writers.Put(w.buf)
		w.buf = nil
	}
}

// body is the readable part of a body file.
type body struct {
	*io.SectionReader
	file   *os.File
	closed func() // may be nil
}

func (b *body) Close() error {
	if b.closed != nil {
		b.closed()
	}
	return b.file.Close()
}

// openBody opens the body and reads it once to see that it is what was accepted: half a letter
// or a changed one must never be sent. The second reading comes from the page cache.
func openBody(name string, size int64, sum uint32) (*body, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", errBody, err)
	}
	if err != nil {
		return nil, err
	}
	b := &body{SectionReader: io.NewSectionReader(f, 0, size), file: f}
	h := crc32.New(castagnoli)
	block := blocks.Get().(*[32 << 10]byte)
	n, err := io.CopyBuffer(h, b, block[:])
	blocks.Put(block)
	switch {
	case err != nil: // this may pass: do not condemn the letter for it
	case n != size:
		err = fmt.Errorf("%w: %d octets of %d", errBody, n, size)
	case h.Sum32() != sum:
		err = fmt.Errorf("%w: wrong checksum", errBody)
	default:
		_, err = b.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return b, nil
}

// readTrailer reads the envelope back from the body file of a letter, with the checksum of the
// body, after checking both checksums. Size is that of the body. errReused comes before any other damage: a
// reused file is half the one letter and half the other until it has been written whole.
func (l layout) readTrailer(id relay.ID) (relay.Envelope, uint32, error) {
	var env relay.Envelope
	name := l.body(id)
	f, err := os.Open(name)
	if err != nil {
		return env, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return env, 0, err
	}
	if info.Size() < trailerLen {
		return env, 0, errUnfinished
	}
	last := make([]byte, trailerLen)
	if _, err := f.ReadAt(last, info.Size()-trailerLen); err != nil {
		return env, 0, err
	}
	var bodySum, textSum uint32
	var textLen int64
	line, ok := strings.CutPrefix(string(last), "\r\nrelayd1 ")
	if _, err := fmt.Sscanf(line, "%08x %08x %08x", &bodySum, &textSum, &textLen); err != nil || !ok ||
		textLen > info.Size()-trailerLen {
		return env, 0, errUnfinished
	}
	text := make([]byte, textLen)
	size := info.Size() - trailerLen - textLen
	if _, err := f.ReadAt(text, size); err != nil {
		return env, 0, err
	}
	if crc32.Checksum(text, castagnoli) != textSum || json.Unmarshal(text, &env) != nil || env.Size != size {
		return env, 0, fmt.Errorf("%w: the trailer is damaged", errBody)
	}
	if env.ID != id {
		return env, 0, fmt.Errorf("%w, %s", errReused, env.ID)
	}
	b, err := openBody(name, size, bodySum)
	if err != nil {
		return env, 0, err
	}
	return env, bodySum, b.Close()
}

// layout is where things lie below the queue's directory.
type layout struct{ dir string }

func (l layout) db() string              { return filepath.Join(l.dir, "relayd.db") }
func (l layout) newDB() string           { return filepath.Join(l.dir, "relayd.db.new") }
func (l layout) lock() string            { return filepath.Join(l.dir, "lock") }
func (l layout) bodies() string          { return filepath.Join(l.dir, "bodies") }
func (l layout) body(id relay.ID) string { return filepath.Join(l.dir, "bodies", string(id)) }
func (l layout) spares() string          { return filepath.Join(l.dir, "spare") }
func (l layout) corrupt() string         { return filepath.Join(l.dir, "corrupt") }

// names lists the body files.
func (l layout) names() ([]string, error) {
	d, err := os.Open(l.bodies())
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

// keepCorrupt gives a body file a second name in corrupt/, which nothing touches again; the
// first then goes the way of every body that no item needs.
func (l layout) keepCorrupt(id relay.ID) error {
	if err := os.MkdirAll(l.corrupt(), 0o700); err != nil {
		return err
	}
	err := os.Link(l.body(id), filepath.Join(l.corrupt(), string(id)))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) || isSpoiled(err) {
		return nil
	}
	return err
}

// isSpoiled says whether an error is that of a file which its disk or file system cannot read, rather than
// of our rights or limits. Such a file often has no second name to get, and cannot be removed; nothing else
// waits for it.
func isSpoiled(err error) bool {
	return errors.Is(err, errBody) || errors.Is(err, syscall.EIO) || errors.Is(err, syscall.EBADMSG) || errors.Is(err, syscall.EUCLEAN)
}

// isKept says whether corrupt/ has the body, so that its first name may go.
func (l layout) isKept(id relay.ID) bool {
	_, err := os.Lstat(filepath.Join(l.corrupt(), string(id)))
	return err == nil
}

func syncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
