package relaytest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// talk sends input, closes our half of the connection and returns all that was said.
func talk(t *testing.T, s *MXServer, input string) string {
	t.Helper()
	c, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	go func() {
		io.WriteString(c, input)
		c.(*net.TCPConn).CloseWrite()
	}()
	said, _ := io.ReadAll(c)
	return strings.ReplaceAll(string(said), "\r\n", "\n")
}

// codes are the reply codes of a dialogue, one for each reply.
func codes(said string) string {
	var list []string
	for _, m := range regexp.MustCompile(`(?m)^(\d{3})( |$)`).FindAllStringSubmatch(said, -1) {
		list = append(list, m[1])
	}
	return strings.Join(list, " ")
}

const (
	hello = "EHLO office.example\r\n"
	begin = "MAIL FROM:<ann@office.example>\r\nRCPT TO:<bob@partner.example>\r\nRCPT TO:<carol@partner.example>\r\n"
	text  = "DATA\r\nSubject: x\r\n\r\ntext\r\n.\r\n"
)

func TestMXScripts(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		script, input, want string
		letters             int
	}{
		"takes all":           {"", hello + begin + text + "QUIT\r\n", "220 250 250 250 250 354 250 221", 1},
		"two letters":         {"", hello + begin + text + begin + text + "QUIT\r\n", "220 250 250 250 250 354 250 250 250 250 354 250 221", 2},
		"one recipient":       {"rcpt bob@* 550 5.1.1 no such user", hello + begin + text, "220 250 250 550 250 354 250", 1},
		"greylists":           {"first 1 rcpt * 451 4.7.1 later", hello + begin + "RSET\r\n" + begin + text, "220 250 250 451 451 250 250 250 250 354 250", 1},
		"after one":           {"after 1 eom 452 4.3.1 full", hello + begin + text + begin + text, "220 250 250 250 250 354 250 250 250 250 354 452", 1},
		"banner":              {"banner 554 5.3.2 go away", hello, "554 250", 0},
		"421 hangs up":        {"mail 421 4.3.2 closing", hello + begin, "220 250 421", 0},
		"drops at eom":        {"eom drop", hello + begin + text, "220 250 250 250 250 354", 0},
		"drops in the text":   {"body drop", hello + begin + text, "220 250 250 250 250 354", 0},
		"keeps without a 250": {"eom keep", hello + begin + text, "220 250 250 250 250 354", 1},
		"eom of a recipient":  {"eom dave@* 550 5.7.1 no", hello + begin + text, "220 250 250 250 250 354 250", 1},
		"refuses the text":    {"eom 550 5.7.1 spam", hello + begin + text, "220 250 250 250 250 354 550", 0},
		"data refused":        {"data 451 4.3.0 no", hello + begin + "DATA\r\nRSET\r\n", "220 250 250 250 250 451 250", 0},
		"stalls a moment":     {"mail stall 1ms", hello + begin, "220 250 250 250 250", 0},
		"stalls":              {"rcpt stall", hello + begin, "220 250 250", 0},
		"raw":                 {`mail raw "999 what\r\n"`, hello + begin, "220 250 999 503 503", 0},
		"no ehlo":             {"no ehlo", hello + "HELO x\r\n", "220 502 250", 0},
		"size":                {"size 10", hello + "MAIL FROM:<a@b> SIZE=11\r\n", "220 250 552", 0},
		"parameter unoffered": {"no 8bitmime", hello + "MAIL FROM:<a@b> BODY=8BITMIME\r\n", "220 250 555", 0},
		"out of order":        {"", hello + "RCPT TO:<a@b>\r\nDATA\r\nMAIL TO:<x>\r\nWHAT\r\n", "220 250 503 554 501 502", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := MX(t, c.script)
			if said := talk(t, s, c.input); codes(said) != c.want {
				t.Errorf("got %q, want %q:\n%s", codes(said), c.want, said)
			}
			if s.Count() != c.letters {
				t.Errorf("%d letters, want %d", s.Count(), c.letters)
			}
		})
	}
}

