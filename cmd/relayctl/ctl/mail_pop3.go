package ctl

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
)

// Bounds on what a POP3 server may answer.
const (
	popLine     = 8 << 10 // octets of a reply line; RFC 2449 §4 allows 512
	popMessages = 1 << 20
)

// popSession is a POP3 session (RFC 1939).
type popSession struct {
	endpoint
	wire *wire
	conn net.Conn // wire, or TLS on it
	in   *bufio.Reader
	tls  bool
	caps map[string]bool
}

// maildrop logs in, lets do play with the mailbox and quits, which is when deletions happen. Where
// do fails, the link is dropped and nothing is deleted (RFC 1939 §6).
func (e endpoint) maildrop(ctx context.Context, user, password string, do func(*popSession) error) error {
	w, err := e.dial(ctx, -1)
	if err != nil {
		return err
	}
	p := &popSession{endpoint: e, wire: w}
	defer w.Close()
	if err := p.open(ctx); err != nil {
		return err
	}
	if err := p.login(user, password); err != nil {
		return err
	}
	if err := do(p); err != nil {
		return err
	}
	if _, err := p.command("QUIT"); err != nil {
		return fmt.Errorf("%s did not finish well: %w", e.addr, err)
	}
	return nil
}

// open greets and starts TLS; within this machine it is not worth the effort.
func (p *popSession) open(ctx context.Context) error {
	if p.transport.tls {
		if err := p.startTLS(ctx); err != nil {
			return err
		}
	} else {
		p.use(p.wire)
	}
	if _, err := p.reply(); err != nil {
		return fmt.Errorf("%s did not greet: %w", p.addr, err)
	}
	if err := p.capa(); err != nil {
		return err
	}
	if p.tls || p.wire.loopback() {
		return nil
	}
	if !p.caps["STLS"] {
		return p.errPlain()
	}
	if _, err := p.command("STLS"); err != nil {
		return fmt.Errorf("%s refused STLS: %w", p.addr, err)
	}
	if p.in.Buffered() > 0 {
		// Somebody between us put words in before the encryption (RFC 2595 §4).
		return fmt.Errorf("%s spoke out of turn behind STLS", p.addr)
	}
	if err := p.startTLS(ctx); err != nil {
		return err
	}
	return p.capa()
}

func (p *popSession) use(conn net.Conn) {
	p.conn, p.in = conn, bufio.NewReaderSize(conn, popLine)
}

func (p *popSession) startTLS(ctx context.Context) error {
	conn, err := p.handshake(ctx, p.wire)
	if err != nil {
		return err
	}
	p.tls = true
	p.use(conn)
	return nil
}

// capa asks what the server can; one that does not know the question can nothing more.
func (p *popSession) capa() error {
	p.caps = map[string]bool{}
	err := p.lines(func(line string) error {
		word, _, _ := strings.Cut(line, " ")
		p.caps[strings.ToUpper(word)] = true
		return nil
	}, "CAPA")
	if _, refused := errors.AsType[popError](err); refused {
		return nil
	}
	return err
}

func (p *popSession) login(user, password string) error {
	_, err := p.command("USER " + user)
	if err == nil {
		_, err = p.command("PASS " + password)
	}
	if err != nil {
		return fmt.Errorf("login as %s: %w", user, err)
	}
	return nil
}

// popError is an -ERR reply.
type popError string

func (e popError) Error() string {
	if e == "" {
		return "the server refused without a word"
	}
	return string(e)
}

// command says one line and returns what follows +OK.
func (p *popSession) command(line string) (string, error) {
	if _, err := io.WriteString(p.conn, line+"\r\n"); err != nil {
		return "", err
	}
	return p.reply()
}

func (p *popSession) reply() (string, error) {
	line, err := p.line()
	if err != nil {
		return "", err
	}
	word, rest, _ := strings.Cut(line, " ")
	switch word {
	case "+OK":
		return rest, nil
	case "-ERR":
		return "", popError(rest)
	}
	return "", fmt.Errorf("%s does not speak POP3: %q", p.addr, line)
}

