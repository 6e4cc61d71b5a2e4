package mx

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"relayd/relay"
)

// goodLine is a reply line that can be part of accepting a letter.
var goodLine = regexp.MustCompile(`(?m)^[23][0-9][0-9]`)

// FuzzSession: whatever a remote says from its greeting to the end, and however it is cut into
// packets, the attempt ends with one result for each recipient; a letter counts as delivered only
// if the remote had a good word for every step of it; nothing but CRLF line ends goes out.
func FuzzSession(f *testing.F) {
	const all = "220 x\r\n250-x\r\n250-PIPELINING\r\n250 SIZE 1000\r\n250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n250 2.0.0 taken\r\n221 bye\r\n"
	f.Add([]byte(all), uint8(200))
	f.Add([]byte(strings.Replace(all, "250-PIPELINING\r\n", "", 1)), uint8(1))
	f.Add([]byte("220 x\r\n502 no\r\n250 x\r\n250 ok\r\n550 5.1.1 no\r\n250 ok\r\n354 go\r\n451 4.3.0 later\r\n"), uint8(7))
	f.Add([]byte("220 x\r\n250-x\r\n250 STARTTLS\r\n220 go\r\n250 x\r\n"), uint8(30))
	f.Add([]byte("421 busy\r\n"), uint8(3))
	f.Add([]byte("220-\xff\x00\r\n220 \x1b[31m\n250 PIPELINING\n250\n452 4.5.3\n552 many\n554 none\n"), uint8(3))
	f.Fuzz(func(t *testing.T, in []byte, piece uint8) {
		var said []*monologue
		c := New(Config{Hostname: "mail.office.example", Dial: func(context.Context, netip.Addr, netip.AddrPort) (net.Conn, error) {
			m := &monologue{in: in, piece: int(piece) + 1}
			said = append(said, m)
			return m, nil
		}})
		const domain = "[192.0.2.1]"
		env := relay.Envelope{
			From:  relay.Address{Local: "ann", Domain: "office.example"},
			Rcpts: []relay.Recipient{{Addr: relay.Address{Local: "bob", Domain: domain}}, {Addr: relay.Address{Local: "b b", Domain: domain}}},
		}
		got := c.Deliver(t.Context(), env, domain, strings.NewReader(hello))
		c.Close()
		if len(got) != len(env.Rcpts) {
			t.Fatalf("%d results: %v", len(got), got)
		}
		for i, r := range got {
			if r.Rcpt != env.Rcpts[i].Addr || r.Outcome != relay.Delivered && r.Outcome != relay.Deferred && r.Outcome != relay.Failed {
				t.Errorf("result %d is %+v", i, r)
			}
			// Greeting, EHLO or HELO, MAIL, RCPT, DATA and the end of the letter.
			if r.Outcome == relay.Delivered && (!r.Reply.OK() || len(goodLine.FindAll(in, -1)) < 6 || !bytes.Contains(in, []byte("354"))) {
				t.Errorf("delivered by %q: %+v", in, r)
			}
			if r.Outcome == relay.Failed && r.Reply.Temporary() {
				t.Errorf("failed for good by a temporary reply: %+v", r)
			}
		}
		for _, m := range said {
			if rest := bytes.ReplaceAll(m.heard.Bytes(), []byte("\r\n"), nil); !m.encrypted() && bytes.ContainsAny(rest, "\r\n") {
				t.Errorf("a bare newline went out: %q", m.heard.Bytes())
			}
			if !m.closed {
				t.Error("a connection is still open")
			}
		}
	})
}

// monologue is a remote that has said everything before it listens.
type monologue struct {
	in     []byte
	piece  int
	heard  bytes.Buffer
	closed bool
}

func (m *monologue) Read(p []byte) (int, error) {
	n := min(m.piece, len(p), len(m.in))
	if n == 0 {
		return 0, io.EOF
	}
	copy(p, m.in[:n])
	m.in = m.in[n:]
	return n, nil
}

// encrypted says whether TLS began; what went out then is binary.
func (m *monologue) encrypted() bool {
	return bytes.Contains(m.heard.Bytes(), []byte("STARTTLS\r\n\x16\x03"))
}

func (m *monologue) Write(p []byte) (int, error) { return m.heard.Write(p) }
func (m *monologue) Close() error                { m.closed = true; return nil }

func (m *monologue) LocalAddr() net.Addr              { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 2), Port: 4000} }
func (m *monologue) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 25} }
func (m *monologue) SetDeadline(time.Time) error      { return nil }
func (m *monologue) SetReadDeadline(time.Time) error  { return nil }
func (m *monologue) SetWriteDeadline(time.Time) error { return nil }
