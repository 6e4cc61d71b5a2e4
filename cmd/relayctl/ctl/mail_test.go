package ctl

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"relayd/pop3"
	"relayd/relay"
)

const testPassword = "a secret of ann"

// office is a person's world: an SMTP server that plays by a script and relayd's own POP3.
type office struct {
	t          *testing.T
	smtp, pop3 string
	env        map[string]string
	terminal   bool

	mu       sync.Mutex
	commands []string // what the SMTP server was told
	letters  []string // what it took, octets as on the wire without the dots
	box      []string // the mailbox, CRLF
	offers   []string // what EHLO answers
	cert     *tls.Config
}

func newOffice(t *testing.T, box ...string) *office {
	t.Helper()
	web := httptest.NewTLSServer(nil)
	web.Close()
	o := &office{t: t, box: box, env: map[string]string{passwordVariable: testPassword},
		offers: []string{"SIZE 1000000", "8BITMIME", "SMTPUTF8"},
		cert:   &tls.Config{Certificates: web.TLS.Certificates}}
	o.smtp = listen(t, o.serveSMTP)
	o.pop3 = o.servePOP3()
	return o
}

// listen serves connections one at a time.
func listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			conn.SetDeadline(time.Now().Add(20 * time.Second))
			serve(conn)
			conn.Close()
		}
	})
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	return ln.Addr().String()
}

// run runs relayctl; the two streams together are what a person sees.
func (o *office) run(stdin string, args ...string) (status int, out, seen string) {
	o.t.Helper()
	var stdout, screen bytes.Buffer
	status = Run(o.t.Context(), args, Env{
		Stdin: strings.NewReader(stdin), Stdout: io.MultiWriter(&stdout, &screen), Stderr: &screen,
		Getenv:     func(name string) string { return o.env[name] },
		Now:        func() time.Time { return time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC) },
		TerminalIn: o.terminal, TerminalErr: o.terminal,
		ReadPassword: func(context.Context) (string, error) { return testPassword, nil },
	})
	return status, stdout.String(), screen.String()
}

func (o *office) want(status int, stdin string, args ...string) (out, seen string) {
	o.t.Helper()
	got, out, seen := o.run(stdin, args...)
	if got != status {
		o.t.Fatalf("relayctl %q: status %d, want %d\n%s", args, got, status, seen)
	}
	return out, seen
}

// serveSMTP refuses recipients called nobody, and logs everybody in.
func (o *office) serveSMTP(conn net.Conn) {
	in := bufio.NewReader(conn)
	say := func(format string, args ...any) { fmt.Fprintf(conn, format+"\r\n", args...) }
	say("220 here")
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSuffix(line, "\r\n")
		o.note(line)
		switch verb, _, _ := strings.Cut(line, " "); verb {
		case "EHLO":
			say("250-here\r\n250-%s\r\n250 HELP", strings.Join(o.offers, "\r\n250-"))
		case "STARTTLS":
			say("220 go")
			secure := tls.Server(conn, o.cert)
			conn, in = secure, bufio.NewReader(secure)
		case "AUTH":
			say("235 hello")
		case "DATA":
			say("354 go on")
			o.take(in)
			say("250 2.0.0 queued as 01m7y8dk4z2y4c9c")
		case "QUIT":
			say("221 bye")
			return
		default:
			if strings.Contains(line, "nobody") {
				say("550-5.1.1 there is\r\n550 5.1.1 no mailbox nobody")
				continue
			}
			say("250 fine")
		}
	}
}

func (o *office) take(in *bufio.Reader) {
	text, last := "", ""
	for last != ".\r\n" {
		var err error
		if last, err = in.ReadString('\n'); err != nil {
			return
		}
		text += last
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.letters = append(o.letters, strings.TrimSuffix(text, ".\r\n"))
}

func (o *office) note(line string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.commands = append(o.commands, line)
}

// told, taken and holds are copies: the servers may still be at work.
func (o *office) told() []string  { return o.copyOf(&o.commands) }
func (o *office) taken() []string { return o.copyOf(&o.letters) }
func (o *office) holds() []string { return o.copyOf(&o.box) }

func (o *office) copyOf(list *[]string) []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(*list)
}

