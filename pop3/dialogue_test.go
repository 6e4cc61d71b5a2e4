package pop3_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/rogpeppe/go-internal/txtar"

	"relayd/pop3"
	"relayd/relay"
)

// Each file of testdata/dialogue is a session: "C:" lines that stand together go out in one write,
// "S:" lines must come back, a * at their end matches the rest. The files below are the messages,
// and "left" says which are there afterwards.
func TestDialogues(t *testing.T) {
	t.Parallel()
	names, _ := filepath.Glob("testdata/dialogue/*.txtar")
	if len(names) < 10 {
		t.Fatalf("only %d dialogues", len(names))
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { runDialogue(t, name) })
		})
	}
}

func runDialogue(t *testing.T, name string) {
	ar, err := txtar.ParseFile(name)
	if err != nil {
		t.Fatal(err)
	}
	box := &fakeBox{}
	left := ""
	for _, f := range ar.Files {
		if f.Name == "left" {
			left = strings.TrimSpace(string(f.Data))
		} else {
			box.letters = append(box.letters, &fakeLetter{data: string(f.Data)})
		}
	}
	script := string(ar.Comment)
	client := "127.0.0.1"
	if _, from, ok := strings.Cut(script, "\nfrom "); ok {
		client = strings.Fields(from)[0]
	}
	conn := connect(t, newServer(t, box), client)
	talk(t, conn, script)
	conn.Close()
	synctest.Wait()
	if got := box.left(); got != left {
		t.Errorf("left in the maildrop: %q, want %q", got, left)
	}
	if box.open {
		t.Error("the maildrop is still open")
	}
}

func talk(t *testing.T, conn net.Conn, script string) {
	t.Helper()
	r := bufio.NewReader(conn)
	var out strings.Builder
	send := func() {
		if out.Len() > 0 {
			if _, err := io.WriteString(conn, out.String()); err != nil {
				t.Fatalf("send: %v", err)
			}
			out.Reset()
		}
	}
	for i, line := range strings.Split(script, "\n") {
		switch {
		case line == "C: <close>":
			send()
			return
		case strings.HasPrefix(line, "C: "):
			out.WriteString(clientLine(line[3:]))
		case strings.HasPrefix(line, "S:"):
			send()
			got, err := r.ReadString('\n')
			want := strings.TrimPrefix(line[2:], " ")
			if want == "<closed>" {
				if err == nil || got != "" {
					t.Fatalf("line %d: got %q, want the end", i+1, got)
				}
				return
			}
			if err != nil || !matches(got, want) {
				t.Fatalf("line %d: got %q, %v, want %q", i+1, got, err, want)
			}
		}
	}
	send()
}

func clientLine(s string) string {
	if n, ok := strings.CutPrefix(s, "<long "); ok {
		n, _ := strconv.Atoi(strings.TrimSuffix(n, ">"))
		return strings.Repeat("x", n) + "\r\n"
	}
	switch s {
	case "<nul>":
		return "USER ann\x00bob\r\n"
	case "USER <latin1>":
		return "USER gr\xfcn\r\n"
	}
	return s + "\r\n"
}

func matches(got, want string) bool {
	got, ok := strings.CutSuffix(got, "\r\n")
	if prefix, wild := strings.CutSuffix(want, "*"); wild {
		return ok && strings.HasPrefix(got, prefix)
	}
	return ok && got == want
}

// fakeBox is a maildrop in memory that notices a second session and every removal.
type fakeBox struct {
	letters   []*fakeLetter
	open      bool
	stuck     map[int]bool // cannot be removed
	removeErr error
}

type fakeLetter struct {
	data          string
	reader        io.Reader // instead of data
	gone, removed bool
	seen          bool
}

func (b *fakeBox) left() string {
	var left []string
	for i, l := range b.letters {
		if !l.removed {
			left = append(left, strconv.Itoa(i+1))
		}
	}
	return strings.Join(left, " ")
}

func (b *fakeBox) Messages() (list []pop3.Message) {
	for i, l := range b.letters {
		size := int64(len(wireForm(l.data)))
		list = append(list, pop3.Message{UID: "uid-" + strconv.Itoa(i+1), Size: size})
	}
	return list
}

// wireForm is what a message looks like to a client: a lone LF is a CRLF, a last line has an end.
func wireForm(s string) string {
	const mark = "\x01mark\x01" // no message of these tests contains it
	s = strings.ReplaceAll(s, "\r\n", mark)
	s = strings.ReplaceAll(strings.ReplaceAll(s, "\n", mark), mark, "\r\n")
	if s != "" && !strings.HasSuffix(s, "\n") {
		s += "\r\n"
	}
	return s
}

func (b *fakeBox) Open(n int) (io.ReadCloser, error) {
	l := b.letters[n-1]
	if l.gone {
		return nil, relay.ErrGone
	}
	if l.reader != nil {
		return io.NopCloser(l.reader), nil
	}
	return io.NopCloser(strings.NewReader(l.data)), nil
}

func (b *fakeBox) Seen(n int) { b.letters[n-1].seen = true }

type partial struct{ numbers []int }

func (p partial) Error() string     { return "some stay" }
func (p partial) NotRemoved() []int { return p.numbers }

func (b *fakeBox) Remove(n ...int) error {
	if b.removeErr != nil {
		return b.removeErr
	}
	var stay []int
	for _, n := range n {
		if b.stuck[n] {
			stay = append(stay, n)
		} else {
			b.letters[n-1].removed = true
		}
	}
	if stay != nil {
		return errors.Join(partial{stay})
	}
	return nil
}

func (b *fakeBox) Close() error { b.open = false; return nil }

// fakeUsers knows ann@office.example with the password "secret word".
type fakeUsers struct{ err error }

func (u fakeUsers) Authenticate(_ context.Context, name, password string, _ netip.Addr) (relay.Address, error) {
	if u.err != nil {
		return relay.Address{}, u.err
	}
	if !strings.EqualFold(name, "ann@office.example") || password != "secret word" {
		return relay.Address{}, relay.ErrDenied
	}
	return relay.Address{Local: "ann", Domain: "office.example"}, nil
}
