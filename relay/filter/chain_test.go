package filter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"relayd/relay"
)

// letter is one from a stranger to two people, one of them through an alias that leads to two.
func letter(header, body string) Letter {
	address := func(local, domain string) relay.Address {
		return relay.Address{Local: local, Domain: relay.Domain(domain)}
	}
	return Letter{
		Env: relay.Envelope{ID: "01m7zjfc5rhgwddb", From: address("writer", "partner.test"),
			Rcpts: []relay.Recipient{
				{Addr: address("ann", "office.test"), Mailbox: address("ann", "office.test"), Orig: "sales@office.test"},
				{Addr: address("bob", "office.test"), Mailbox: address("bob", "office.test"), Orig: "sales@office.test"},
				{Addr: address("dora", "office.test"), Mailbox: address("dora", "office.test")},
			},
			Origin: relay.Origin{Client: netip.MustParseAddrPort("192.0.2.7:4711")}},
		Header: []byte(header), Whole: true, Size: int64(len(header) + len(body)),
		Body: func() io.Reader { return strings.NewReader(body) },
	}
}

// newMember is the only program of a Chain.
func newMember(t *testing.T, c Config) *member {
	t.Helper()
	c.Name = string(c.Kind)
	if c.Timeout == 0 {
		c.Timeout = 20 * time.Second
	}
	if c.MaxSize == 0 {
		c.MaxSize = 100 << 20
	}
	chain := New("mail.office.test", slog.New(slog.DiscardHandler))
	chain.Set([]Config{c})
	return (*chain.members.Load())[0]
}

// shown is edits as a test writes them.
func shown(all []Edit) string {
	var parts []string
	for _, e := range all {
		switch e.Op {
		case Add:
			parts = append(parts, e.Name+": "+e.Value)
		case Change:
			parts = append(parts, fmt.Sprintf("%s %d: %s", e.Name, e.Index, e.Value))
		default:
			parts = append(parts, fmt.Sprintf("-%s %d", e.Name, e.Index))
		}
	}
	return strings.Join(parts, "|")
}

func TestFieldValue(t *testing.T) {
	t.Parallel()
	words := func(n int) string { return strings.TrimSpace(strings.Repeat("word ", n)) }
	long := words(400)
	for in, want := range map[string]string{
		"":                   "",
		" a ":                "a",
		"a\nb":               "a\r\n\tb",
		"a\r\n b\r\n\r\n\tc": "a\r\n b\r\n\tc",
		"\n\na\r\rb\n":       "a\r\n\tb",
		"grün\x00\x7f":       "gr?n??",
		long:                 words(197) + "\r\n\t" + words(197) + "\r\n\t" + words(6),
	} {
		if got := fieldValue(in, 3); got != want {
			t.Errorf("%.40q: %q, want %q", in, got, want)
		}
	}
}

// FuzzFieldValue: any text becomes one field.
func FuzzFieldValue(f *testing.F) {
	f.Add("a\r\n b\n\nc")
	f.Add(strings.Repeat(" ", 2000) + "x")
	f.Add("a\n" + strings.Repeat(" ", 2000) + "x")
	f.Fuzz(func(t *testing.T, s string) {
		var e edits
		e.add(Add, "X-Name", s, 0)
		harmless(t, Verdict{Word: "x", Edits: e.list})
	})
}

// office is a network inside a bubble, on which nobody, somebody mute or a clamd answers.
type office struct {
	mu    sync.Mutex
	state string // "gone", "mute", "up", "ping only"
	dials int
}

func (o *office) set(state string) (dials int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.state = state
	return o.dials
}

func (o *office) dial(_ context.Context, _ string, deadline time.Time) (net.Conn, func(), error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.dials++
	if o.state == "gone" {
		return nil, nil, &unreachable{errors.New("connection refused")}
	}
	here, there := net.Pipe()
	here.SetDeadline(deadline)
	state := o.state
	go func() {
		buf := make([]byte, 64<<10)
		n, _ := io.ReadAtLeast(there, buf, len("zPING\x00"))
		ping := strings.HasPrefix(string(buf[:n]), "zPING")
		for state != "mute" && !ping && !strings.HasSuffix(string(buf[:n]), "\x00\x00\x00\x00") {
			more, err := there.Read(buf)
			if n = more; err != nil {
				return
			}
		}
		switch {
		case ping && state != "mute":
			io.WriteString(there, "PONG\x00")
		case state == "up":
			io.WriteString(there, "stream: OK\x00")
		}
	}()
	return here, func() { here.Close(); there.Close() }, nil
}

// TestDown: a program that is gone costs letters nothing from the first moment on, one that says
// nothing costs three letters their time-out; both are seen when they are back.
func TestDown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		c := New("mail.office.test", slog.New(slog.NewTextHandler(&log, nil)))
		o := &office{state: "up"}
		c.dial = o.dial
		c.Set([]Config{{Kind: Clamd, Name: "clamd", Timeout: time.Minute, Defer: true, MaxSize: 1000}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); c.Run(ctx) }()
		defer func() { cancel(); <-done }()
		synctest.Wait()
		l := letter("A: b\r\n", "\r\nbody\r\n")
		check := func(word string, action Action, took time.Duration) {
			t.Helper()
			start := time.Now()
			v, err := c.Check(t.Context(), l)
			if err != nil || len(v) != 1 || v[0].Word != word || v[0].Action != action || time.Since(start) != took {
				t.Errorf("%+v after %v, %v; want %s after %v", v, time.Since(start), err, word, took)
			}
		}
		check("clean", Pass, 0)

		dials := o.set("gone")
		check("failed", Defer, 0)
		check("down", Defer, 0)
		if now := o.set("up"); now != dials+1 || c.States()[0].Down.IsZero() {
			t.Errorf("%d dials, %+v", now-dials, c.States()[0])
		}
		time.Sleep(probeEvery)
		synctest.Wait()
		check("clean", Pass, 0)

		o.set("mute")
		for range failsToBan {
			check("failed", Defer, time.Minute)
		}
		check("down", Defer, 0)
		// While it answers to pings alone, one letter at a time finds out, ever more rarely.
		o.set("ping only")
		for _, rest := range []time.Duration{2 * probeEvery, 4 * probeEvery, 8 * probeEvery} {
			time.Sleep(rest)
			synctest.Wait()
			check("failed", Defer, time.Minute)
			check("down", Defer, 0)
		}
		o.set("up")
		time.Sleep(restMost)
		synctest.Wait()
		check("clean", Pass, 0)
		if s := c.States()[0]; !s.Down.IsZero() || s.Counts["pass"] != 3 || s.Counts["unseen"] != 12 {
			t.Errorf("%+v", s)
		}
		if n := strings.Count(log.String(), "a filter is down"); n != 5 {
			t.Errorf("%d times down:\n%s", n, log.String())
		}
		l.Size = 1001
		check("too-large", Pass, 0)
	})
}

// TestOurOwnErrors: a letter that cannot be read, or whose client has gone, says nothing of a program.
func TestOurOwnErrors(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, kind := range []Kind{Clamd, Rspamd} {
			c := New("mail.office.test", slog.New(slog.DiscardHandler))
			o := &office{state: "mute"}
			c.dial = func(ctx context.Context, a string, d time.Time) (net.Conn, func(), error) {
				conn, done, err := o.dial(ctx, a, d)
				stop := context.AfterFunc(ctx, func() { conn.Close() })
				return conn, func() { stop(); done() }, err
			}
			c.Set([]Config{{Kind: kind, Name: "x", Timeout: time.Minute, MaxSize: 1 << 20}})
			broken := errors.New("the disk is broken")
			l := letter("A: b\r\n", "\r\n")
			l.Body = func() io.Reader { return iotest.ErrReader(broken) }
			for range 2 * failsToBan {
				if _, err := c.Check(t.Context(), l); !errors.Is(err, broken) {
					t.Errorf("%s: %v", kind, err)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if _, err := c.Check(ctx, letter("A: b\r\n", "\r\n")); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: %v", kind, err)
			}
			cancel()
			if !c.States()[0].Down.IsZero() {
				t.Errorf("%s counts as down", kind)
			}
		}
	})
}

// TestSet: a program that stays as it was keeps what is known of it.
func TestSet(t *testing.T) {
	t.Parallel()
	c := New("mail.office.test", slog.New(slog.DiscardHandler))
	a, b := Config{Kind: Clamd, Name: "clamd", Address: "127.0.0.1:1", Timeout: time.Second, Ours: true}, Config{Kind: Rspamd, Name: "rspamd"}
	c.Set([]Config{a})
	(*c.members.Load())[0].fail(&unreachable{errors.New("gone")}, "")
	c.Set([]Config{b, a})
	if s := c.States(); len(s) != 2 || !s[0].Down.IsZero() || s[1].Problem != "gone" {
		t.Errorf("%+v", s)
	}
	a.Timeout = time.Minute
	c.Set([]Config{a})
	if s := c.States(); len(s) != 1 || !s[0].Down.IsZero() {
		t.Errorf("%+v", s)
	}
	if !c.Asks(true) || c.Writes("x-spam") || !c.Writes("x-virus-status") {
		t.Error("what is asked and written")
	}
	c.Set([]Config{b})
	if c.Asks(true) || !c.Asks(false) || !c.Writes("x-spam") || !c.Writes("x-spamd-result") || c.Writes("x-spammer") || c.Writes("subject") {
		t.Error("what is asked and written")
	}
}
