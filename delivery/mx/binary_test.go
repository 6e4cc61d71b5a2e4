package mx

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"math/rand/v2"
	"mime"
	"mime/multipart"
	netmail "net/mail"
	"strings"
	"testing"

	"relayd/relay"
)

func asText(t testing.TB, letter string) (string, error) {
	t.Helper()
	write, err := AsText(strings.NewReader(letter))
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	err = write(&out)
	return out.String(), err
}

// parts are what a reader makes of a multipart letter.
func parts(t testing.TB, letter string) (all []string) {
	t.Helper()
	m, err := netmail.ReadMessage(strings.NewReader(letter))
	if err != nil {
		t.Fatal(err)
	}
	_, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	for r := multipart.NewReader(m.Body, params["boundary"]); ; {
		p, err := r.NextPart() // undoes quoted-printable
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		var from io.Reader = p
		if p.Header.Get("Content-Transfer-Encoding") == "base64" {
			from = base64.NewDecoder(base64.StdEncoding, p)
		}
		text, err := io.ReadAll(from)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(text))
	}
}

const binaryHead = "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b0undary\r\nContent-Transfer-Encoding: binary\r\n\r\n"

func binaryLetter(contents ...string) string {
	s := binaryHead
	for _, c := range contents {
		s += "--b0undary\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n\r\n" + c + "\r\n"
	}
	return s + "--b0undary--\r\n"
}

// Whatever octets a part has, a reader gets exactly these, and on the way there are only lines.
func TestAsText(t *testing.T) {
	t.Parallel()
	contents := []string{"", "plain", "\x00", "a\nb", "a\rb", "\r", "\n", "\r\n", "x\r\r\n", "\xff\xfe", "\n--b0undary\n", "--b0unda", strings.Repeat("x", 5000),
		strings.Repeat("x", 998) + "\r\ny", "text\r\nof lines\r\n"}
	chance := rand.New(rand.NewPCG(1, 2))
	for i := range 30 {
		size := mimeBuffer*(1+i%2) - 100 + chance.IntN(200) - i
		b := make([]byte, size)
		for j := range b {
			b[j] = "\r\n\x00x\xffy"[chance.IntN(6)]
		}
		contents = append(contents, string(b))
	}
	// A line end on each side of the buffer's edge.
	for i := range 40 {
		contents = append(contents, "\x00"+strings.Repeat("z", mimeBuffer-120+i))
	}
	for len(contents) > 0 {
		n := min(20, len(contents))
		got, err := asText(t, binaryLetter(contents[:n]...))
		if err != nil {
			t.Fatal(err)
		}
		o := octets{}
		if o.see([]byte(got)); o.binary || o.eight || o.cr {
			t.Fatalf("not text: %.200q", got)
		}
		back := parts(t, got)
		if len(back) != n {
			t.Fatalf("%d parts of %d", len(back), n)
		}
		for i, c := range contents[:n] {
			if back[i] != c {
				t.Errorf("%d octets %.40q became %d octets %.40q", len(c), c, len(back[i]), back[i])
			}
		}
		contents = contents[n:]
	}
}

// A letter that is one binary part, and one that is text, which is not touched.
func TestAsTextWhole(t *testing.T) {
	t.Parallel()
	got, err := asText(t, "MIME-Version: 1.0\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: binary\r\n\r\n\x89PNG\r\n\x1a\n\x00")
	if want := "MIME-Version: 1.0\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\niVBORw0KGgoA\r\n"; err != nil || got != want {
		t.Errorf("%q, %v", got, err)
	}
	text := "Subject: x\r\n\r\nonly text\r\n"
	if got, err := asText(t, text); err != nil || got != text {
		t.Errorf("%q, %v", got, err)
	}
}

// What cannot be text without harm is refused with 5.6.3, and errors of reading are not.
func TestAsTextRefuses(t *testing.T) {
	t.Parallel()
	for name, letter := range map[string]string{
		"NUL in the header":       "Subject: a\x00b\r\n\r\nx\r\n",
		"bare LF in the header":   "Subject: a\nX-Injected: b\r\n\r\nx\r\n",
		"bare CR in the header":   "Subject: a\rb\r\n\r\nx\r\n",
		"no CR LF at all":         "Subject: a\n\nx\n",
		"8-bit header":            "Subject: \xff\r\n\r\n\x00\r\n",
		"header of a part":        binaryHead + "--b0undary\r\nContent-Type: a/b\nX: y\r\n\r\nz\r\n--b0undary--\r\n",
		"signed":                  "Content-Type: multipart/signed; boundary=s\r\n\r\n--s\r\n\r\n\x00\r\n--s--\r\n",
		"message of another type": "Content-Type: message/partial\r\n\r\n\x00\r\n",
		"mislabelled":             "Content-Type: a/b\r\nContent-Transfer-Encoding: base64\r\n\r\n\x00\r\n",
	} {
		_, err := asText(t, letter)
		f, ok := errors.AsType[*relay.Failure](err)
		if !ok || f.Reply.Code != 554 || f.Reply.Status != (relay.Status{5, 6, 3}) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := AsText(struct {
		io.Reader
		io.Seeker
	}{failingReader{}, strings.NewReader("")}); err == nil {
		t.Error("a broken disk is no letter")
	} else if _, ok := errors.AsType[*relay.Failure](err); ok {
		t.Errorf("a broken disk refuses the letter: %v", err)
	}
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, io.ErrNoProgress }

// Nothing that comes in is anything but lines of text when it leaves.
func FuzzAsText(f *testing.F) {
	f.Add([]byte(binaryLetter("a\x00b", "x\ry")))
	f.Add([]byte("Subject: x\r\n\r\n\x00\n\r"))
	f.Fuzz(func(t *testing.T, letter []byte) {
		got, err := asText(t, string(letter))
		if err != nil {
			return
		}
		o := octets{}
		if o.see([]byte(got)); o.eight || o.cr || strings.Contains(strings.ReplaceAll(got, "\r\n", ""), "\n") || strings.ContainsAny(strings.ReplaceAll(got, "\r\n", ""), "\r\x00") {
			t.Fatalf("%q", got)
		}
	})
}