// Every sample arrives as it was sent, dots and all, and lies in the folder.
func TestMXKeepsBytes(t *testing.T) {
	t.Parallel()
	s, dir := MX(t, "no 8bitmime"), t.TempDir()
	if err := s.KeepIn(dir); err != nil {
		t.Fatal(err)
	}
	var input strings.Builder
	input.WriteString(hello)
	for _, l := range Letters() {
		input.WriteString("MAIL FROM:<ann@office.example> SIZE=1\r\nRCPT TO:<\"b>ob\"@partner.example>\r\nDATA\r\n")
		input.Write(stuff(l.Body))
	}
	said := talk(t, s, input.String())
	letters := s.Letters()
	if len(letters) != len(Letters()) {
		t.Fatalf("%d letters came:\n%s", len(letters), said)
	}
	for i, l := range Letters() {
		want := l.Body
		if len(want) > 0 && !bytes.HasSuffix(want, []byte("\r\n")) {
			want = append(bytes.Clone(want), "\r\n"...)
		}
		got := letters[i]
		if !bytes.Equal(got.Body, want) || !bytes.Equal(got.Raw, stuff(l.Body)) {
			t.Errorf("%s: %d octets of text, want %d", l.Name, len(got.Body), len(want))
		}
		if got.Mail != "<ann@office.example> SIZE=1" || got.Rcpts[0] != `<"b>ob"@partner.example>` || got.Helo != "office.example" {
			t.Errorf("%s: envelope %+v", l.Name, got)
		}
	}
	onDisk, err := os.ReadFile(filepath.Join(dir, "0001.eml"))
	if err != nil || !bytes.Equal(onDisk, letters[0].Body) {
		t.Errorf("on disk: %q, %v", onDisk, err)
	}
	env, err := os.ReadFile(filepath.Join(dir, "0001.env"))
	if want := "MAIL FROM:<ann@office.example> SIZE=1\nRCPT TO:<\"b>ob\"@partner.example>\n"; err != nil || string(env) != want {
		t.Errorf("on disk: %q, %v", env, err)
	}
	if got := s.Violations(); len(got) != 3 || !strings.HasPrefix(got[0], "8-bit text") {
		t.Errorf("violations %q", got)
	}
}

// stuff is the text of DATA for body (RFC 5321 §4.5.2).
func stuff(body []byte) []byte {
	var b bytes.Buffer
	for line := range bytes.Lines(body) {
		if line[0] == '.' {
			b.WriteByte('.')
		}
		b.Write(line)
	}
	if n := b.Len(); n > 0 && b.Bytes()[n-1] != '\n' {
		b.WriteString("\r\n")
	}
	b.WriteString(".\r\n")
	return b.Bytes()
}

func TestMXNoticesViolations(t *testing.T) {
	t.Parallel()
	s := MX(t, "no pipelining")
	talk(t, s, hello+begin+"DATA\r\nbare\nline\r\n\n.\r\n.\r\nRSET\nQUIT\r\n")
	got := strings.Join(s.Violations(), "\n")
	for _, want := range []string{"sent ahead", "bare CR or LF in the text", "command line ends in a bare LF"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q not noticed in:\n%s", want, got)
		}
	}
	if l := s.Letters(); len(l) != 1 || string(l[0].Body) != "bare\nline\r\n\n.\r\n" {
		t.Errorf("LF.CRLF ended the text: %v", l)
	}
}

func TestMXStartTLS(t *testing.T) {
	t.Parallel()
	s := MX(t, "starttls")
	c, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(c, hello+"STARTTLS\r\n")
	r := bufio.NewReader(c)
	for line := ""; !strings.HasPrefix(line, "220 2.0.0"); {
		if line, err = r.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	secure := tls.Client(c, &tls.Config{InsecureSkipVerify: true})
	if err := secure.Handshake(); err != nil {
		t.Fatal(err)
	}
	io.WriteString(secure, hello+begin+text+"QUIT\r\n")
	io.ReadAll(secure)
	if l := s.Letters(); len(l) != 1 || !l[0].TLS {
		t.Errorf("got %+v", l)
	}
	for _, rule := range []string{"starttls 454 4.7.0 no", "starttls drop"} {
		if said := talk(t, MX(t, "starttls\n"+rule), hello+"STARTTLS\r\n"); !strings.Contains(said, "250 STARTTLS") {
			t.Errorf("%s: %s", rule, said)
		}
	}
}

// Close must not wait for a client that is being stalled or flooded.
func TestMXCloses(t *testing.T) {
	t.Parallel()
	for _, script := range []string{"banner stall", "banner flood", "banner stall 1h", ""} {
		s := MX(t, script)
		c, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		s.Close()
	}
}

func TestMXWait(t *testing.T) {
	t.Parallel()
	s := MX(t, "")
	waited := make(chan error)
	go func() { waited <- s.Wait(t.Context(), 1) }()
	talk(t, s, hello+begin+text)
	if err := <-waited; err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Wait(ctx, 2); err == nil {
		t.Error("waited for nothing")
	}
}

func TestScriptComplaints(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"mail", "mail explode", "lunch 250 ok", "first x mail drop", "no sense", "size big", "mail stall long", "mail raw x", "drop"} {
		if _, err := ParseMXScript(text); err == nil || !strings.Contains(err.Error(), "line 1") {
			t.Errorf("%q: %v", text, err)
		}
	}
}
