package pop3_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"relayd/delivery/maildir"
	"relayd/pop3"
	"relayd/relay"
	"relayd/relay/durable"
)

// everybody lets every local part of office.example in with any password.
type everybody struct{}

func (everybody) Authenticate(_ context.Context, name, _ string, _ netip.Addr) (relay.Address, error) {
	return relay.Address{Local: name, Domain: "office.example"}, nil
}

var ann = relay.Address{Local: "ann", Domain: "office.example"}

// overMaildirs is a server on loopback over a real store.
func overMaildirs(t testing.TB) (*maildir.Store, string, net.Addr) {
	t.Helper()
	root := t.TempDir()
	flush, err := durable.NewFlusher(root)
	if err != nil {
		t.Fatal(err)
	}
	store, err := maildir.Open(root, "mail.office.example", flush, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	cfg := config(nil)
	cfg.Limits = pop3.Limits{PerAddress: 1000}
	cfg.Auth = everybody{}
	cfg.Open = func(ctx context.Context, a relay.Address, client netip.Addr) (pop3.Maildrop, error) {
		d, err := store.Maildrop(ctx, a)
		if err != nil {
			return nil, err
		}
		return d, nil
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := pop3.New(cfg)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln, false) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		store.Close()
		flush.Close()
	})
	return store, root, ln.Addr()
}

func deliver(t testing.TB, store *maildir.Store, mailbox relay.Address, body string) {
	t.Helper()
	st, err := store.Stage(t.Context(), relay.Envelope{ID: relay.NewID(time.Now()), Accepted: time.Now(),
		Rcpts: []relay.Recipient{{Addr: mailbox, Mailbox: mailbox}}})
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(st, body)
	if err := st.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Letters of one millisecond have no order, and the tests go by their numbers.
	for then := time.Now().UnixMilli(); time.Now().UnixMilli() == then; {
		runtime.Gosched()
	}
}

type client struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

func dial(t testing.TB, addr net.Addr, user string) *client {
	t.Helper()
	conn, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	c := &client{t, conn, bufio.NewReaderSize(conn, 1<<16)}
	c.line()
	c.ok("USER " + user)
	c.ok("PASS x")
	return c
}

func (c *client) line() string {
	line, err := c.r.ReadString('\n')
	if err != nil {
		c.t.Fatal(err)
	}
	return strings.TrimSuffix(line, "\r\n")
}

func (c *client) ok(cmd string) string {
	c.t.Helper()
	io.WriteString(c, cmd+"\r\n")
	line := c.line()
	if !strings.HasPrefix(line, "+OK") {
		c.t.Fatalf("%s: %s", cmd, line)
	}
	return line
}

// body reads a multi-line reply, unstuffed.
func (c *client) body() string {
	var b strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			c.t.Fatal(err)
		}
		if line == ".\r\n" {
			return b.String()
		}
		b.WriteString(strings.TrimPrefix(line, "."))
	}
}

// What went in comes out, octet for octet (hazards 15), and STAT knew its size.
func TestByteExact(t *testing.T) {
	t.Parallel()
	store, _, addr := overMaildirs(t)
	bodies := []string{
		"", ".\r\n", "\r\n", "a: b\r\n\r\n..\r\n.\r\n...\r\n", "\x00\xff\x80\r\n",
		strings.Repeat("x", 998) + "\r\n" + strings.Repeat("y", 1000) + "\r\n" + strings.Repeat("z", 1<<20) + "\r\n",
		strings.Repeat("line\r\n", 50000),
	}
	total := 0
	for _, b := range bodies {
		deliver(t, store, ann, b)
		total += len(b)
	}
	c := dial(t, addr, "ann")
	if got, want := c.ok("STAT"), fmt.Sprintf("+OK %d %d", len(bodies), total); got != want {
		t.Errorf("STAT %q, want %q", got, want)
	}
	var got []string
	for i := range bodies {
		line := c.ok("RETR " + strconv.Itoa(i+1))
		b := c.body()
		if want := fmt.Sprintf("+OK %d octets", len(b)); line != want {
			t.Errorf("RETR %q, sent %d", line, len(b))
		}
		got = append(got, b)
	}
	// Several letters of one second may come in the order of their IDs.
	for _, want := range bodies {
		found := false
		for _, b := range got {
			found = found || b == want
		}
		if !found {
			t.Errorf("a message of %d octets did not come back: %.40q", len(want), want)
		}
	}
	c.ok("QUIT")
}

