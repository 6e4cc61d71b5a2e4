package pop3_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"relayd/pop3"
	"relayd/relay"
)

const login = "S: +OK*\nC: USER ann@office.example\nS: +OK*\nC: PASS secret word\nS: +OK*\n"

func letters(data ...string) *fakeBox {
	b := &fakeBox{}
	for _, d := range data {
		b.letters = append(b.letters, &fakeLetter{data: d})
	}
	return b
}

// ended says that the server has closed the connection, after some last words perhaps.
func ended(t *testing.T, conn net.Conn) string {
	t.Helper()
	rest, err := io.ReadAll(conn)
	if err != nil && !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("end: %v", err)
	}
	return string(rest)
}

// STLS works, what was said before it is forgotten, and it is not offered twice.
func TestSTLS(t *testing.T) {
	t.Parallel()
	s := newServer(t, letters("a\n"))
	conn := connect(t, s, "192.0.2.1")
	talk(t, conn, "S: +OK*\nC: STLS now\nS: -ERR STLS takes no argument*\nC: STLS\nS: +OK begin TLS")
	secure := tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
	talk(t, secure, `C: PASS secret word
S: -ERR USER first
C: STLS
S: -ERR TLS is already active
C: CAPA
S: +OK*
S: TOP
S: UIDL
S: RESP-CODES
S: AUTH-RESP-CODE
S: PIPELINING
S: EXPIRE NEVER
S: UTF8 USER
S: LANG
S: USER
S: SASL PLAIN LOGIN
S: IMPLEMENTATION relayd
S: .
C: USER ann@office.example
S: +OK*
C: PASS secret word
S: +OK*
C: QUIT
S: +OK*`)
}

func TestSTLSForgetsTheName(t *testing.T) {
	t.Parallel()
	conn := connect(t, newServer(t, letters()), "127.0.0.1")
	talk(t, conn, "S: +OK*\nC: USER ann@office.example\nS: +OK*\nC: STLS\nS: +OK*")
	talk(t, tls.Client(conn, &tls.Config{InsecureSkipVerify: true}), "C: PASS secret word\nS: -ERR USER first")
}

// STLS that ends in a bare LF is refused.
func TestSTLSBareLF(t *testing.T) {
	t.Parallel()
	conn := connect(t, newServer(t, letters()), "127.0.0.1")
	talk(t, conn, "S: +OK*")
	io.WriteString(conn, "STLS\n")
	talk(t, conn, "S: -ERR STLS takes no argument*")
}

func TestImplicitTLS(t *testing.T) {
	t.Parallel()
	s := serve(t, config(letters("a\n")), true)
	talk(t, tls.Client(connect(t, s, "192.0.2.1"), &tls.Config{InsecureSkipVerify: true}), login+"C: QUIT\nS: +OK*")
	// Somebody who speaks plain text gets nowhere and the next one is served.
	plain := connect(t, s, "192.0.2.1")
	go io.WriteString(plain, "USER ann@office.example\r\n")
	ended(t, plain)
	talk(t, tls.Client(connect(t, s, "192.0.2.1"), &tls.Config{InsecureSkipVerify: true}), login+"C: QUIT\nS: +OK*")
}

// Commands may come an octet at a time, and replies to commands in one packet come in one write.
func TestSplitAndJoinedCommands(t *testing.T) {
	t.Parallel()
	conn := connect(t, newServer(t, letters("a\n", "b\n")), "127.0.0.1")
	r := bufio.NewReader(conn)
	r.ReadString('\n')
	go func() {
		for _, c := range []byte("USER ann@office.example\r\nPASS secret word\r\n") {
			conn.Write([]byte{c})
		}
	}()
	for range 2 {
		if line, err := r.ReadString('\n'); !strings.HasPrefix(line, "+OK") {
			t.Fatal(line, err)
		}
	}
	io.WriteString(conn, "STAT\nRETR 1\r\nRETR 2\r\nNOOP\r\n")
	buf := make([]byte, 4096)
	n, _ := conn.Read(buf)
	want := "+OK 2 6\r\n+OK 3 octets\r\na\r\n.\r\n+OK 3 octets\r\nb\r\n.\r\n+OK still here\r\n"
	if string(buf[:n]) != want {
		t.Errorf("the first write was %q", buf[:n])
	}
}

// One session for a maildrop; the second may try again on the same connection.
func TestInUse(t *testing.T) {
	t.Parallel()
	s := newServer(t, letters("a\n"))
	first := connect(t, s, "127.0.0.1")
	talk(t, first, login)
	second := connect(t, s, "127.0.0.1")
	talk(t, second, "S: +OK*\nC: USER ann@office.example\nS: +OK*\nC: PASS secret word\nS: -ERR [IN-USE]*")
	talk(t, first, "C: QUIT\nS: +OK*\nS: <closed>")
	talk(t, second, "C: USER ann@office.example\nS: +OK*\nC: PASS secret word\nS: +OK*")
}

func TestTemporaryTrouble(t *testing.T) {
	t.Parallel()
	cfg := config(letters())
	cfg.Auth = fakeUsers{err: errBroken}
	talk(t, connect(t, serve(t, cfg, false), "127.0.0.1"),
		"S: +OK*\nC: USER ann@office.example\nS: +OK*\nC: PASS secret word\nS: -ERR [SYS/TEMP] the password*")
	cfg = config(letters())
	cfg.Open = func(context.Context, relay.Address, netip.Addr) (pop3.Maildrop, error) { return nil, errBroken }
	talk(t, connect(t, serve(t, cfg, false), "127.0.0.1"),
		"S: +OK*\nC: USER ann@office.example\nS: +OK*\nC: PASS secret word\nS: -ERR [SYS/TEMP] the mailbox*")
}

// A message that another program removed, and one that cannot be read to its end: the first is
// refused in a sentence, the second must not look whole.
func TestUnreadable(t *testing.T) {
	t.Parallel()
	box := letters("a\n", "b\n", "c\n")
	box.letters[0].gone = true
	box.letters[1].reader = io.MultiReader(strings.NewReader("b\nhalf"), iotest.ErrReader(errBroken))
	conn := connect(t, newServer(t, box), "127.0.0.1")
	talk(t, conn, login+"C: RETR 1\nS: -ERR [SYS/TEMP] message 1 has been removed by another program\nC: TOP 1 1\nS: -ERR [SYS/TEMP]*\nC: DELE 3\nS: +OK*\nC: RETR 2\nS: +OK*\nS: b")
	if rest := ended(t, conn); strings.Contains(rest, "\r\n.\r\n") {
		t.Errorf("a message that was not read whole looks whole: %q", rest)
	}
	if box.left() != "1 2 3" {
		t.Errorf("left %q", box.left())
	}
}

// QUIT says which messages could not be removed.
func TestRemoveFails(t *testing.T) {
	t.Parallel()
	box := letters("a\n", "b\n", "c\n")
	box.stuck = map[int]bool{2: true}
	talk(t, connect(t, newServer(t, box), "127.0.0.1"),
		login+"C: DELE 1\nS: +OK*\nC: DELE 2\nS: +OK*\nC: QUIT\nS: -ERR [SYS/TEMP] 1 of 2 deleted messages could not be removed: 2\nS: <closed>")
	if box.left() != "2 3" {
		t.Errorf("left %q", box.left())
	}
}

// A link that drops removes nothing, wherever it drops; not even when QUIT has been read but what
// was fetched before it could not be sent.
func TestDroppedLink(t *testing.T) {
	t.Parallel()
	for _, script := range []string{"", "DELE 1\r\n", "DELE 1\r\nQUI", "DELE 1\r\nRETR 2\r\n", "RETR 2\r\nDELE 2\r\nQUIT\r\n"} {
		t.Run(script, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				box := letters("a\n", "b\n")
				conn := connect(t, newServer(t, box), "127.0.0.1")
				talk(t, conn, login)
				io.WriteString(conn, script)
				conn.Close()
				synctest.Wait()
				if box.left() != "1 2" || box.open {
					t.Errorf("left %q, open %v", box.left(), box.open)
				}
				if box.letters[1].seen {
					t.Error("a message that was never sent counts as seen")
				}
			})
		})
	}
}

// What was sent whole by RETR is marked as seen, what TOP showed is not.
func TestSeen(t *testing.T) {
	t.Parallel()
	box := letters("a\n", "b\n")
	talk(t, connect(t, newServer(t, box), "127.0.0.1"), login+"C: RETR 1\nS: +OK*\nS: a\nS: .\nC: TOP 2 9\nS: +OK*\nS: b\nS: .\nC: QUIT\nS: +OK*\nS: <closed>")
	if !box.letters[0].seen || box.letters[1].seen {
		t.Errorf("seen: %v %v", box.letters[0].seen, box.letters[1].seen)
	}
}

// Idle sessions, those that never log in, those that send an octet now and then and those that
// never read end in their time, and let the maildrop go.
func TestTimeouts(t *testing.T) {
	t.Parallel()
	within := func(name string, least, most time.Duration, f func(t *testing.T, conn net.Conn)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				box := letters(strings.Repeat("x\n", 1<<20))
				conn := connect(t, newServer(t, box), "127.0.0.1")
				start := time.Now()
				f(t, conn)
				if took := time.Since(start); took < least || took > most {
					t.Errorf("ended after %v, want %v to %v", took, least, most)
				}
				synctest.Wait()
				if box.open {
					t.Error("the maildrop is still open")
				}
			})
		})
	}
	within("no login", 3*time.Minute, 3*time.Minute, func(t *testing.T, conn net.Conn) { ended(t, conn) })
	within("idle", 10*time.Minute, 10*time.Minute, func(t *testing.T, conn net.Conn) {
		talk(t, conn, login)
		ended(t, conn)
	})
	within("trickle", 10*time.Minute, 11*time.Minute, func(t *testing.T, conn net.Conn) {
		talk(t, conn, login)
		for {
			time.Sleep(time.Minute) // the bubble's time
			if _, err := conn.Write([]byte("x")); err != nil {
				return
			}
		}
	})
	within("never reads", time.Minute, time.Minute, func(t *testing.T, conn net.Conn) {
		talk(t, conn, login)
		io.WriteString(conn, "RETR 1\r\n")
		time.Sleep(time.Minute)
		synctest.Wait()
		if _, err := conn.Write([]byte("x")); err == nil {
			t.Error("the link is still up")
		}
	})
	within("reads slowly", 2*time.Minute, time.Hour, func(t *testing.T, conn net.Conn) {
		talk(t, conn, login)
		io.WriteString(conn, "RETR 1\r\n")
		n, buf := 0, make([]byte, 32<<10)
		for {
			m, err := conn.Read(buf)
			n += m
			if err != nil {
				t.Fatalf("cut off after %d octets: %v", n, err)
			}
			if n >= 3<<20 {
				conn.Close()
				return
			}
			time.Sleep(2 * time.Second)
		}
	})
}

// Failed logins are slow, wrong commands are bounded.
func TestGuessing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		conn := connect(t, newServer(t, letters()), "127.0.0.1")
		start := time.Now()
		talk(t, conn, "S: +OK*\n"+strings.Repeat("C: USER ann@office.example\nS: +OK*\nC: PASS wrong\nS: -ERR [AUTH]*\n", 3)+"S: <closed>")
		if took := time.Since(start); took != 6*time.Second {
			t.Errorf("three guesses took %v", took)
		}
		conn = connect(t, newServer(t, letters()), "127.0.0.1")
		talk(t, conn, "S: +OK*\n"+strings.Repeat("C: FOO\nS: -ERR unknown command\n", 19)+"C: FOO\nS: -ERR unknown command; too many errors*\nS: <closed>")
	})
}

// Limits in all and for each address, IPv6 by /64, and room again when somebody leaves.
func TestConnectionLimits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := config(letters())
		cfg.Limits = pop3.Limits{Connections: 3, PerAddress: 2}
		s := serve(t, cfg, false)
		greeted := func(client string) net.Conn {
			conn := connect(t, s, client)
			talk(t, conn, "S: +OK*")
			return conn
		}
		first := greeted("2001:db8::1")
		greeted("2001:db8::2")
		talk(t, connect(t, s, "2001:db8::3"), "S: -ERR [SYS/TEMP] too many connections from your address*\nS: <closed>")
		greeted("2001:db8:0:1::1")
		talk(t, connect(t, s, "192.0.2.1"), "S: -ERR [SYS/TEMP] too many connections,*\nS: <closed>")
		first.Close()
		synctest.Wait()
		greeted("2001:db8::3")
	})
}

// Being out of descriptors does not end the accept loop.
func TestAcceptErrors(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, letters())
		for range 20 {
			s.ln.fail <- errBroken
		}
		talk(t, connect(t, s, "127.0.0.1"), "S: +OK*\nC: QUIT\nS: +OK*")
	})
}

