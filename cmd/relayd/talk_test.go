package main

import (
	"bufio"
	"crypto/tls"
	"flag"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// cmdTalk is `talk [-to ADDR] [-from IP] [-patient] FILE`: it plays the dialogue in the file, octet
// by octet, with $SMTP or another of our services, from the address of a stranger, 127.0.0.9, or
// another. -patient connects again while the greeting is 421. A line of the dialogue is
//
//	C: a line          sent with CR LF
//	C! a\r\nb          sent as it is, in Go's notation
//	C* 1000000 x       sent so many times
//	S: 250 *           one whole reply, its lines divided by \n; * stands for anything; EOF for the end
//	TLS                a handshake
//	NEW [IP]           the same from the start, with a new connection, perhaps from elsewhere
//	KEEP [IP]          the same, and the connections before stay open
//
// and a comment otherwise, which begins with #.
func cmdTalk(ts *testscript.TestScript, _ bool, args []string) {
	fs := flag.NewFlagSet("talk", flag.ContinueOnError)
	t := &talk{ts: ts}
	fs.StringVar(&t.to, "to", ts.Getenv("SMTP"), "")
	fs.StringVar(&t.from, "from", "127.0.0.9", "")
	fs.BoolVar(&t.patient, "patient", false, "")
	ts.Check(fs.Parse(args))
	defer t.hangup()
	t.connect("")
	n := 0
	for line := range strings.Lines(ts.ReadFile(fs.Arg(0))) {
		n++
		if err := t.play(strings.TrimSuffix(line, "\n")); err != nil {
			ts.Fatalf("%s:%d: %v", fs.Arg(0), n, err)
		}
	}
}

// talk is a dialogue being played.
type talk struct {
	ts       *testscript.TestScript
	to, from string
	patient  bool
	*dialogue
	before []*dialogue
}

func (t *talk) connect(from string) {
	if from != "" {
		t.from = from
	}
	dialer := net.Dialer{Timeout: patience}
	if !strings.HasPrefix(t.to, "[") {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(t.from)}
	}
	for deadline := time.Now().Add(patience); ; t.Close() {
		conn, err := dialer.Dial("tcp", t.to)
		t.ts.Check(err)
		t.dialogue = &dialogue{}
		t.use(conn)
		if !t.patient || time.Now().After(deadline) {
			return
		}
		if greeting, err := t.r.Peek(3); err != nil || string(greeting) != "421" {
			return
		}
	}
}

func (t *talk) use(conn net.Conn) {
	conn.SetDeadline(time.Now().Add(patience))
	t.dialogue.Conn, t.dialogue.r = conn, bufio.NewReader(conn)
}

func (t *talk) hangup() {
	for _, d := range append(t.before, t.dialogue) {
		d.Close()
	}
	t.before = nil
}

func (t *talk) play(line string) error {
	word, rest, _ := strings.Cut(line, " ")
	switch word {
	case "C:":
		t.write(rest + "\r\n")
	case "C!":
		text, err := strconv.Unquote(`"` + strings.ReplaceAll(rest, `"`, `\"`) + `"`)
		if err != nil {
			return fmt.Errorf("%w: %s", err, rest)
		}
		t.write(text)
	case "C*":
		count, text, _ := strings.Cut(rest, " ")
		n, err := strconv.Atoi(count)
		if err != nil {
			return err
		}
		t.write(strings.Repeat(text, n))
	case "S:":
		return t.hear(rest)
	case "TLS":
		t.use(tls.Client(t.Conn, &tls.Config{InsecureSkipVerify: true}))
	case "NEW":
		t.hangup()
		t.connect(rest)
	case "KEEP":
		t.before = append(t.before, t.dialogue)
		t.connect(rest)
	case "", "#":
	default:
		return fmt.Errorf("not a line of a dialogue: %s", line)
	}
	return nil
}

// hear compares one whole reply. Writing may fail where the server has hung up; what it said
// before counts all the same.
func (t *talk) hear(pattern string) error {
	t.err = nil
	var lines []string
	for more := true; more; {
		line := strings.TrimSuffix(t.line(), "\n")
		if t.err != nil {
			line = "EOF"
		}
		lines = append(lines, line)
		more = len(line) > 3 && line[3] == '-'
	}
	got := strings.Join(lines, `\n`)
	glob := "^" + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, ".*") + "$"
	if !regexp.MustCompile(glob).MatchString(got) {
		return fmt.Errorf("got  %s\nwant %s", got, pattern)
	}
	return nil
}
