package ctl

import (
	"bufio"
	"io"
	"mime"
	"mime/quotedprintable"
	"net/mail"
	"strings"
	"testing"
)

func TestFoldSubject(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"", "short", strings.Repeat("words and ", 200) + "end", "two  spaces " + strings.Repeat("and  more ", 20) + "x",
		strings.Repeat("Grüße ", 60) + "!", strings.Repeat("x", 900)} {
		folded, err := foldSubject(s)
		if err != nil {
			t.Fatal(err)
		}
		m, err := mail.ReadMessage(strings.NewReader("Subject: " + folded + "\r\n\r\n"))
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(folded, "\r\n") {
			if len(line) > maxLine || len(line) > 100 && !strings.HasPrefix(s, "xx") {
				t.Errorf("a line of %d octets: %q", len(line), line)
			}
		}
		got, err := new(mime.WordDecoder).DecodeHeader(strings.ReplaceAll(folded, "\r\n", ""))
		if err != nil || got != s {
			t.Errorf("%q became %q (%v, %v)", s, got, err, m.Header)
		}
	}
	for _, s := range []string{"a\nb", "a\x00", "\xff", strings.Repeat("x", 1000)} {
		if folded, err := foldSubject(s); err == nil {
			t.Errorf("%q was taken as %q", s, folded)
		}
	}
}

func TestComposeCarriesAnyBody(t *testing.T) {
	t.Parallel()
	for _, body := range []string{"", "a\r\n", "grüße\r\n", strings.Repeat("long ", 1000) + "\r\n", "bare \r CR\r\n", "nul \x00\r\n", "\xff\r\n"} {
		text, err := compose("x", []byte(body))
		if err != nil {
			t.Fatal(err)
		}
		m, err := mail.ReadMessage(strings.NewReader(string(text)))
		if err != nil {
			t.Fatal(err)
		}
		r := m.Body
		if m.Header.Get("Content-Transfer-Encoding") == "quoted-printable" {
			if awkward(text) {
				t.Errorf("still awkward: %q", text)
			}
			r = quotedprintable.NewReader(r)
		}
		// A bare CR is taken for the line end it was meant as.
		body = strings.ReplaceAll(body, "\r ", "\r\n ")
		if got, err := io.ReadAll(r); err != nil || string(got) != body {
			t.Errorf("%q became %q, %v", body, got, err)
		}
	}
}

// FuzzDotReader: whatever a letter holds, it comes back the same, and nothing behind it is eaten.
func FuzzDotReader(f *testing.F) {
	f.Add("a\r\n.b\r\n..\r\n")
	f.Add(strings.Repeat("x", 100) + "\r\n.")
	f.Fuzz(func(t *testing.T, letter string) {
		letter = string(withCRLF([]byte(letter)))
		if !strings.HasSuffix(letter, "\r\n") {
			letter += "\r\n"
		}
		sent := strings.ReplaceAll("\n"+letter, "\n.", "\n..")[1:] + ".\r\n+OK\r\n"
		in := bufio.NewReaderSize(strings.NewReader(sent), 16)
		got, err := io.ReadAll(&dotReader{in: in, lineStart: true})
		if err != nil || string(got) != letter {
			t.Fatalf("%q became %q, %v", letter, got, err)
		}
		if rest, _ := io.ReadAll(in); string(rest) != "+OK\r\n" {
			t.Fatalf("left %q", rest)
		}
	})
}

// FuzzDigest: what a stranger writes in a header never reaches a terminal raw.
func FuzzDigest(f *testing.F) {
	f.Add(letterOfMallory)
	f.Add("From: =?utf-8?q?=1b[2J?= <a@b>\nReceived: x;\n y\nSubject:\n =?x?b?Z?=\n")
	f.Fuzz(func(t *testing.T, letter string) {
		d := newDigest([]byte(letter))
		for _, s := range append(d.cells(), d.brief()) {
			if printable(s) != s {
				t.Fatalf("%q", s)
			}
		}
	})
}
