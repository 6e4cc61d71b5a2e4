package smtpd_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"

	"relayd/relay"
	"relayd/relay/smtpd"
)

// sink accepts every letter and forgets it.
type sink struct{ buf []byte }

func (s *sink) Begin(context.Context, relay.Origin, relay.Address, relay.MailParams) (relay.Transaction, error) {
	return s, nil
}
func (s *sink) Verify(context.Context, relay.Origin, relay.Address) error   { return nil }
func (s *sink) Rcpt(context.Context, relay.Address, relay.RcptParams) error { return nil }
func (s *sink) Abort()                                                      {}
func (s *sink) Receive(_ context.Context, body io.Reader) (relay.ID, error) {
	if s.buf == nil {
		s.buf = make([]byte, 32<<10)
	}
	for {
		if _, err := body.Read(s.buf); err == io.EOF {
			return "0123456789abcdef", nil
		} else if err != nil {
			return "", err
		}
	}
}

func benchServer(b *testing.B) (net.Conn, *bufio.Reader) {
	c := config(nil)
	c.Accept = &sink{}
	c.Limits = smtpd.Limits{MessageSize: 1 << 40}
	_, addr := listen(b, c)
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	r := bufio.NewReader(conn)
	io.WriteString(conn, "EHLO bench.example\r\n")
	expect(b, r, "250 ")
	return conn, r
}

// expect reads lines up to the one with the prefix.
func expect(b *testing.B, r *bufio.Reader, prefix string) {
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			b.Fatal(err)
		}
		if bytes.HasPrefix(line, []byte(prefix)) {
			return
		}
		if line[0] >= '4' {
			b.Fatalf("%s", line)
		}
	}
}

// A letter of 2 KiB, the commands pipelined: two round trips.
func BenchmarkTransaction(b *testing.B) {
	conn, r := benchServer(b)
	head := []byte("MAIL FROM:<x@y.example>\r\nRCPT TO:<ann@office.example>\r\nDATA\r\n")
	text := []byte(strings.Repeat(strings.Repeat("x", 70)+"\r\n", 28) + ".\r\n")
	b.ReportAllocs()
	for b.Loop() {
		conn.Write(head)
		expect(b, r, "354 ")
		conn.Write(text)
		expect(b, r, "250 2.0.0 queued")
	}
}

func BenchmarkData(b *testing.B) {
	for name, line := range map[string]string{"lines": strings.Repeat("x", 74) + "\r\n", "base64-dots": "." + strings.Repeat("x", 73) + "\r\n", "one-line": strings.Repeat("x", 1024)} {
		b.Run(name, func(b *testing.B) {
			conn, r := benchServer(b)
			text := []byte(strings.Repeat(line, (1<<20)/len(line)) + "\r\n.\r\n")
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				io.WriteString(conn, "MAIL FROM:<x@y.example>\r\nRCPT TO:<ann@office.example>\r\nDATA\r\n")
				expect(b, r, "354 ")
				conn.Write(text)
				expect(b, r, "250 2.0.0 queued")
			}
		})
	}
	b.Run("bdat", func(b *testing.B) {
		conn, r := benchServer(b)
		text := []byte(strings.Repeat(strings.Repeat("x", 74)+"\r\n", (1<<20)/76))
		b.SetBytes(int64(len(text)))
		for b.Loop() {
			fmt.Fprintf(conn, "MAIL FROM:<x@y.example>\r\nRCPT TO:<ann@office.example>\r\nBDAT %d LAST\r\n", len(text))
			conn.Write(text)
			expect(b, r, "250 2.0.0 queued")
		}
	})
}

// BenchmarkIdle tells what an idle connection costs: octets of heap and stack for the server's
// end, a socket of the test's own beside it.
func BenchmarkIdle(b *testing.B) {
	const n = 500
	c := config(nil)
	c.Accept = &sink{}
	c.Limits = smtpd.Limits{Connections: n, ConnectionsPerAddress: n}
	_, addr := listen(b, c)
	for b.Loop() {
		before := inUse()
		conns := make([]net.Conn, n)
		buf := make([]byte, 512)
		for i := range conns {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				b.Fatal(err)
			}
			conns[i] = conn
			conn.Read(buf)
			io.WriteString(conn, "EHLO bench.example\r\n")
			conn.Read(buf)
		}
		after := inUse()
		b.ReportMetric(float64(after-before)/n, "octets/conn")
		for _, conn := range conns {
			conn.Close()
		}
	}
}

func inUse() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}
