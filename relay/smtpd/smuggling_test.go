package smtpd_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"relayd/relay/smtpd"
)

// Everything that some server somewhere takes for the end of a letter, and ours must not.
var falseEnds = []string{
	"\n.\n", "\n.\r\n", "\r\n.\n", "\n.\r", "\r.\r", "\r.\r\n", "\r\n.\r", "\r.\n", "\n\r.\n\r", "\r\n.\r\r\n",
	"\r\n\x00.\r\n", "\r\n.\x00\r\n", "\r\x00\n.\r\n", "\r\n.\r\x00\n", "\n\n.\r\n", "\r\r.\r\n", "\r\n.\r\x00\r\n",
	"\r\n..\n.\r\n", "\r\n.\n\r\n", "\n.\r\n.\n", "\r\n.\r.\r\n", "\n\x00.\x00\n", "\r\n.\r \n",
	"\u2028.\u2028\n.\n", "\x85.\x85\n.\r",
}

const smuggled = "MAIL FROM:<smuggled@y.example>\r\nRCPT TO:<ann@office.example>\r\nDATA\r\nevil\r\n.\r\n"

func TestSmuggling(t *testing.T) {
	t.Parallel()
	for _, newline := range []string{"reject", smtpd.Normalize} {
		o := &office{}
		c := config(o)
		c.BareNewline = newline
		_, addr := listen(t, c)
		for _, end := range falseEnds {
			for _, piece := range []int{1, 2, 3, 1 << 20} {
				smuggle(t, addr, o, end, newline, piece)
			}
		}
	}
}

// smuggle sends one letter whose text looks as if it ended early. The letter is refused as it
// stands, or taken whole; nothing in it is a command.
func smuggle(t *testing.T, addr string, o *office, end, newline string, piece int) {
	t.Helper()
	c := dial(t, addr)
	defer c.conn.Close()
	before := len(o.all())
	c.begin()
	c.do("DATA", "354*")
	text := "one" + end + smuggled + "NOOP\r\n"
	for b := []byte(text); len(b) > 0; {
		n := min(piece, len(b))
		c.send(string(b[:n]))
		b = b[n:]
	}
	letters := func() []letter { return o.all()[before:] }
	got := c.reply()
	switch {
	case newline == "reject" || strings.Contains(end, "\x00"):
		if !match("550 5.6.0 the message contains a *", got) || len(letters()) != 0 {
			t.Fatalf("%q: %s, %d letters", end, got, len(letters()))
		}
	default:
		if !match("250 *", got) || len(letters()) != 1 || !strings.Contains(letters()[0].body, "smuggled") {
			t.Fatalf("%q: %s, %v", end, got, letters())
		}
		if bad := badNewline(letters()[0].body); bad != "" {
			t.Fatalf("%q: %s in what was accepted", end, bad)
		}
	}
	// The NOOP behind the letter is the next command: both sides are in step.
	c.want("250 2.0.0 ok")
	c.do("QUIT", "221*")
}

// badNewline names what no accepted letter may contain.
func badNewline(body string) string {
	rest := strings.ReplaceAll(body, "\r\n", "")
	for what, c := range map[string]string{"a bare CR": "\r", "a bare LF": "\n", "a NUL": "\x00"} {
		if strings.Contains(rest, c) {
			return what
		}
	}
	return ""
}

// The text of a chunk is text, whatever it looks like, and a line end may lie across chunks.
func TestSmugglingInChunks(t *testing.T) {
	t.Parallel()
	o := &office{}
	_, addr := listen(t, config(o))
	c := dial(t, addr)
	c.begin()
	text := "one\r\n.\r\n" + smuggled
	want := text + "two\r\n.\r\nthree\r\n"
	c.send(fmt.Sprintf("BDAT %d\r\n%sBDAT 4\r\ntwo\rBDAT 4\r\n\n.\r\nBDAT 7 LAST\r\nthree\r\nNOOP\r\n", len(text), text))
	c.want("250*", "250*", "250*", "250 2.0.0 queued*", "250 2.0.0 ok")
	if l := o.all(); len(l) != 1 || l[0].body != want {
		t.Errorf("got %v", l)
	}
	for _, bad := range []string{"BDAT 2\r\na\rBDAT 1 LAST\r\nb", "BDAT 1\r\na" + "BDAT 2 LAST\r\n\nb", "BDAT 2 LAST\r\na\r", "BDAT 2\r\na\rBDAT 0 LAST\r\n"} {
		c.send("MAIL FROM:<x@y.example>\r\nRCPT TO:<ann@office.example>\r\n" + bad + "NOOP\r\n")
		c.want("250*", "250*")
		got := c.reply()
		if match("250 2.0.0 chunk*", got) {
			got = c.reply()
		}
		if !match("550 5.6.0*", got) {
			t.Errorf("%q: %s", bad, got)
		}
		for got = c.reply(); match("503*", got); got = c.reply() { // chunks that came too late
		}
		if got != "250 2.0.0 ok" {
			t.Errorf("%q: out of step: %s", bad, got)
		}
	}
}

