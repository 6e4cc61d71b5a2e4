package admin_test

import (
	"bytes"
	"context"
	"io"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"relayd/queue"
	"relayd/relay"
	"relayd/relay/admin"
)

// memory is a queue of items in memory that writes down what it was told to do.
type memory struct {
	mu    sync.Mutex
	items []queue.Item
	bad   error // yielded after the first item
	calls []string
	last  queue.Filter
	body  string

	faults []queue.Fault
}

func (m *memory) List(_ context.Context, f queue.Filter) iter.Seq2[queue.Item, error] {
	return func(yield func(queue.Item, error) bool) {
		for i, it := range m.items {
			if i == 1 && m.bad != nil && !yield(queue.Item{}, m.bad) {
				return
			}
			if m.matches(f, it) && !yield(it, nil) {
				return
			}
		}
	}
}

func (m *memory) matches(f queue.Filter, it queue.Item) bool {
	named := len(f.IDs) == 0 && len(f.Keys) == 0 || slices.Contains(f.IDs, it.ID) ||
		slices.Contains(f.Keys, queue.Key{ID: it.ID, Domain: it.Domain})
	return named && (f.Domain == "" || string(it.Domain) == f.Domain) &&
		strings.Contains(it.From.String(), f.From) && (f.Held == nil || *f.Held == it.Held)
}

func (m *memory) Get(_ context.Context, id relay.ID) (out []queue.Item, err error) {
	for _, it := range m.items {
		if it.ID == id {
			out = append(out, it)
		}
	}
	if out == nil {
		return nil, queue.ErrNotFound
	}
	return out, nil
}

func (m *memory) Body(id relay.ID) (io.ReadSeekCloser, error) {
	if _, err := m.Get(context.Background(), id); err != nil {
		return nil, err
	}
	return nopCloser{bytes.NewReader([]byte(m.body))}, nil
}

func (m *memory) Transcripts(queue.Key) ([]queue.Transcript, error) { return nil, nil }

type nopCloser struct{ io.ReadSeeker }

func (nopCloser) Close() error { return nil }

func (m *memory) do(verb string, f queue.Filter) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls, m.last = append(m.calls, verb), f
	n := 0
	for _, it := range m.items {
		if m.matches(f, it) {
			n++
		}
	}
	return n, nil
}

func (m *memory) Retry(_ context.Context, f queue.Filter) (int, error)   { return m.do("retry", f) }
func (m *memory) Hold(_ context.Context, f queue.Filter) (int, error)    { return m.do("hold", f) }
func (m *memory) Release(_ context.Context, f queue.Filter) (int, error) { return m.do("release", f) }
func (m *memory) Reschedule(_ context.Context, f queue.Filter, _ time.Time) (int, error) {
	return m.do("schedule", f)
}
func (m *memory) Reroute(_ context.Context, f queue.Filter, via string) (int, error) {
	return m.do("route "+via, f)
}
func (m *memory) Drop(_ context.Context, f queue.Filter) (int, error) { return m.do("drop", f) }
func (m *memory) Bounce(_ context.Context, f queue.Filter, reason string) (int, error) {
	return m.do("bounce "+reason, f)
}

var born = time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)

func addr(t testing.TB, s string) relay.Address {
	t.Helper()
	if s == "" {
		return relay.Address{}
	}
	a, err := relay.ParseAddress(s, true)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func item(t testing.TB, id relay.ID, from string, to ...string) queue.Item {
	t.Helper()
	it := queue.Item{Envelope: relay.Envelope{ID: id, From: addr(t, from), Accepted: born, Size: 1234},
		Next: born.Add(time.Hour)}
	for _, s := range to {
		a := addr(t, s)
		it.Domain = a.Domain
		it.Rcpts = append(it.Rcpts, relay.Recipient{Addr: a, Orig: s})
	}
	return it
}

// Two letters, the first to two domains.
const (
	idA relay.ID = "0aaaaaaaaaaaaaaa"
	idB relay.ID = "0abbbbbbbbbbbbbb"
)

func twoLetters(t testing.TB) *memory {
	b := item(t, idB, "", "zoe@three.example")
	b.Held = true
	return &memory{body: "Subject: x\r\n\r\nhello\r\n", items: []queue.Item{
		item(t, idA, "ann@office.example", "bob@one.example", "carol@one.example"),
		item(t, idA, "ann@office.example", "dan@two.example"),
		b,
	}}
}

// serve runs a server on a control socket in a directory of its own and dials it.
func serve(t testing.TB, cfg admin.Config) (*admin.Client, *admin.Server) {
	t.Helper()
	if cfg.DataDir == "" {
		cfg.DataDir = t.TempDir()
	}
	ln, err := admin.Listen(cfg.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	s := admin.NewServer(cfg)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Serve(context.Background(), ln); err != nil {
			t.Error(err)
		}
	})
	c, err := admin.Dial(cfg.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		wg.Wait()
	})
	return c, s
}

func (m *memory) Inspect(context.Context) (queue.Report, error) {
	return queue.Report{Letters: 2, Items: 3, Faults: m.faults}, nil
}

func (m *memory) Repair(context.Context) (queue.Repaired, error) {
	return queue.Repaired{Mended: m.faults}, nil
}