// A letter delivered meanwhile does not disturb the session; one removed meanwhile is refused in a
// sentence; what was fetched is in cur/ as seen afterwards and keeps its UIDL.
func TestSnapshot(t *testing.T) {
	t.Parallel()
	store, root, addr := overMaildirs(t)
	deliver(t, store, ann, "one\r\n")
	c := dial(t, addr, "ann")
	deliver(t, store, ann, "two\r\n")
	if got := c.ok("STAT"); got != "+OK 1 5" {
		t.Errorf("STAT %q", got)
	}
	before := strings.Fields(c.ok("UIDL 1"))[2]
	c.ok("RETR 1")
	if got := c.body(); got != "one\r\n" {
		t.Errorf("RETR %q", got)
	}
	c.ok("QUIT")
	seen, _ := filepath.Glob(filepath.Join(root, "office.example", "ann", "cur", "*:2,S"))
	if len(seen) != 1 {
		t.Errorf("seen: %v", seen)
	}
	c = dial(t, addr, "ann")
	if got := c.ok("STAT"); got != "+OK 2 10" {
		t.Errorf("STAT %q", got)
	}
	if after := strings.Fields(c.ok("UIDL 1"))[2]; after != before {
		t.Errorf("UIDL %s, was %s", after, before)
	}
	os.Remove(seen[0])
	io.WriteString(c, "RETR 1\r\n")
	if got := c.line(); !strings.HasPrefix(got, "-ERR [SYS/TEMP] message 1 has been removed") {
		t.Errorf("RETR of a removed message: %q", got)
	}
	c.ok("RETR 2")
	c.body()
	c.ok("DELE 1")
	c.ok("DELE 2")
	c.ok("QUIT")
	if left, _ := filepath.Glob(filepath.Join(root, "office.example", "ann", "*", "*")); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

// Five hundred sessions at once (S4.2), each on its own maildrop.
func TestSeed_S4_2(t *testing.T) {
	t.Parallel()
	store, _, addr := overMaildirs(t)
	const people = 500
	var wg sync.WaitGroup
	clients := make([]*client, people)
	for i := range people {
		user := "user" + strconv.Itoa(i)
		if i%50 == 0 {
			deliver(t, store, relay.Address{Local: user, Domain: "office.example"}, "hello\r\n")
		}
		clients[i] = dial(t, addr, user)
	}
	for i, c := range clients {
		wg.Go(func() {
			if i%50 == 0 {
				io.WriteString(c, "RETR 1\r\n")
				c.line()
				c.body()
			}
			io.WriteString(c, "QUIT\r\n")
			c.line()
		})
	}
	wg.Wait()
}

// RETR of messages of 10 KiB, pipelined, over loopback.
func BenchmarkRETR(b *testing.B) {
	store, _, addr := overMaildirs(b)
	const count = 500
	body := strings.Repeat(strings.Repeat("x", 76)+"\r\n", 10<<10/78)
	for range count {
		deliver(b, store, ann, body)
	}
	for _, depth := range []int{1, 16} {
		b.Run(strconv.Itoa(depth), func(b *testing.B) {
			c := dial(b, addr, "ann")
			defer c.Close()
			reply := int64(len(fmt.Sprintf("+OK %d octets\r\n", len(body))) + len(body) + 3)
			b.SetBytes(int64(len(body)))
			for i := 0; i < b.N; i += depth {
				var cmd strings.Builder
				n := min(depth, b.N-i)
				for k := range n {
					fmt.Fprintf(&cmd, "RETR %d\r\n", (i+k)%count+1)
				}
				io.WriteString(c, cmd.String())
				if _, err := io.CopyN(io.Discard, c.r, int64(n)*reply); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			c.ok("QUIT")
		})
	}
}