func (o *office) servePOP3() string {
	s := pop3.New(pop3.Config{Auth: o, TLS: o.cert, Hostname: "mail.office.test",
		PlaintextOK: func(netip.Addr) bool { return true },
		Open: func(context.Context, relay.Address, netip.Addr) (pop3.Maildrop, error) {
			return &maildrop{office: o, letters: o.holds()}, nil
		},
		Limits: pop3.Limits{FailedDelay: time.Millisecond},
		Log:    slog.New(slog.DiscardHandler)})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		o.t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { s.Serve(context.Background(), ln, false) })
	o.t.Cleanup(func() { s.Shutdown(context.Background()); wg.Wait() })
	return ln.Addr().String()
}

// Authenticate lets ann in.
func (o *office) Authenticate(_ context.Context, name, password string, _ netip.Addr) (relay.Address, error) {
	if name != "ann@office.test" || password != testPassword {
		return relay.Address{}, relay.ErrDenied
	}
	return relay.Address{Local: "ann", Domain: "office.test"}, nil
}

// maildrop is the mailbox in a session.
type maildrop struct {
	office  *office
	letters []string
}

func (d *maildrop) Messages() []pop3.Message {
	var list []pop3.Message
	for _, text := range d.letters {
		list = append(list, pop3.Message{UID: fmt.Sprintf("u%d", len(text)), Size: int64(len(text))})
	}
	return list
}
func (d *maildrop) Open(n int) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(d.letters[n-1])), nil
}
func (d *maildrop) Seen(int)     {}
func (d *maildrop) Close() error { return nil }
func (d *maildrop) Remove(n ...int) error {
	d.office.mu.Lock()
	defer d.office.mu.Unlock()
	for _, i := range n {
		gone := d.letters[i-1]
		d.office.box = slices.DeleteFunc(d.office.box, func(s string) bool { return s == gone })
	}
	return nil
}

const letterOfJohn = "Return-Path: <john@test.com>\r\n" +
	"Received: from x by mail.office.test with SMTP id 1;\r\n\tFri, 15 Aug 2025 12:00:00 +0000\r\n" +
	"From: =?utf-8?q?J=C3=B6hn?= <john@test.com>\r\nTo: ann@office.test\r\nDate: Mon, 1 Jan 2024 12:00:00 +0000\r\n" +
	"Subject: hello\r\n\r\nfirst line\r\n.dot\r\n"

const letterOfMallory = "From: mallory\x1b]0;owned\x07@test.com\r\nSubject: \x1b[2J\xe2\x80\xaegnp.exe\r\n\r\n\x1b[31mred\r\n"

func TestSeed_S1_3_PasswordIsNeverAnArgument(t *testing.T) {
	t.Parallel()
	o := newOffice(t, letterOfJohn)
	o.want(exitDone, "", "mail", "ls", "--server", o.pop3, "ann@office.test")
	o.env = nil
	o.want(exitDone, testPassword+"\n", "mail", "ls", "--server", o.pop3, "--password-stdin", "--user", "ann@office.test")
	_, seen := o.want(exitUsage, "", "mail", "ls", "--server", o.pop3, "ann@office.test")
	if !strings.Contains(seen, "RELAYD_PASSWORD") {
		t.Error(seen)
	}
	o.terminal = true
	o.want(exitDone, "", "mail", "ls", "--server", o.pop3, "ann@office.test")
	o.env = map[string]string{passwordVariable: "pa55word"}
	_, seen = o.want(exitFailed, "", "mail", "ls", "--server", o.pop3, "ann@office.test")
	if !strings.Contains(seen, "login as ann@office.test") || strings.Contains(seen, "pa55word") {
		t.Error(seen)
	}
}

func TestSeed_S1_4_Menu(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	o.terminal = true
	_, seen := o.want(exitDone, "9\n3\nnot read\n", "mail", "--smtp", o.smtp, "--pop3", o.pop3, "--user", "ann@office.test")
	for _, s := range []string{"1  manage mail\n", "2  send mail\n", "3  quit\n", "type 1, 2 or 3"} {
		if !strings.Contains(seen, s) {
			t.Errorf("no %q in\n%s", s, seen)
		}
	}
	_, seen = o.want(exitDone, o.smtp+"\nnonsense\n"+o.pop3+"\nann@office.test\n", "mail", "--config", filepath.Join(t.TempDir(), "none"))
	if !strings.Contains(seen, "POP3 server (HOST:PORT): ") {
		t.Error(seen)
	}
	o.terminal = false
	o.want(exitUsage, "", "mail", "--smtp", o.smtp, "--pop3", o.pop3)
}

func TestSeed_S1_5_ManageMail(t *testing.T) {
	t.Parallel()
	o := newOffice(t, letterOfJohn, letterOfMallory, "Subject: third\r\n\r\n3\r\n")
	o.terminal = true
	_, seen := o.want(exitDone, "1\n1\nd\nl\nd 2\nd 2\n-1\n3\n", "mail", "--smtp", o.smtp, "--pop3", o.pop3, "--user", "ann@office.test")
	for _, s := range []string{"3 letters", "Jöhn <john@test.com>", "From: Jöhn <john@test.com>\n", "Date: Mon, 1 Jan 2024",
		"\n\nfirst line\n.dot\n", "deleted letter 1\n", "2 letters", "deleted letter 2\n", "there is no letter 2\n"} {
		if !strings.Contains(seen, s) {
			t.Errorf("no %q in\n%s", s, seen)
		}
	}
	if len(o.holds()) != 1 || o.holds()[0] != letterOfMallory {
		t.Errorf("the mailbox holds %q", o.holds())
	}
}

func TestSeed_S1_5_NumbersKeepTheirLetterWhenOthersGo(t *testing.T) {
	t.Parallel()
	o := newOffice(t, letterOfJohn, letterOfMallory, "Subject: third\r\n\r\n3\r\n")
	o.terminal = true
	o.want(exitDone, "1\nd 1\nd 3\n", "mail", "--smtp", o.smtp, "--pop3", o.pop3, "--user", "ann@office.test")
	if len(o.holds()) != 1 || o.holds()[0] != letterOfMallory {
		t.Errorf("the mailbox holds %q", o.holds())
	}
}

func TestSeed_S1_6_SendForm(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	o.terminal = true
	form := "2\neve@office.test\n\nbob at office\nbob@\nbob@a@b\nbob@office.test, eve@partner.example\nHello\n.first\n..\nlast\n.\n3\n"
	_, seen := o.want(exitDone, form, "mail", "--smtp", o.smtp, "--pop3", o.pop3, "--user", "ann@office.test")
	for _, s := range []string{"letters come from you", "no spaces", "nothing behind the @", "exactly one @",
		"Enter your message (end with a single dot '.')", "250 2.0.0 queued as"} {
		if !strings.Contains(seen, s) {
			t.Errorf("no %q in\n%s", s, seen)
		}
	}
	want := []string{"MAIL FROM:<ann@office.test>", "RCPT TO:<bob@office.test>", "RCPT TO:<eve@partner.example>"}
	for i, line := range o.told()[1:4] {
		// SMTPUTF8 is not for a letter that does without.
		if !strings.HasPrefix(line, want[i]) || strings.Contains(line, "SMTPUTF8") {
			t.Errorf("said %q", line)
		}
	}
	if !strings.HasSuffix(o.taken()[0], "Subject: Hello\r\n\r\n..first\r\n...\r\nlast\r\n") {
		t.Errorf("%q", o.taken()[0])
	}
}

func TestSeed_S1_6_NothingIsSentUnlessChecked(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	for _, args := range [][]string{
		{"--from", "an n@office.test", "--to", "bob@office.test"},
		{"--from", "ann@office.test", "--to", "bob"},
		{"--from", "ann@office.test", "--to", "bob@office.test,,eve@office.test"},
		{"--from", "ann@office.test", "--to", "bob@office.test>\r\nDATA"},
		{"--from", "ann@office.test"},
		{"--to", "ann@office.test"},
		{"--from", "ann@office.test", "--to", "bob@office.test", "--subject", "a\nBcc: b"},
		{"--from", "ann@office.test", "--to", "bob@office.test", "--password-stdin"},
	} {
		o.want(exitUsage, "Subject: x\n\nx\n", append([]string{"mail", "send", "--server", o.smtp}, args...)...)
	}
	send := []string{"mail", "send", "--server", o.smtp, "--from", "ann@office.test", "--to", "bob@office.test"}
	_, seen := o.want(exitFailed, "no header\n", send...)
	if !strings.Contains(seen, "hint: --subject") {
		t.Error(seen)
	}
	o.want(exitFailed, "", send...)
	o.terminal = true
	o.want(exitFailed, "2\n\nbob@office.test\nHi\ntext without its dot\n", "mail", "--smtp", o.smtp, "--pop3", o.pop3, "--user", "ann@office.test")
	o.want(exitDone, "2\n\n\n3\n", "mail", "--smtp", o.smtp, "--pop3", o.pop3, "--user", "ann@office.test")
	if o.told() != nil {
		t.Errorf("the server was told %q", o.told())
	}
}

func TestSeed_S1_11_OneRefusedRecipientHoldsTheLetterBack(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	_, seen := o.want(exitFailed, "x", "mail", "send", "--server", o.smtp, "--from", "ann@office.test",
		"--to", "bob@office.test", "--to", "nobody@office.test", "--subject", "x")
	if !strings.Contains(seen, "nobody@office.test was refused: 550 5.1.1 there is") || !strings.Contains(seen, "nothing was sent") {
		t.Error(seen)
	}
	if len(o.taken()) != 0 || slices.Contains(o.told(), "DATA") {
		t.Errorf("sent %q", o.taken())
	}
}

func TestMailSendBytes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, in, want string }{
		{"lf", "Subject: a\n\n.\n..\nb", "Subject: a\r\n\r\n..\r\n...\r\nb\r\n"},
		{"crlf", "Subject: a\r\n\r\nb\r\n", "Subject: a\r\n\r\nb\r\n"},
		{"mixed", "Subject: a\r\n\nb\n", "Subject: a\r\n\r\nb\r\n"},
		{"header alone", "Subject: a", "Subject: a\r\n\r\n"},
		{"body alone", "\nb\n", "\r\nb\r\n"},
		{"8-bit", "Subject: a\n\ngr\xfc\xdfe\n", "Subject: a\r\n\r\ngr\xfc\xdfe\r\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := newOffice(t)
			out, _ := o.want(exitDone, c.in, "mail", "send", "--server", o.smtp, "--from", "ann@office.test", "--to", "bob@office.test,eve@office.test")
			if out != "250 2.0.0 queued as 01m7y8dk4z2y4c9c\n" {
				t.Errorf("printed %q", out)
			}
			head := "From: ann@office.test\r\nTo: bob@office.test,\r\n eve@office.test\r\nDate: Sat, 21 Nov 2026 12:00:00 +0000\r\nMessage-ID: <"
			if !strings.HasPrefix(o.taken()[0], head) || !strings.HasSuffix(o.taken()[0], "@office.test>\r\n"+c.want) {
				t.Errorf("sent %q", o.taken()[0])
			}
		})
	}
}

func TestMailSendAddsOnlyWhatIsMissing(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	letter := "from: A <a@b.example>\r\nCC: c@b.example\r\nDate: x\r\nMessage-Id: <1@b>\r\n\r\nbody\r\n"
	file := filepath.Join(t.TempDir(), "letter.eml")
	if err := os.WriteFile(file, []byte(letter), 0o600); err != nil {
		t.Fatal(err)
	}
	out, _ := o.want(exitDone, "", "--json", "mail", "send", "--server", o.smtp, "--from", "ann@office.test", "--to", "bob@office.test", file)
	if o.taken()[0] != letter {
		t.Errorf("sent %q", o.taken()[0])
	}
	if out != `{"verb":"send","id":"01m7y8dk4z2y4c9c","reply":"250 2.0.0 queued as 01m7y8dk4z2y4c9c"}`+"\n" {
		t.Error(out)
	}
}

func TestMailSendUnderTLS(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	o.offers = append(o.offers, "STARTTLS", "AUTH LOGIN PLAIN")
	send := []string{"mail", "send", "--server", o.smtp, "--user", "ann@office.test", "--to", "böb@office.test", "--subject", "x"}
	o.want(exitDone, "grüße\n", send...)
	if o.told()[1] != "STARTTLS" || !strings.HasPrefix(o.told()[3], "AUTH PLAIN ") {
		t.Errorf("said %q", o.told())
	}
	if want := " BODY=8BITMIME SMTPUTF8"; !strings.HasSuffix(o.told()[4], want) {
		t.Errorf("said %q", o.told()[4])
	}
	o.offers = []string{"SIZE", "STARTTLS"}
	if _, seen := o.want(exitFailed, "x\n", send...); !strings.Contains(seen, "no login") {
		t.Error(seen)
	}
}

