package relaytest

import (
	"bufio"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
)

// However the octets arrive, a text ends at its first CRLF.CRLF and nowhere else.
func TestSkipText(t *testing.T) {
	t.Parallel()
	for _, text := range []string{".\r\n", "a\r\n.\r\n", "\r\n.\r\n", "a\r\n..\r\n.a\r\n\n.\n\r\n.\r\n", strings.Repeat("line\r\n", 9000) + ".\r\n"} {
		for name, wrap := range map[string]func(io.Reader) io.Reader{"whole": func(r io.Reader) io.Reader { return r }, "one by one": iotest.OneByteReader} {
			r := bufio.NewReaderSize(wrap(strings.NewReader(text+"QUIT\r\n")), 32<<10)
			if err := skipText(r); err != nil {
				t.Errorf("%.20q %s: %v", text, name, err)
			}
			if rest, _ := io.ReadAll(r); string(rest) != "QUIT\r\n" {
				t.Errorf("%.20q %s: left %q", text, name, rest)
			}
		}
	}
}

func TestSink(t *testing.T) {
	t.Parallel()
	s, err := NewSink("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r, err := Load{Addr: s.listener.Addr().String(), Sessions: 3, Letters: 20, Size: 50_000, Rcpt: func(int) []string { return []string{"a@b.test", "c@b.test"} }}.Run(t.Context())
	if err != nil || r.Letters != 20 {
		t.Fatal(r, err)
	}
	if err := s.Wait(t.Context(), 20); err != nil || s.Count() != 20 {
		t.Error(s.Count(), err)
	}
	c, err := net.Dial("tcp", s.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := s.Close(); err != nil { // it does not wait for idle clients
		t.Error(err)
	}
}