func (p *popSession) line() (string, error) {
	line, err := p.in.ReadSlice('\n')
	switch {
	case err == bufio.ErrBufferFull:
		return "", fmt.Errorf("%s sent a line that is too long", p.addr)
	case err == io.EOF:
		return "", fmt.Errorf("%s closed the connection", p.addr)
	}
	return strings.TrimRight(string(line), "\r\n"), err
}

// multi says one line and returns the lines of the reply, which must be read to their end before
// the next command.
func (p *popSession) multi(command string) (io.Reader, error) {
	if _, err := p.command(command); err != nil {
		return nil, err
	}
	return &dotReader{in: p.in, lineStart: true}, nil
}

// lines calls each for every line of a reply.
func (p *popSession) lines(each func(line string) error, command string) error {
	r, err := p.multi(command)
	if err != nil {
		return err
	}
	s := bufio.NewScanner(r)
	s.Buffer(nil, popLine)
	for n := 0; s.Scan(); n++ {
		if n == popMessages {
			return errTooMuch
		}
		if err := each(s.Text()); err != nil {
			return err
		}
	}
	return s.Err()
}

// dotReader is the octets of a multi-line reply, CRLF and all, without its dots (RFC 1939 §3).
type dotReader struct {
	in        *bufio.Reader
	piece     []byte // what is left of a line; valid until the next read of in
	lineStart bool
	err       error
}

func (r *dotReader) Read(p []byte) (int, error) {
	for len(r.piece) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		r.fill()
	}
	n := copy(p, r.piece)
	r.piece = r.piece[n:]
	return n, nil
}

// fill takes the next line, or as much of it as the buffer holds.
func (r *dotReader) fill() {
	piece, err := r.in.ReadSlice('\n')
	switch {
	case err == io.EOF:
		r.err = io.ErrUnexpectedEOF
	case err != nil && err != bufio.ErrBufferFull:
		r.err = err
	}
	if r.lineStart && len(piece) > 0 && piece[0] == '.' {
		if bytes.Equal(piece, []byte(".\r\n")) {
			r.err = io.EOF
			return
		}
		piece = piece[1:]
	}
	r.lineStart = err == nil
	r.piece = piece
}

// list calls each with the number and the size of every letter.
func (p *popSession) list(each func(n int, size int64) error) error {
	return p.lines(func(line string) error {
		number, rest, _ := strings.Cut(line, " ")
		octets, _, _ := strings.Cut(rest, " ")
		n, err := strconv.Atoi(number)
		size, err2 := strconv.ParseInt(octets, 10, 64)
		if err != nil || err2 != nil || n < 1 || size < 0 {
			return fmt.Errorf("%s answered LIST with %q", p.addr, line)
		}
		return each(n, size)
	}, "LIST")
}

// uids are the lasting names of the letters by number; none where the server has none.
func (p *popSession) uids() (map[int]string, error) {
	uids := map[int]string{}
	err := p.lines(func(line string) error {
		number, uid, _ := strings.Cut(line, " ")
		n, err := strconv.Atoi(number)
		if err != nil {
			return fmt.Errorf("%s answered UIDL with %q", p.addr, line)
		}
		uids[n] = uid
		return nil
	}, "UIDL")
	if _, refused := errors.AsType[popError](err); refused {
		return nil, nil
	}
	return uids, err
}

// header is the header of letter n, or the first maxHeader octets of it.
func (p *popSession) header(n int) ([]byte, error) {
	command := fmt.Sprintf("TOP %d 0", n)
	if !p.caps["TOP"] {
		command = fmt.Sprintf("RETR %d", n)
	}
	r, err := p.multi(command)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(r, maxHeader))
	if err != nil {
		return nil, err
	}
	// The rest has to be out of the way before the next command.
	if _, err := io.Copy(io.Discard, r); err != nil {
		return nil, err
	}
	if i := bytes.Index(text, []byte("\r\n\r\n")); i >= 0 {
		text = text[:i+2]
	}
	return text, nil
}

// retrieve is the whole of letter n.
func (p *popSession) retrieve(n int) (io.Reader, error) { return p.multi(fmt.Sprintf("RETR %d", n)) }

// remove deletes letter n at QUIT.
func (p *popSession) remove(n int) error {
	_, err := p.command(fmt.Sprintf("DELE %d", n))
	return err
}