func TestSeed_S3_2_ListAndGet(t *testing.T) {
	t.Parallel()
	o := newOffice(t, letterOfJohn, letterOfMallory)
	out, _ := o.want(exitDone, "", "mail", "ls", "--server", o.pop3, "ann@office.test")
	if !strings.Contains(out, "1   Jöhn <john@test.com>") || !strings.Contains(out, "2025-08-15") || !strings.HasSuffix(out, "2 letters, "+size(int64(len(letterOfJohn+letterOfMallory)))+"\n") {
		t.Error(out)
	}
	if strings.ContainsAny(out, "\x1b\x07\u202e") {
		t.Errorf("control characters reached the terminal: %q", out)
	}
	out, _ = o.want(exitDone, "", "--json", "mail", "ls", "--server", o.pop3, "ann@office.test")
	if !strings.Contains(out, `"sender":"john@test.com","received":"2025-08-15T12:00:00Z","subject":"hello"`) || strings.ContainsAny(out, "\x1b\x07\u202e") {
		t.Errorf("%q", out)
	}
	out, _ = o.want(exitDone, "", "mail", "get", "--server", o.pop3, "ann@office.test", "1")
	if out != strings.ReplaceAll(letterOfJohn, "\r\n", "\n") {
		t.Errorf("%q", out)
	}
	out, _ = o.want(exitDone, "", "mail", "get", "--raw", "--server", o.pop3, "--user", "ann@office.test", "2")
	if out != letterOfMallory {
		t.Errorf("%q", out)
	}
	for _, n := range []string{"0", "-1", "x", "99999999999999999999"} {
		o.want(exitUsage, "", "mail", "get", "--server", o.pop3, "ann@office.test", "--", n)
	}
	o.want(exitFailed, "", "mail", "get", "--server", o.pop3, "ann@office.test", "3")
}

func TestSeed_S3_4_ListLine(t *testing.T) {
	t.Parallel()
	o := newOffice(t, letterOfJohn)
	out, _ := o.want(exitDone, "", "mail", "ls", "--brief", "--server", o.pop3, "ann@office.test")
	if out != "1: Email from john@test.com (15-08-2025)\n" {
		t.Errorf("%q", out)
	}
}

func TestMailRm(t *testing.T) {
	t.Parallel()
	o := newOffice(t, letterOfJohn, letterOfMallory)
	_, seen := o.want(exitFailed, "", "mail", "rm", "--server", o.pop3, "ann@office.test", "1", "7")
	if len(o.holds()) != 2 || !strings.Contains(seen, "nothing was deleted") {
		t.Errorf("%s left %q", seen, o.holds())
	}
	out, _ := o.want(exitDone, "", "mail", "rm", "--server", o.pop3, "ann@office.test", "1", "1")
	if len(o.holds()) != 1 || out != "deleted 1 letter\n" {
		t.Errorf("%s left %q", out, o.holds())
	}
}

// Every reply here is one that a client must end at and not believe.
func TestMailHostilePOP3(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, says, want string }{
		{"endless line", "+OK " + strings.Repeat("x", 100_000), "too long"},
		{"another protocol", "220 smtp here\r\n", "does not speak POP3"},
		{"drops", "+OK\r\n", "closed the connection"},
		{"LIST of nonsense", "+OK\r\n-ERR\r\n+OK\r\n+OK\r\n+OK\r\n1 -5\r\n.\r\n", "answered LIST with"},
		{"half a letter", "+OK\r\n-ERR\r\n+OK\r\n+OK\r\n+OK\r\n1 5\r\n.\r\n-ERR\r\n+OK\r\nSubject: x\r\n", "unexpected EOF"},
		{"escape in a refusal", "+OK\r\n-ERR\r\n-ERR \x1b[2Jgone\r\n", `\x1b[2Jgone`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := newOffice(t)
			addr := listen(t, func(conn net.Conn) {
				io.WriteString(conn, c.says)
				conn.(*net.TCPConn).CloseWrite()
				io.Copy(io.Discard, conn)
			})
			if _, seen := o.want(exitFailed, "", "mail", "ls", "--server", addr, "ann@office.test"); !strings.Contains(seen, c.want) {
				t.Errorf("%q", seen)
			}
		})
	}
}

func TestMailHostileSMTP(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	addr := listen(t, func(conn net.Conn) {
		for {
			if _, err := io.WriteString(conn, "220-on and on\r\n"); err != nil {
				return
			}
		}
	})
	_, seen := o.want(exitFailed, "x", "mail", "send", "--server", addr, "--from", "a@b.example", "--to", "c@b.example", "--subject", "x")
	if !strings.Contains(seen, errTooMuch.Error()) {
		t.Error(seen)
	}
}

func TestMailEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	addr := listen(t, func(conn net.Conn) {
		io.WriteString(conn, "+OK\r\n")
		conn.Read(make([]byte, 10))
		cancel()
		io.Copy(io.Discard, conn)
	})
	err := endpoint{addr: addr}.maildrop(ctx, "ann", "x", func(*popSession) error { return nil })
	if !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v", err)
	}
}

