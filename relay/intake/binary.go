package intake

import (
	"errors"
	"io"

	"relayd/relay"
)

// text is a binary letter on its way to becoming text. Nothing behind the front door knows binary
// letters: a mailbox cannot keep them, a signature would break where they had to be converted later, and
// hardly a server takes them.
type text struct {
	*io.PipeReader
	held heldBody
	done chan struct{}
}

// asText reads the whole body aside. The caller ends the text.
func (t *transaction) asText(body io.Reader) (*text, error) {
	if t.in.asText == nil {
		return nil, relay.Refuse("intake: receive", 554, "5.6.1", "binary messages are not taken here")
	}
	x := &text{held: heldBody{dir: t.in.disk.path, pool: &t.in.held}, done: make(chan struct{})}
	err := x.held.fill(body, io.Discard)
	var write func(io.Writer) error
	if err == nil {
		write, err = t.in.asText(&rereader{held: &x.held, Reader: x.held.reader()})
	}
	if err != nil {
		x.held.close()
		return nil, err
	}
	var w *io.PipeWriter
	x.PipeReader, w = io.Pipe()
	go func() {
		defer close(x.done)
		w.CloseWithError(write(w))
	}()
	return x, nil
}

// end frees what is held, when nobody reads any more.
func (x *text) end() {
	x.PipeReader.Close()
	<-x.done
	x.held.close()
}

// rereader reads a held body, and again from its start.
type rereader struct {
	held *heldBody
	io.Reader
}

// Seek knows the way to the start alone.
func (r *rereader) Seek(offset int64, whence int) (int64, error) {
	if offset != 0 || whence != io.SeekStart {
		return 0, errors.ErrUnsupported
	}
	if r.held.file != nil {
		if _, err := r.held.file.Seek(0, io.SeekStart); err != nil {
			return 0, err
		}
	}
	r.Reader = r.held.reader()
	return 0, nil
}
