package mx

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	netmail "net/mail"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"relayd/relay"
)

func crlf(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }

func convert(t testing.TB, letter string) (string, *sevenBit) {
	t.Helper()
	p, err := newSevenBit(strings.NewReader(letter))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if p.err == nil {
		if err := p.write(&out, strings.NewReader(letter)); err != nil {
			t.Fatal(err)
		}
		if int64(out.Len()) != p.size {
			t.Errorf("%d octets were announced, %d written", p.size, out.Len())
		}
	}
	return out.String(), p
}

func TestSevenBit(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, in, want string }{
		{"no MIME", "Subject: x\n\ngr\xfc\xdfe = gr\xc3\xbc\n", `Subject: x
MIME-Version: 1.0
Content-Type: text/plain; charset=unknown-8bit
Content-Transfer-Encoding: quoted-printable

gr=FC=DFe =3D gr=C3=BC
`},
		{"text", "MIME-Version: 1.0\nContent-Transfer-Encoding:\n 8bit\nContent-Type: text/plain;\n charset=utf-8\nSubject: x\n\ngrün \n", `MIME-Version: 1.0
Content-Type: text/plain;
 charset=utf-8
Subject: x
Content-Transfer-Encoding: quoted-printable

gr=C3=BCn=20
`},
		{"binary, no line end", "MIME-Version: 1.0\nContent-Type: application/pdf\n\n\xff\xfe", `MIME-Version: 1.0
Content-Type: application/pdf
Content-Transfer-Encoding: base64

//4=
`},
		{"nested", `MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="a b"
Content-Transfer-Encoding: 8bit

préamble
--a b
Content-Type: multipart/alternative; boundary=in
Content-Transfer-Encoding: binary

--in
Content-Type: text/plain

plain stays = as it is
--in
Content-Type: text/html; charset=utf-8
Content-Transfer-Encoding: 8bit

<p>grün</p>
--in--
--a b
Content-Type: image/png

ÿ
--a b
Content-Type: message/rfc822
Content-Transfer-Encoding: 8bit

Subject: inner

innerü
--a b
Content-Type: text/plain
Content-Transfer-Encoding: base64

ZmZm
--a b--
épilogue
`, `MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="a b"
Content-Transfer-Encoding: 7bit

pr??amble
--a b
Content-Type: multipart/alternative; boundary=in
Content-Transfer-Encoding: 7bit

--in
Content-Type: text/plain

plain stays = as it is
--in
Content-Type: text/html; charset=utf-8
Content-Transfer-Encoding: quoted-printable

<p>gr=C3=BCn</p>
--in--
--a b
Content-Type: image/png
Content-Transfer-Encoding: base64

w78=
--a b
Content-Type: message/rfc822
Content-Transfer-Encoding: 7bit

Subject: inner
MIME-Version: 1.0
Content-Type: text/plain; charset=unknown-8bit
Content-Transfer-Encoding: quoted-printable

inner=C3=BC
--a b
Content-Type: text/plain
Content-Transfer-Encoding: base64

ZmZm
--a b--
??pilogue
`},
		{"signed beside", "Content-Type: multipart/mixed; boundary=o\n\n--o\nContent-Type: multipart/signed; boundary=s\n\n--s\nContent-Transfer-Encoding: 8bit\n\nascii\n--s--\n--o\n\nü\n--o--\n",
			"Content-Type: multipart/mixed; boundary=o\n\n--o\nContent-Type: multipart/signed; boundary=s\n\n--s\nContent-Transfer-Encoding: 8bit\n\nascii\n--s--\n--o\nContent-Type: text/plain; charset=unknown-8bit\nContent-Transfer-Encoding: quoted-printable\n\n=C3=BC\n--o--\n"},
	} {
		got, p := convert(t, crlf(tt.in))
		if p.err != nil || got != crlf(tt.want) {
			t.Errorf("%s: %v\n%s", tt.name, p.err, got)
		}
	}
}