func TestMailServerOfTheConfiguration(t *testing.T) {
	t.Parallel()
	o := newOffice(t, letterOfJohn)
	file := filepath.Join(t.TempDir(), "relayd.toml")
	text := fmt.Sprintf("hostname = 'mail.office.test'\ndata_dir = %q\n[listen]\nsmtp = %q\npop3 = %q\n[domains.'office.test']\npostmaster = 'ann'\n", t.TempDir(), o.smtp, o.pop3)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	o.want(exitDone, "", "--config", file, "mail", "ls", "ann@office.test")
	o.want(exitDone, "x", "--config", file, "mail", "send", "--from", "ann@office.test", "--to", "bob@office.test", "--subject", "x")
	_, seen := o.want(exitFailed, "", "--config", file+".none", "mail", "ls", "ann@office.test")
	if !strings.Contains(seen, "hint: --server HOST:PORT") {
		t.Error(seen)
	}
	for addr, want := range map[string]string{":25": "127.0.0.1:25", "0.0.0.0:25": "127.0.0.1:25", "[::]:25": "[::1]:25", "192.0.2.1:25": "192.0.2.1:25"} {
		if got := reachable(addr); got != want {
			t.Errorf("%s: %s", addr, got)
		}
	}
}

// farAway is a connection to another machine.
type farAway struct{ net.Conn }

func (farAway) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 110} }

// far plays a server on another machine; told is all it heard.
func far(t *testing.T, says string) (w *wire, told func() string) {
	client, server := net.Pipe()
	var heard bytes.Buffer
	var wg sync.WaitGroup
	wg.Go(func() { io.WriteString(server, says) })
	wg.Go(func() { io.Copy(&heard, server) })
	w = &wire{Conn: farAway{client}, patience: 5 * time.Second, left: -1, release: func() bool { return true }}
	told = func() string { w.Close(); server.Close(); wg.Wait(); return heard.String() }
	t.Cleanup(func() { told() })
	return w, told
}

func TestMailPasswordNeverTravelsInTheClear(t *testing.T) {
	t.Parallel()
	e := endpoint{addr: "mail.office.test:110"}
	w, told := far(t, "+OK\r\n+OK\r\nTOP\r\n.\r\n")
	if err := (&popSession{endpoint: e, wire: w}).open(t.Context()); err == nil || !strings.Contains(err.Error(), "in the clear") {
		t.Errorf("%v", err)
	}
	if got := told(); got != "CAPA\r\n" {
		t.Errorf("told %q", got)
	}
	w, _ = far(t, "220 x\r\n250-x\r\n250 AUTH PLAIN\r\n")
	s, err := e.greet(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.login(login{user: "ann", password: "x", optional: true}); err == nil || !strings.Contains(err.Error(), "in the clear") {
		t.Errorf("%v", err)
	}
}

func TestMailWordsBehindSTLSAreNotBelieved(t *testing.T) {
	t.Parallel()
	w, _ := far(t, "+OK\r\n+OK\r\nSTLS\r\n.\r\n+OK\r\n+OK forged\r\n")
	err := (&popSession{endpoint: endpoint{addr: "mail.office.test:110"}, wire: w}).open(t.Context())
	if err == nil || !strings.Contains(err.Error(), "out of turn") {
		t.Errorf("%v", err)
	}
}

func TestMailCertificateOfOthersIsChecked(t *testing.T) {
	t.Parallel()
	w, _ := far(t, "")
	if c := (endpoint{addr: "mail.office.test:110"}).tlsConfig(w); c.InsecureSkipVerify || c.ServerName != "mail.office.test" {
		t.Errorf("%+v", c)
	}
	insecure := endpoint{addr: "mail.office.test:110", transport: transport{insecure: true}}
	if !insecure.tlsConfig(w).InsecureSkipVerify {
		t.Error("--insecure does nothing")
	}
}

// A terminal gets no letter raw, whatever the flags.
func TestMailGetOnATerminal(t *testing.T) {
	t.Parallel()
	for _, raw := range []bool{false, true} {
		var screen bytes.Buffer
		a := &app{Env: Env{Stdout: &screen, TerminalOut: true}}
		if err := a.printLetter(strings.NewReader(letterOfMallory), raw); err != nil {
			t.Fatal(err)
		}
		if strings.ContainsAny(screen.String(), "\x1b\x07\r") || !strings.Contains(screen.String(), `\x1b[31mred`) {
			t.Errorf("%q", screen.String())
		}
	}
}