// A fault of ours ends one session, not the server.
func TestPanic(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		box := letters("a\n")
		box.letters[0].reader = readerFunc(func([]byte) (int, error) { panic("broken invariant") })
		s := newServer(t, box)
		conn := connect(t, s, "127.0.0.1")
		talk(t, conn, login+"C: RETR 1")
		ended(t, conn)
		synctest.Wait()
		if box.open {
			t.Error("the maildrop is still open")
		}
		talk(t, connect(t, s, "127.0.0.1"), login)
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// Shutdown lets a busy session finish, drops an idle one soon, and removes nothing for either
// without a QUIT.
func TestShutdown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		box := letters("a\n", "b\n")
		s := newServer(t, box)
		busy, idle := connect(t, s, "127.0.0.1"), connect(t, s, "127.0.0.1")
		talk(t, busy, login+"C: DELE 1\nS: +OK*")
		talk(t, idle, "S: +OK*")
		start := time.Now()
		result := make(chan error)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			result <- s.Shutdown(ctx)
		}()
		for range 4 {
			time.Sleep(time.Second)
			talk(t, busy, "C: NOOP\nS: +OK*")
		}
		ended(t, idle)
		talk(t, busy, "C: QUIT\nS: +OK*\nS: <closed>")
		if err := <-result; err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took != 4*time.Second {
			t.Errorf("shutdown took %v", took)
		}
		if box.left() != "2" {
			t.Errorf("left %q", box.left())
		}
	})
}

// Whoever is still busy when the grace is over is cut off.
func TestShutdownGraceEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		box := letters(strings.Repeat("x\n", 1<<20))
		s := newServer(t, box)
		conn := connect(t, s, "127.0.0.1")
		talk(t, conn, login+"C: DELE 1\nS: +OK*\nC: RSET\nS: +OK*\nC: RETR 1")
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("shutdown: %v", err)
		}
		if box.open || box.left() != "1" {
			t.Errorf("open %v, left %q", box.open, box.left())
		}
	})
}

// What STAT and LIST say is what RETR sends, and unstuffed it is the message, for any content and
// however it is read.
func TestSizes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		data := strings.Join(rapid.SliceOf(rapid.SampledFrom([]string{
			"\n", "\r\n", "\r", ".", "..", "x", "Subject: y", "\n.\n", "\x00\xff", strings.Repeat("long ", 20000),
		})).Draw(rt, "data"), "")
		box := letters(data)
		if rapid.Bool().Draw(rt, "octets") {
			box.letters[0].reader = iotest.OneByteReader(strings.NewReader(data))
		}
		s := newServerFor(rt, box)
		defer s.close()
		r := bufio.NewReader(s.conn)
		say := func(cmd string) string {
			io.WriteString(s.conn, cmd+"\r\n")
			line, _ := r.ReadString('\n')
			return strings.TrimSuffix(line, "\r\n")
		}
		r.ReadString('\n')
		say("USER ann@office.example")
		say("PASS secret word")
		var size int
		fmt.Sscanf(say("LIST 1"), "+OK 1 %d", &size)
		if got, want := say("STAT"), fmt.Sprintf("+OK 1 %d", size); got != want {
			rt.Errorf("STAT %q, want %q", got, want)
		}
		if got, want := say("RETR 1"), fmt.Sprintf("+OK %d octets", size); got != want {
			rt.Errorf("RETR %q, want %q", got, want)
		}
		var body strings.Builder
		for {
			line, err := r.ReadString('\n')
			if err != nil || !strings.HasSuffix(line, "\r\n") {
				rt.Fatalf("line %q: %v", line, err)
			}
			if line == ".\r\n" {
				break
			}
			body.WriteString(strings.TrimPrefix(line, "."))
		}
		if body.String() != wireForm(data) || body.Len() != size {
			rt.Errorf("%d octets announced, got %d: %.200q, want %.200q", size, body.Len(), body.String(), wireForm(data))
		}
	})
}

// TOP finds the end of the header where lines end in CRLF on disk too, and where a read ends in
// the middle of it.
func TestTopCRLF(t *testing.T) {
	t.Parallel()
	for _, wrap := range []func(io.Reader) io.Reader{func(r io.Reader) io.Reader { return r }, iotest.OneByteReader} {
		box := letters("")
		box.letters[0].reader = wrap(strings.NewReader("a: b\r\n\r\none\r\n.two\r\nthree"))
		talk(t, connect(t, newServer(t, box), "127.0.0.1"),
			login+"C: TOP 1 2\nS: +OK*\nS: a: b\nS: \nS: one\nS: ..two\nS: .\nC: QUIT\nS: +OK*\nS: <closed>")
	}
}
