package smtpd_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-smtp"

	"relayd/relay"
	"relayd/relay/smtpd"
)

// The fourteen defects of go-smtp v0.25.1's server. Each test runs twice: beneath the guard it
// must pass, and on go-smtp alone it must fail. When it does not fail any longer, go-smtp has
// been mended and the guard's part can go.
func defect(t *testing.T, limits smtpd.Limits, run func(t testing.TB, s subject)) {
	t.Run("guarded", func(t *testing.T) { run(t, guarded(t, limits)) })
	t.Run("bare", func(t *testing.T) {
		if !fails(t, func(t testing.TB) { run(t, bare(t, limits)) }) {
			t.Error("go-smtp passes without the guard")
		}
	})
}

// subject is a server under test.
type subject struct {
	*office
	dial     func(t testing.TB) *client
	shutdown func(context.Context) error
	writes   func() int // by the server
	most     func() int // octets in one of them
}

func guarded(t *testing.T, l smtpd.Limits) subject {
	o, ln := &office{}, newPipes()
	c := config(o)
	c.Limits = l
	s := smtpd.New(c)
	go s.Serve(context.Background(), ln)
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		s.Shutdown(ctx)
	})
	return subject{o, func(t testing.TB) *client { return pipeClient(t, ln, 20*time.Second) }, s.Shutdown, ln.count, ln.most}
}

func bare(t testing.TB, l smtpd.Limits) subject {
	o, ln := &office{}, newPipes()
	s := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &naive{office: o}, nil }))
	s.TLSConfig, s.EnableSMTPUTF8 = serverTLS(), true
	s.MaxMessageBytes, s.ReadTimeout = l.MessageSize, l.DataTimeout
	s.ErrorLog = quiet{}
	served := make(chan struct{})
	go func() { s.Serve(ln); close(served) }()
	t.Cleanup(func() {
		s.Close()
		ln.kill()
		<-served
	})
	return subject{o, func(t testing.TB) *client { return pipeClient(t, ln, 500*time.Millisecond) }, s.Shutdown, ln.count, ln.most}
}

// naive is a go-smtp session as one would write it.
type naive struct {
	office *office
	tx     relay.Transaction
}

func (n *naive) Mail(from string, o *smtp.MailOptions) (err error) {
	n.tx, err = n.office.Begin(context.Background(), relay.Origin{}, loose(from), relay.MailParams{UTF8: o.UTF8})
	return err
}
func (n *naive) Rcpt(to string, _ *smtp.RcptOptions) error {
	return n.tx.Rcpt(context.Background(), loose(to), relay.RcptParams{})
}
func (n *naive) Data(r io.Reader) error {
	_, err := n.tx.Receive(context.Background(), r)
	return err
}
func (n *naive) Reset()        {}
func (n *naive) Logout() error { return nil }

func loose(s string) relay.Address {
	i := strings.LastIndexByte(s, '@')
	return relay.Address{Local: s[:max(i, 0)], Domain: relay.Domain(s[i+1:])}
}

type quiet struct{}

func (quiet) Printf(string, ...any) {}
func (quiet) Println(...any)        {}

// fails runs a test and says whether it failed.
func fails(t testing.TB, run func(testing.TB)) bool {
	trial := &trial{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		run(trial)
	}()
	<-done
	return trial.failed
}

type trial struct {
	testing.TB
	failed bool
}

func (t *trial) Error(...any)          { t.failed = true }
func (t *trial) Errorf(string, ...any) { t.failed = true }
func (t *trial) Fatal(...any)          { t.failed = true; runtime.Goexit() }
func (t *trial) Fatalf(string, ...any) { t.failed = true; runtime.Goexit() }

func TestDefect_01_TruncatedChunkIsNoLetter(t *testing.T) {
	t.Parallel()
	defect(t, smtpd.Limits{}, func(t testing.TB, s subject) {
		c := s.dial(t)
		c.begin()
		c.send("BDAT 5000 LAST\r\nonly fourteen.")
		c.conn.Close()
		if got := c.settled(s); got != 0 {
			t.Errorf("%d letters accepted", got)
		}
	})
}

// settled counts the letters once the server has noticed that the client is gone.
func (c *client) settled(s subject) int {
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); runtime.Gosched() {
		s.mu.Lock()
		n, aborted := len(s.letters), s.aborted
		s.mu.Unlock()
		if n > 0 || aborted > 0 {
			return n
		}
	}
	return 0
}