// FuzzGuard: whatever a client sends and however it is cut into packets, a letter is accepted
// only if all of it came, and then without bare newlines or NULs; the session ends when the
// client does.
func FuzzGuard(f *testing.F) {
	head := "EHLO c\r\nMAIL FROM:<x@y.example>\r\nRCPT TO:<ann@office.example>\r\n"
	for _, end := range falseEnds {
		f.Add([]byte(head+"DATA\r\none"+end+smuggled), uint8(3), false)
	}
	f.Add([]byte(head+"BDAT 5\r\nab\r\n.BDAT 3 LAST\r\n\r\n.\r\n"), uint8(1), true)
	f.Add([]byte(head+"BDAT 3\r\nab\rBDAT 1\r\n\nRSET\r\nQUIT\r\n"), uint8(7), false)
	f.Add([]byte(head+"BDAT 5000 LAST\r\nshort"), uint8(0), false)
	f.Add([]byte(head+"DATA\r\n..\r\n...\r\n.x\r\n.\r\n"+smuggled+"STARTTLS\r\nAUTH PLAIN\r\n"), uint8(2), true)
	f.Add([]byte("\x16\x03\x01GET / HTTP/1.1\r\n\r\nVRFY x\r\nHELP\r\nEXPN\r\n"), uint8(2), true)
	o := &office{}
	c := config(o)
	c.Limits = smtpd.Limits{MessageSize: 2000, CommandLine: 200, Recipients: 3}
	c.Trusted = func(netip.Addr) bool { return true }
	reject, normalize := servePipes(f, c), newPipes()
	c.BareNewline = smtpd.Normalize
	normalize = servePipes(f, c)
	f.Fuzz(func(t *testing.T, in []byte, piece uint8, norm bool) {
		ln := reject
		if norm {
			ln = normalize
		}
		o.mu.Lock()
		o.letters = nil
		o.mu.Unlock()
		conn := &script{in: in, piece: int(piece%64) + 1, over: make(chan struct{})}
		ln.conns <- conn
		select {
		case <-conn.over:
		case <-time.After(10 * time.Second):
			t.Fatal("the session does not end")
		}
		checkLetters(t, o.all(), in, norm)
	})
}

func servePipes(t testing.TB, c smtpd.Config) *pipes {
	ln := newPipes()
	s := smtpd.New(c)
	go s.Serve(t.Context(), ln)
	t.Cleanup(func() { s.Shutdown(t.Context()) })
	return ln
}

func checkLetters(t *testing.T, letters []letter, in []byte, norm bool) {
	t.Helper()
	ends := bytes.Count(in, []byte("\r\n.\r\n")) + bytes.Count(bytes.ToUpper(in), []byte("LAST\r\n")) + bytes.Count(bytes.ToUpper(in), []byte("LAST "))
	if len(letters) > ends {
		t.Fatalf("%d letters, but only %d ends", len(letters), ends)
	}
	for _, l := range letters {
		if bad := badNewline(l.body); bad != "" {
			t.Fatalf("%s in %q", bad, l.body)
		}
		if len(l.body) > 2000 || len(l.rcpts) == 0 || len(l.rcpts) > 3 {
			t.Fatalf("%d octets for %v", len(l.body), l.rcpts)
		}
		// A dot is dropped from the start of any line, also where none needed stuffing (RFC 5321
		// §4.5.2); the lone one leaves an empty line.
		sent := strings.ReplaceAll("\n"+string(in), "\n.", "\n")
		if !norm && !strings.Contains(sent, "\n"+l.body+"\r\n") && !bytes.Contains(bytes.ToUpper(in), []byte("BDAT")) {
			t.Fatalf("%q was never sent", l.body)
		}
	}
}

// script is a connection whose client has said everything before it begins.
type script struct {
	in    []byte
	piece int
	over  chan struct{}
	done  bool
}

func (s *script) Read(p []byte) (int, error) {
	n := min(s.piece, len(p), len(s.in))
	if n == 0 {
		return 0, io.EOF
	}
	copy(p, s.in[:n])
	s.in = s.in[n:]
	return n, nil
}

func (s *script) Write(p []byte) (int, error) { return len(p), nil }

func (s *script) Close() error {
	if !s.done {
		s.done = true
		close(s.over)
	}
	return nil
}

func (s *script) LocalAddr() net.Addr              { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 25} }
func (s *script) RemoteAddr() net.Addr             { return &net.UnixAddr{Name: "script"} }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }
