package mx

import (
	"bufio"
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"unicode"

	"relayd/relay"
)

func TestReplyText(t *testing.T) {
	for in, want := range map[string]relay.Reply{
		"250 OK\r\n":               {Code: 250, Text: "OK"},
		"250\r\n":                  {Code: 250},
		"250 \r\n":                 {Code: 250},
		"550 5.1.1 <bob> nobody\n": {Code: 550, Status: status("5.1.1"), Text: "<bob> nobody"},
		"550 5.1.1\r\n":            {Code: 550, Status: status("5.1.1")},
		"550 4.1.1 odd\r\n":        {Code: 550, Text: "4.1.1 odd"},
		"550 5.1.1000 odd\r\n":     {Code: 550, Text: "5.1.1000 odd"},
		"550-5.7.1 a\r\n550-5.7.1 b\r\n550 5.7.1 c\r\n": {Code: 550, Status: status("5.7.1"), Text: "a\nb\nc"},
		"550-a\r\n550 5.7.1 b\r\n":                      {Code: 550, Status: status("5.7.1"), Text: "a\nb"},
		"550-5.7.1 a\r\n550 5.7.2 b\r\n":                {Code: 550, Status: status("5.7.1"), Text: "a\n5.7.2 b"},
		"550 a\x00b\x1b[31m\rc\td\xff\u202e\r\n":        {Code: 550, Text: "a?b?[31m?c d??"},
		"550 gr\u00fc\u00dfe\r\n":                       {Code: 550, Text: "gr\u00fc\u00dfe"},
	} {
		a, err := readAnswer(bufio.NewReaderSize(iotest.OneByteReader(strings.NewReader(in)), maxReplyLine))
		if err != nil || a.reply() != want {
			t.Errorf("%q: %+v, %v", in, a.reply(), err)
		}
	}
	for _, bad := range []string{"", "\r\n", "25\r\n", "2500 x\r\n", "abc x\r\n", "150 x\r\n", "650 x\r\n", "250_x\r\n",
		"250-a\r\n", "250-a\r\n251 b\r\n", "+OK\r\n", "250 no end", "HTTP/1.1 400 Bad\r\n", " 250 x\r\n"} {
		if a, err := readAnswer(bufio.NewReaderSize(strings.NewReader(bad), maxReplyLine)); err == nil {
			t.Errorf("%q: %+v", bad, a)
		}
	}
}

// FuzzReply: whatever a remote sends, what we keep of it is bounded and printable, and its lines
// can hurt neither log nor report.
func FuzzReply(f *testing.F) {
	for _, s := range []string{"250 OK\r\n", "550-5.1.1 a\r\n550 5.1.1 b\n", "421\r\n", "250-x\r\n", "550 \xff\u202e\x00\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		br := bufio.NewReaderSize(bytes.NewReader(in), maxReplyLine)
		a, err := readAnswer(br)
		if len(a.lines) > maxReplyLines {
			t.Fatalf("%d lines", len(a.lines))
		}
		if err != nil {
			return
		}
		r := a.reply()
		if r.Code < 200 || r.Code > 599 || len(r.Text) > maxReplyText {
			t.Fatalf("%+v", r)
		}
		if r.Status != (relay.Status{}) && r.Status[0] != r.Code/100 {
			t.Fatalf("status %v of code %d", r.Status, r.Code)
		}
		for _, c := range r.Text {
			if c != '\n' && (unicode.IsControl(c) || c == unicode.ReplacementChar) {
				t.Fatalf("%q", r.Text)
			}
		}
	})
}

// FuzzData: what goes out ends once and only once, has no bare CR or LF, and gives the letter
// back when the dots are taken out.
func FuzzData(f *testing.F) {
	for _, s := range []string{"", ".", "a", "a\r\n.\r\nb", "\r", "\n", "\r\r\n.\r\n", "a\r\n.", "..\r\n", "\r\n.\n.\r.", "x\x00\xff"} {
		f.Add([]byte(s), 1)
		f.Add([]byte(s), 3)
	}
	f.Fuzz(func(t *testing.T, in []byte, piece int) {
		var out bytes.Buffer
		d := &dataWriter{w: bufio.NewWriterSize(&out, 64)}
		for p := in; len(p) > 0; {
			n := min(max(piece, 1), len(p))
			if k, err := d.Write(p[:n]); k != n || err != nil {
				t.Fatal(k, err)
			}
			p = p[n:]
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		wire := out.String()
		if s := strings.ReplaceAll(wire, "\r\n", ""); strings.ContainsAny(s, "\r\n") {
			t.Fatalf("bare newline in %q", wire)
		}
		if end := strings.Index("\r\n"+wire, "\r\n.\r\n"); end != len(wire)+2-5 {
			t.Fatalf("%q ends at %d", wire, end)
		}
		if got, want := unstuff(wire), normal(string(in)); got != want {
			t.Fatalf("%q came back as %q", want, got)
		}
	})
}

// unstuff is RFC 5321 §4.5.2 read from the other side.
func unstuff(wire string) string {
	var b strings.Builder
	for line := range strings.SplitAfterSeq(strings.TrimSuffix(wire, ".\r\n"), "\r\n") {
		b.WriteString(strings.TrimPrefix(line, "."))
	}
	return b.String()
}

// normal is a letter with CRLF line ends throughout, the last line ended.
func normal(s string) string {
	s = strings.ReplaceAll(s, "\r\n", "\n")
	s = strings.ReplaceAll(strings.ReplaceAll(s, "\r", "\n"), "\n", "\r\n")
	if s != "" && !strings.HasSuffix(s, "\r\n") {
		s += "\r\n"
	}
	return s
}

func BenchmarkData(b *testing.B) {
	letter := []byte(strings.Repeat(strings.Repeat("x", 70)+"\r\n", 1000))
	b.SetBytes(int64(len(letter)))
	d := &dataWriter{w: bufio.NewWriterSize(io.Discard, blockSize)}
	for b.Loop() {
		d.Write(letter)
	}
}
