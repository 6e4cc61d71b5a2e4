package pop3_test

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"

	"relayd/pop3"
)

// Whatever a client sends in however many pieces: no panic, no hang, every reply ends in CRLF, and
// nothing is removed unless a QUIT was among it.
func FuzzPOP3(f *testing.F) {
	const in = "USER ann@office.example\r\nPASS secret word\r\n"
	f.Add([]byte(in+"STAT\r\nLIST\r\nUIDL\r\nRETR 1\r\nTOP 2 0\r\nDELE 1\r\nRSET\r\nDELE 2\r\nQUIT\r\n"), uint8(7))
	f.Add([]byte(in+"DELE 1\r\nDELE 2\r\n"), uint8(1))
	f.Add([]byte("AUTH PLAIN\r\nAGFubkBvZmZpY2UuZXhhbXBsZQBzZWNyZXQgd29yZA==\r\nDELE 1\n"), uint8(255))
	f.Add([]byte("STLS\r\nUSER x\r\n"), uint8(3))
	f.Add([]byte(strings.Repeat("x", 5000)+"\r\n"+in), uint8(100))
	f.Add([]byte("\x16\x03\x01\x00\xa5\x01\x00\n\x00\r\n"), uint8(2))
	f.Fuzz(func(t *testing.T, input []byte, piece uint8) {
		synctest.Test(t, func(t *testing.T) {
			box := letters("Subject: x\n\n.\nbody", "b\r\n")
			cfg := config(box)
			cfg.TLS = nil // a handshake on random octets says nothing
			ours, replies, end := piped(t, pop3.New(cfg))
			for rest := input; len(rest) > 0; {
				n := min(int(piece)+1, len(rest))
				if _, err := ours.Write(rest[:n]); err != nil {
					break
				}
				rest = rest[n:]
			}
			synctest.Wait()
			ours.Close()
			if got := string(<-replies); !strings.HasSuffix(got, "\r\n") || strings.Contains(strings.ReplaceAll(got, "\r\n", ""), "\n") {
				t.Errorf("replies %q", got)
			}
			synctest.Wait()
			if left := box.left(); left != "1 2" && !strings.Contains(strings.ToUpper(string(input)), "QUIT") {
				t.Errorf("removed without QUIT, left %q", left)
			}
			if box.open {
				t.Error("the maildrop is still open")
			}
			end()
		})
	})
}

// piped is a client of s, which serves nobody else; heard is all that s said, once conn is closed, and
// end stops s.
func piped(t *testing.T, s *pop3.Server) (conn net.Conn, heard <-chan []byte, end func()) {
	ln := newPipeListener()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln, false) }()
	ours, theirs := net.Pipe()
	ln.conns <- addrConn{theirs, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}}
	said := make(chan []byte)
	go func() { b, _ := io.ReadAll(ours); said <- b }()
	return ours, said, func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