func TestDefect_02_CRBeforeTheEndDoesNotHideIt(t *testing.T) {
	t.Parallel()
	defect(t, smtpd.Limits{}, func(t testing.TB, s subject) {
		c := s.dial(t)
		c.begin()
		c.do("DATA", "354*")
		c.send("text\r\r\n.\r\n")
		c.want("550 5.6.0 the message contains a bare CR *")
		c.send("MAIL FROM:<x@y.example>\r\nRCPT TO:<ann@office.example>\r\nDATA\r\n")
		c.want("250*", "250*", "354*")
		c.do("next\r\n.", "250*")
		if l := s.all(); len(l) != 1 || l[0].body != "next\r\n" {
			t.Errorf("got %v", l)
		}
	})
}

func TestDefect_03_AfterATimeoutTheBodyIsNoCommands(t *testing.T) {
	inBubbles(t, smtpd.Limits{DataTimeout: time.Minute}, func(t testing.TB, s subject) {
		c := s.dial(t)
		c.begin()
		c.do("DATA", "354*")
		c.send("text\r\n")
		time.Sleep(time.Minute + time.Second)
		go io.WriteString(c.conn, "MAIL FROM:<smuggled@y.example>\r\nRCPT TO:<ann@office.example>\r\nDATA\r\nx\r\n.\r\n")
		c.want("421 4.4.2 *", "EOF")
		time.Sleep(time.Second)
		if l := s.all(); len(l) != 0 {
			t.Errorf("got %v", l)
		}
	})
}

// inBubbles is defect in two bubbles of fake time.
func inBubbles(t *testing.T, l smtpd.Limits, run func(t testing.TB, s subject)) {
	t.Run("guarded", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := guarded(t, l)
			s.slow()
			run(t, s)
		})
	})
	t.Run("bare", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := bare(t, l)
			s.slow()
			if !fails(t, func(t testing.TB) { run(t, s) }) {
				t.Error("go-smtp passes without the guard")
			}
		})
	})
}

// slow lets clients wait as long as they like.
func (s *subject) slow() {
	dial := s.dial
	s.dial = func(t testing.TB) *client {
		c := dial(t)
		c.conn.SetDeadline(time.Time{})
		return c
	}
}

func TestDefect_04_ChunksAreOctetsAndNoCommands(t *testing.T) {
	t.Parallel()
	t.Run("without LF", func(t *testing.T) {
		defect(t, smtpd.Limits{}, func(t testing.TB, s subject) {
			c := s.dial(t)
			c.begin()
			text := strings.Repeat("x", 3000)
			c.send("BDAT 3000\r\n" + text)
			c.want("250*")
			c.send("BDAT 0 LAST\r\n")
			c.want("250*")
			if l := s.all(); len(l) != 1 || l[0].body != text {
				t.Errorf("got %d letters", len(l))
			}
		})
	})
	for _, bad := range []string{"BDAT 0x10 LAST", "BDAT -1", "BDAT +1", "BDAT", "BDAT 10 FIRST", "BDAT 10 LAST LAST", "BDAT 100000000000000000000"} {
		t.Run(bad, func(t *testing.T) {
			defect(t, smtpd.Limits{}, func(t testing.TB, s subject) {
				c := s.dial(t)
				c.begin()
				go io.WriteString(c.conn, bad+"\r\nMAIL FROM:<smuggled@y.example>\r\n")
				c.want("501 5.5.4*", "EOF")
			})
		})
	}
}

func TestDefect_05_LongLines(t *testing.T) {
	t.Parallel()
	t.Run("data", func(t *testing.T) {
		defect(t, smtpd.Limits{}, func(t testing.TB, s subject) {
			c := s.dial(t)
			c.begin()
			c.do("DATA", "354*")
			text := strings.Repeat("x", 1<<20) + "\r\n"
			c.send(text + ".\r\n")
			c.want("250*")
			if l := s.all(); len(l) != 1 || l[0].body != text {
				t.Error("the line did not arrive")
			}
		})
	})
	t.Run("command", func(t *testing.T) {
		defect(t, smtpd.Limits{}, func(t testing.TB, s subject) {
			c := s.dial(t)
			c.want("220*")
			c.do("NOOP "+strings.Repeat("x", 3000), "500 5.5.2*")
			c.do("NOOP", "250*")
			c.do("NOOP "+strings.Repeat("x", 300_000), "500 5.5.2*")
			c.do("NOOP", "250*")
		})
	})
	t.Run("auth", func(t *testing.T) {
		defect(t, smtpd.Limits{}, func(t testing.TB, s subject) {
			c := s.dial(t)
			c.want("220*")
			c.startTLS()
			c.do("EHLO c.example", "250*")
			c.do("AUTH PLAIN", "334 ")
			c.do(strings.Repeat("AGFu", 3000), "501 5.5.2*")
			c.do("AUTH PLAIN "+strings.Repeat("AGFu", 3000), "501 5.5.2*")
			c.do("AUTH PLAIN", "334 ")
			c.do(strings.Repeat("AGFu", 3100), "500 5.5.2*")
			c.do("NOOP", "250*")
		})
	})
}

func TestDefect_06_NestedMailAndPostmaster(t *testing.T) {
	t.Parallel()
	t.Run("nested", func(t *testing.T) {
		defect(t, smtpd.Limits{}, func(t testing.TB, s subject) {
			c := s.dial(t)
			c.begin()
			c.do("MAIL FROM:<z@y.example>", "503 5.5.1*")
			c.do("BDAT 0 LAST", "250*")
			if l := s.all(); len(l) != 1 || l[0].from.Local != "x" {
				t.Errorf("got %v", l)
			}
		})
	})
	t.Run("postmaster", func(t *testing.T) {
		defect(t, smtpd.Limits{}, func(t testing.TB, s subject) {
			c := s.dial(t)
			c.begin()
			c.do("RCPT TO:<Postmaster>", "250 2.1.5*")
			c.do("BDAT 0 LAST", "250*")
			if l := s.all(); len(l) != 1 || l[0].rcpts[1] != relay.Postmaster {
				t.Errorf("got %v", l)
			}
		})
	})
}

func TestDefect_07_Addresses(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		`<"a> NOTIFY=NEVER ORCPT=rfc822;x"@y.example>`: `<"a> NOTIFY=NEVER ORCPT=rfc822;x"@y.example>`,
		`<"a@b"@c.example>`:                            `<"a@b"@c.example>`,
		`<@x.example,@y.example:z@c.example>`:          `<z@c.example>`,
		"<a\x01b@c.example>":                           "553 5.1.3 the address contains a control character",
		"<a\x7fb@c.example>":                           "553 5.1.3*",
		"<a@b@c.example>":                              "553 5.1.3*",
		"<jürgen@c.example>":                           "553 5.6.7*",
		"<" + strings.Repeat("x", 300) + "@c.d>":       "553 5.1.3 the local part is longer than 64 octets",
		"<a@" + strings.Repeat("x.", 128) + "c>":       "553 5.1.3 the domain is longer than 255 octets*",
		"<" + strings.Repeat("x", 64) + "@" + strings.Repeat("x.", 100) + "c>": "553 5.1.3 the address is longer than 256 octets",
		"<a b@c.example>": "501 5.1.3*",
		"<a@>":            "501 5.1.3*",
		"<a@.>":           "501 5.1.3*",
	} {
		defectUnlessStrict(t, path, want)
	}
}

func defectUnlessStrict(t *testing.T, path, want string) {
	run := func(t testing.TB, s subject) {
		c := s.dial(t)
		c.begin()
		if want[0] == '5' {
			c.do("RCPT TO:"+path, want)
			c.do("RSET", "250*")
			c.do("MAIL FROM:"+path, strings.Replace(want, "5.1.3", "5.1.7", 1))
			return
		}
		c.do("RCPT TO:"+path, "250*")
		c.do("BDAT 0 LAST", "250*")
		if got := s.all()[0].rcpts[1].Path(); got != want {
			t.Errorf("%s arrived as %s", path, got)
		}
	}
	name := fmt.Sprintf("%.30q", path)
	if strings.HasPrefix(path, "<@") {
		// go-smtp gets this one right.
		t.Run(name, func(t *testing.T) { run(t, guarded(t, smtpd.Limits{})) })
		return
	}
	t.Run(name, func(t *testing.T) { defect(t, smtpd.Limits{}, run) })
}