func TestSevenBitRefuses(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat("Content-Type: message/rfc822\r\n\r\n", maxMIMEDepth+2)
	for _, tt := range []struct {
		in   string
		want error
	}{
		{"Content-Type: multipart/signed; boundary=s\n\n--s\n\nü\n--s--\n", errSigned},
		{"Content-Type: multipart/mixed; boundary=o\n\n--o\nContent-Type: multipart/signed; boundary=s\n\n--s\n\nü\n--s--\n--o--\n", errSigned},
		{"Subject: ü\n\nx\n", errHeader8},
		{"Content-Transfer-Encoding: quoted-printable\n\nü\n", errMislabel},
		{"Content-Type: message/partial; id=a\n\nü\n", errMIMEOther},
		{deep + "ü", errMIMEHuge},
		{"X: " + strings.Repeat("x", maxMIMEHeader) + "\n\nü\n", errMIMEHuge},
	} {
		if _, p := convert(t, crlf(tt.in)); !errors.Is(p.err, tt.want) {
			t.Errorf("%.60q: %v, want %v", tt.in, p.err, tt.want)
		}
	}
	if _, err := newSevenBit(seekFails{iotest.ErrReader(errServfail)}); !errors.Is(err, errServfail) {
		t.Errorf("a disk that cannot be read: %v", err)
	}
}

type seekFails struct{ io.Reader }

func (seekFails) Seek(int64, int) (int64, error) { return 0, nil }

// TestSevenBitKeeps: what a reader decodes is what was written, whatever the sizes.
func TestSevenBitKeeps(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("grüße, und eine lange Zeile dazu. ", 5000) + "\r\n\r\n .\r\n"
	blob := strings.Repeat("\x00\xff\r\n--oo\r\n\x80", 3000)
	letter := "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" + text +
		"\r\n--o\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n\r\n" + blob + "\r\n--o--\r\n"
	out, p := convert(t, letter)
	if p.err != nil || has8Bit([]byte(out)) {
		t.Fatalf("%v", p.err)
	}
	for line := range strings.Lines(out) {
		if len(line) > 80 {
			t.Fatalf("a line of %d octets", len(line))
		}
	}
	m, err := netmail.ReadMessage(strings.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	_, params, _ := mime.ParseMediaType(m.Header.Get("Content-Type"))
	r := multipart.NewReader(m.Body, params["boundary"])
	for _, want := range []string{text, blob} {
		part, err := r.NextRawPart()
		if err != nil {
			t.Fatal(err)
		}
		body := io.Reader(quotedprintable.NewReader(part))
		if part.Header.Get("Content-Transfer-Encoding") == "base64" {
			body = base64.NewDecoder(base64.StdEncoding, part)
		}
		got, err := io.ReadAll(body)
		if err != nil || string(got) != want {
			t.Errorf("%d octets came of %d, %v", len(got), len(want), err)
		}
	}
}

// TestSevenBitHost: a host without 8BITMIME gets 7-bit text of the announced size, or the letter comes
// back with 5.6.3; never is it sent raw.
func TestSevenBitHost(t *testing.T) {
	for _, tt := range []struct{ letter, status string }{
		{"Subject: x\r\n\r\n.grün\r\n", "2.0.0"},
		{"Content-Type: multipart/signed; boundary=s\r\n\r\n--s\r\n\r\ngrün\r\n--s--\r\n", "5.6.3"},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := &remote{ext: []string{"PIPELINING", "SIZE"}}
			env := envelope("bob@partner.example")
			env.Body8Bit = true
			got := partner(r).send(t, env, tt.letter)[0]
			if got.Reply.Status != status(tt.status) {
				t.Errorf("%+v", got)
			}
			if (got.Outcome == relay.Delivered) != (len(r.mails) == 1) {
				t.Errorf("%d letters arrived", len(r.mails))
			}
			for _, m := range r.mails {
				if has8Bit([]byte(m.data)) || !strings.Contains(m.data, "\r\n\r\n..gr=C3=BCn\r\n.\r\n") || !strings.HasSuffix(m.from, fmt.Sprint(" SIZE=", len(m.data)-len("..\r\n"))) {
					t.Errorf("%+v", m)
				}
			}
		})
	}
}

// FuzzSevenBit: whatever comes, the result is 7-bit and of the size that was announced.
func FuzzSevenBit(f *testing.F) {
	for _, s := range []string{"ü", "\r\n", "a: b\r\n\r\nü", "Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\n\r\nü\r\n--a--\r\n",
		"Content-Type: message/rfc822\r\n\r\n\r\n\xff", "Content-Type: multipart/digest; boundary=a\r\n\r\n--a\r\n\r\n\r\nü--a--"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, letter string) {
		out, p := convert(t, letter)
		if p.err == nil && has8Bit([]byte(out)) {
			t.Errorf("%q becomes %q", letter, out)
		}
		if p.err == nil && !has8Bit([]byte(letter)) && !strings.Contains(strings.ToLower(letter), "8bit") &&
			!strings.Contains(strings.ToLower(letter), "binary") && out != letter {
			t.Errorf("%q was 7-bit and became %q", letter, out)
		}
	})
}
