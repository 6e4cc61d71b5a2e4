package queue_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"relayd/queue"
	"relayd/relay"
)

// office is a queue in a directory of its own. At cleanup it is checked, index against items, and
// no body may lie there that no item needs.
type office struct {
	testing.TB
	dir string
	q   *queue.Queue
}

func newOffice(t testing.TB) *office {
	t.Helper()
	f := &office{TB: t, dir: filepath.Join(t.TempDir(), "queue")}
	f.open()
	t.Cleanup(f.finish)
	return f
}

func (f *office) open() {
	f.Helper()
	q, err := queue.Open(f.dir, queue.Options{Log: slog.New(slog.NewTextHandler(f.Output(), nil))})
	if err != nil {
		f.Fatal(err)
	}
	f.q = q
}

func (f *office) finish() {
	if f.q == nil {
		return
	}
	if err := f.q.Check(context.Background()); err != nil {
		f.Error(err)
	}
	f.swept()
	f.close()
}

// swept waits until no body lies there that no item needs.
func (f *office) swept() {
	f.Helper()
	letters := f.q.Stats().Letters
	for end := time.Now().Add(10 * time.Second); letters != len(f.files()); runtime.Gosched() {
		if time.Now().After(end) {
			f.Errorf("%d letters, but %d body files", letters, len(f.files()))
			return
		}
	}
}

func (f *office) close() {
	if err := f.q.Close(); err != nil {
		f.Error(err)
	}
	f.q = nil
}

func (f *office) reopen() {
	f.Helper()
	f.close()
	f.open()
}

func (f *office) files() []string {
	names, err := filepath.Glob(filepath.Join(f.dir, "bodies", "*"))
	if err != nil {
		f.Error(err)
	}
	return names
}

func (f *office) bodyFile(id relay.ID) string { return filepath.Join(f.dir, "bodies", string(id)) }

const text = "Subject: hello\r\n\r\nA letter.\r\n"

func envelope(rcpts ...string) relay.Envelope {
	now := time.Now()
	env := relay.Envelope{
		ID: relay.NewID(now), Accepted: now,
		From: relay.Address{Local: "ann", Domain: "office.example"},
	}
	for _, r := range rcpts {
		a, err := relay.ParseAddress(r, true)
		if err != nil {
			panic(err)
		}
		env.Rcpts = append(env.Rcpts, relay.Recipient{Addr: a, Orig: r})
	}
	return env
}

func (f *office) stage(env relay.Envelope, body string) relay.Staged {
	f.Helper()
	s, err := f.q.Stage(f.Context(), env)
	if err != nil {
		f.Fatal(err)
	}
	if _, err := io.WriteString(s, body); err != nil {
		f.Fatal(err)
	}
	return s
}

// send has the queue take a letter in.
func (f *office) send(rcpts ...string) relay.ID {
	f.Helper()
	env := envelope(rcpts...)
	if err := f.stage(env, text).Commit(f.Context()); err != nil {
		f.Fatal(err)
	}
	return env.ID
}

func (f *office) take(n int, skip func(relay.Domain) bool) []queue.Item {
	f.Helper()
	items, err := f.q.Take(f.Context(), time.Now(), n, skip)
	if err != nil {
		f.Fatal(err)
	}
	return items
}

func (f *office) settle(it queue.Item, o relay.Outcome) {
	f.Helper()
	if err := f.q.Settle(f.Context(), it.Key(), results(it, o), false); err != nil {
		f.Fatal(err)
	}
}

func results(it queue.Item, o relay.Outcome) []relay.Result {
	var all []relay.Result
	for _, rc := range it.Rcpts {
		all = append(all, relay.Result{Rcpt: rc.Addr, Outcome: o, At: time.Now(),
			Reply: relay.Reply{Code: 450, Status: relay.Status{4, 2, 0}, Text: "greylisted"}})
	}
	return all
}

func (f *office) list(filter queue.Filter) []queue.Item {
	f.Helper()
	var items []queue.Item
	for it, err := range f.q.List(f.Context(), filter) {
		if err != nil {
			f.Fatal(err)
		}
		items = append(items, it)
	}
	return items
}

func (f *office) body(id relay.ID) string {
	f.Helper()
	b, err := f.q.Body(id)
	if err != nil {
		f.Fatal(err)
	}
	defer b.Close()
	got, err := io.ReadAll(b)
	if err != nil {
		f.Fatal(err)
	}
	return string(got)
}

func keys(items []queue.Item) string {
	var s []string
	for _, it := range items {
		s = append(s, it.Key().String())
	}
	return fmt.Sprint(s)
}

func wantError(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got error %v, want %v", err, want)
	}
}

func truncate(t testing.TB, name string, size int64) {
	t.Helper()
	if err := os.Truncate(name, size); err != nil {
		t.Fatal(err)
	}
}