func TestDefect_08_BareNewlinesAndNUL(t *testing.T) {
	t.Parallel()
	for text, what := range map[string]string{"a\rb": "a bare CR", "a\nb": "a bare LF", "a\x00b": "a NUL", "a\n\rb": "a bare LF"} {
		for _, how := range []string{"DATA", "BDAT"} {
			t.Run(fmt.Sprintf("%s %q", how, text), func(t *testing.T) {
				defect(t, smtpd.Limits{}, func(t testing.TB, s subject) {
					c := s.dial(t)
					c.begin()
					if how == "DATA" {
						c.do("DATA", "354*")
						c.send(text + "\r\n.\r\n")
					} else {
						c.send("BDAT 4 LAST\r\n" + (text + "\r\n")[:4])
					}
					c.want("550 5.6.0 the message contains " + what + "*")
					c.do("NOOP", "250*")
					if len(s.all()) != 0 {
						t.Error("accepted")
					}
				})
			})
		}
	}
	t.Run("command", func(t *testing.T) {
		defect(t, smtpd.Limits{}, func(t testing.TB, s subject) {
			c := s.dial(t)
			c.want("220*")
			c.send("EHLO c.example\n")
			c.want("500 5.5.2 *")
			c.send("NOOP\rNOOP\r\n")
			c.want("500 5.5.2 *")
			c.send("NOOP \x00\r\n")
			c.want("500 5.5.2 *")
			c.do("NOOP", "250*")
		})
	})
}

func TestDefect_09_SlowLettersAndFullSize(t *testing.T) {
	t.Run("slow", func(t *testing.T) {
		inBubbles(t, smtpd.Limits{DataTimeout: time.Minute, MinRate: -1}, func(t testing.TB, s subject) {
			c := s.dial(t)
			c.begin()
			c.do("DATA", "354*")
			for range 10 {
				time.Sleep(50 * time.Second)
				c.send("another line\r\n")
			}
			c.do(".", "250*")
		})
	})
	t.Run("full size", func(t *testing.T) {
		defect(t, smtpd.Limits{MessageSize: 10}, func(t testing.TB, s subject) {
			c := s.dial(t)
			c.begin()
			c.do("DATA", "354*")
			c.do("12345678\r\n.", "250*")
		})
	})
}

func TestDefect_10_ErrorsAreTemporaryUnlessKnown(t *testing.T) {
	t.Parallel()
	for sender, want := range map[string]string{
		"full":    "452 4.3.1 our disk is full",
		"wrapped": "552 5.2.2 the mailbox is full",
		"broken":  "451 4.3.0 something went wrong here, please try again later",
		"liar":    "451 4.3.0*",
	} {
		t.Run(sender, func(t *testing.T) {
			run := func(t testing.TB, s subject) {
				c := s.dial(t)
				c.want("220*")
				c.do("EHLO c.example", "250*")
				c.do("MAIL FROM:<"+sender+"@y.example>", want)
				c.do("MAIL FROM:<x@y.example>", "250*")
				c.do("RCPT TO:<"+sender+"@y.example>", want)
			}
			defect(t, smtpd.Limits{}, run)
		})
	}
	for sender, want := range map[string]string{"early": "554 5.4.6*", "late": "451 4.3.0 something went wrong here*"} {
		t.Run(sender, func(t *testing.T) {
			defect(t, smtpd.Limits{}, func(t testing.TB, s subject) {
				c := s.dial(t)
				c.want("220*")
				c.do("EHLO c.example", "250*")
				for _, how := range []string{"DATA\r\ntext\r\nNOOP\r\n.\r\n", "BDAT 6\r\nNOOP\r\nBDAT 6 LAST\r\nNOOP\r\n"} {
					c.send("MAIL FROM:<" + sender + "@y.example>\r\nRCPT TO:<ann@office.example>\r\n" + how)
					c.want("250*", "250*")
					switch {
					case how[0] == 'D':
						c.want("354*", want)
					case sender == "early":
						c.want(want, "503*")
					default:
						c.want("250*", want)
					}
				}
				c.do("NOOP", "250 2.0.0 ok")
			})
		})
	}
}

func TestDefect_11_ShutdownPanicAnd421(t *testing.T) {
	t.Parallel()
	t.Run("idle", func(t *testing.T) {
		defect(t, smtpd.Limits{}, func(t testing.TB, s subject) {
			c := s.dial(t)
			c.want("220*")
			c.do("EHLO c.example", "250*")
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			done := make(chan error, 1)
			go func() { done <- s.shutdown(ctx) }()
			c.want("421 4.3.2 *", "EOF")
			if err := <-done; err != nil {
				t.Errorf("shutdown: %v", err)
			}
		})
	})
	t.Run("421", func(t *testing.T) {
		defect(t, smtpd.Limits{}, func(t testing.TB, s subject) {
			c := s.dial(t)
			c.want("220*")
			c.do("EHLO c.example", "250*")
			c.do("MAIL FROM:<busy@y.example>", "421 4.3.2 not now")
			c.want("EOF")
		})
	})
	// A panic in go-smtp's Logout ends the process, so only the guarded server can be asked.
	for _, where := range []string{"MAIL FROM:<panic@y.example>", "RCPT TO:<panic@y.example>", "DATA"} {
		t.Run(where, func(t *testing.T) {
			s := guarded(t, smtpd.Limits{})
			c := s.dial(t)
			c.want("220*")
			c.do("EHLO c.example", "250*")
			if where[0] != 'M' {
				c.do("MAIL FROM:<early-panic@y.example>", "250*")
			}
			if where[0] == 'D' {
				c.do("RCPT TO:<ann@y.example>", "250*")
				c.do("DATA", "354*")
				c.want("421*", "EOF")
			} else {
				c.do(where, "421*")
				c.want("EOF")
			}
			s.dial(t).want("220*")
		})
	}
	t.Run("Logout", func(t *testing.T) {
		s := guarded(t, smtpd.Limits{})
		c := s.dial(t)
		c.want("220*")
		c.do("EHLO c.example", "250*")
		c.do("MAIL FROM:<abort-panic@y.example>", "250*")
		c.conn.Close()
		if n := c.settled(s); n != 0 {
			t.Errorf("%d letters", n)
		}
		s.dial(t).want("220*")
	})
}

func TestDefect_12_HooksAndLimits(t *testing.T) {
	t.Parallel()
	defect(t, smtpd.Limits{ConnectionsPerAddress: 1}, func(t testing.TB, s subject) {
		c := s.dial(t)
		c.want("220*")
		s.dial(t).want("421 4.7.0 too many connections from your address*", "EOF")
		c.do("EXPN staff", "502 5.5.1*")
		c.do("HELP", "214*")
		c.do("HELO c.example", "250*")
		c.do("MAIL FROM:<x@y.example> XYZZY", "555 5.5.4*")
		c.do("MAIL FROM:<x@y.example>", "250*")
		c.do("RCPT TO:<ann@y.example>", "250*")
		c.do("BDAT 0 LAST", "250*")
		if p := s.all()[0].origin.Proto; p != "SMTP" {
			t.Errorf("HELO looks like %s", p)
		}
	})
}

func TestDefect_13_OneWriteABatch(t *testing.T) {
	t.Parallel()
	defect(t, smtpd.Limits{}, func(t testing.TB, s subject) {
		c := s.dial(t)
		c.want("220*")
		before := s.writes()
		c.do("EHLO c.example", "250*")
		if n := s.writes() - before; n != 1 {
			t.Errorf("EHLO took %d writes", n)
		}
		before = s.writes()
		c.send("MAIL FROM:<x@y.example>\r\n" + strings.Repeat("RCPT TO:<ann@office.example>\r\n", 50) + "DATA\r\n")
		for range 51 {
			c.want("250*")
		}
		c.want("354*")
		if n := s.writes() - before; n > 2 {
			t.Errorf("the batch took %d writes", n)
		}
	})
}

func TestDefect_14_TheReplyNamesTheID(t *testing.T) {
	t.Parallel()
	defect(t, smtpd.Limits{}, func(t testing.TB, s subject) {
		c := s.dial(t)
		c.begin()
		c.do("DATA", "354*")
		c.do(".", "250 2.0.0 queued as 0123456789abcdef")
	})
}

// pipes is a listener of buffered in-memory connections, so that it works in a bubble too.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
	all   []*countingConn
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 25} }

func (p *pipes) count() int {
	n := 0
	for _, c := range p.all {
		n += int(c.writes.Load())
	}
	return n
}

func (p *pipes) most() int {
	n := 0
	for _, c := range p.all {
		n = max(n, int(c.most.Load()))
	}
	return n
}

func (p *pipes) kill() {
	for _, c := range p.all {
		c.Conn.Close()
	}
}

func pipeClient(t testing.TB, p *pipes, patience time.Duration) *client {
	t.Helper()
	near, far := net.Pipe()
	server := &countingConn{Conn: far, remote: net.TCPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.9:4000"))}
	p.all = append(p.all, server)
	select {
	case p.conns <- server:
	case <-p.done:
		t.Fatal("the listener is closed")
	}
	t.Cleanup(func() { near.Close() })
	near.SetDeadline(time.Now().Add(patience))
	return newClient(t, buffered(t, near))
}
