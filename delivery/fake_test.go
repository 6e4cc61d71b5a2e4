package delivery_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"relayd/delivery"
	"relayd/queue"
	"relayd/relay"
)

// house is a drain between fakes that write down, in order, what is asked of them.
type house struct {
	*delivery.Drain
	t        *testing.T
	schedule queue.Schedule
	deliver  func(ctx context.Context, env relay.Envelope, domain relay.Domain) []relay.Result
	refuse   func() error // by the front door, of reports
	broken   func() error // of the queue
	noBody   error        // the queue has no body to give

	mu      sync.Mutex
	items   map[queue.Key]*queue.Item
	wake    chan struct{}
	events  []string
	reports []string

	envelopes []relay.Envelope // of the reports
	asked     int              // how often Take was called

	underWay map[queue.Key]bool // taken and not settled
}

func newHouse(t *testing.T, change ...func(*delivery.Options)) *house {
	h := &house{t: t, schedule: queue.DefaultSchedule(), items: map[queue.Key]*queue.Item{}, wake: make(chan struct{}, 1), underWay: map[queue.Key]bool{}}
	o := delivery.Options{
		Queue: h, Deliverer: h, Submit: h, Hostname: "mail.office.example",
		Schedule: func() queue.Schedule { return h.schedule }, Log: slog.New(slog.DiscardHandler),
	}
	for _, f := range change {
		f(&o)
	}
	h.Drain = delivery.New(o)
	return h
}

// run starts the drain; stop ends it and waits.
func (h *house) run() (stop func()) {
	ctx, cancel := context.WithCancel(h.t.Context())
	done := make(chan error)
	go func() { done <- h.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Error(err)
		}
	}
}

// put queues a letter from ann to rcpts, who share a domain.
func (h *house) put(from string, rcpts ...string) queue.Key {
	h.t.Helper()
	env := relay.Envelope{ID: relay.NewID(time.Now()), From: address(h.t, from), Accepted: time.Now()}
	for _, r := range rcpts {
		env.Rcpts = append(env.Rcpts, relay.Recipient{Addr: address(h.t, r)})
	}
	it := &queue.Item{Envelope: env, Domain: env.Rcpts[0].Addr.Domain, Next: time.Now()}
	h.mu.Lock()
	h.items[it.Key()] = it
	h.mu.Unlock()
	h.Knock()
	return it.Key()
}

func address(t *testing.T, s string) relay.Address {
	a, err := relay.ParsePath("<"+s+">", true)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (h *house) Knock() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

func (h *house) note(format string, args ...any) {
	h.events = append(h.events, fmt.Sprintf(format, args...))
}

func (h *house) log() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.events)
}

func (h *house) takes() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.asked
}

func (h *house) sent() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.reports)
}

func (h *house) left() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.items)
}

func (h *house) Deliver(ctx context.Context, env relay.Envelope, domain relay.Domain, body io.ReadSeeker) []relay.Result {
	h.mu.Lock()
	h.note("deliver %s", strings.Join(names(env.Rcpts), " "))
	h.mu.Unlock()
	if text, err := io.ReadAll(body); err != nil || !bytes.HasPrefix(text, []byte("Subject: ")) {
		h.t.Errorf("body %q, %v", text, err)
	}
	return h.deliver(ctx, env, domain)
}

func names(rcpts []relay.Recipient) []string {
	var list []string
	for _, r := range rcpts {
		list = append(list, r.Addr.Local)
	}
	return list
}

func (h *house) Submit(_ context.Context, env relay.Envelope, body io.Reader) error {
	text, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.refuse != nil {
		if err := h.refuse(); err != nil {
			h.note("report refused")
			return err
		}
	}
	if !env.From.IsNull() {
		h.t.Errorf("a report from %s", env.From)
	}
	kind := "failed"
	if bytes.Contains(text, []byte("Action: delayed")) {
		kind = "delayed"
	}
	if bytes.Contains(text, []byte(" after all")) {
		kind = "after all"
	}
	h.note("report %s to %s", kind, env.Rcpts[0].Addr)
	h.reports = append(h.reports, string(text))
	h.envelopes = append(h.envelopes, env)
	return nil
}

func (h *house) Take(_ context.Context, now time.Time, n int, skip func(relay.Domain) bool) ([]queue.Item, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked++
	if h.broken != nil {
		if err := h.broken(); err != nil {
			return nil, err
		}
	}
	var due []queue.Item
	for _, it := range slices.SortedFunc(mapValues(h.items), func(a, b *queue.Item) int { return cmp.Compare(a.ID, b.ID) }) {
		if len(due) == n || it.Held || it.Next.After(now) || skip(it.Domain) {
			continue
		}
		it.Attempts++
		it.Next, _ = h.schedule.Of(it, now, h.Lost(it.Born(), now))
		h.underWay[it.Key()] = true
		cp := *it
		cp.Rcpts = slices.Clone(it.Rcpts)
		due = append(due, cp)
	}
	return due, nil
}

func mapValues[K comparable, V any](m map[K]V) iter.Seq[V] {
	return func(yield func(V) bool) {
		for _, v := range m {
			if !yield(v) {
				return
			}
		}
	}
}

func (h *house) Settle(_ context.Context, k queue.Key, results []relay.Result, warned bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.broken != nil {
		if err := h.broken(); err != nil {
			h.note("settle failed")
			return err
		}
	}
	it := h.items[k]
	if it == nil {
		return queue.ErrNotFound
	}
	delete(h.underWay, k)
	var said []string
	for _, r := range results {
		said = append(said, r.Rcpt.Local+" "+string(r.Outcome))
		if r.Outcome != relay.Deferred {
			it.Rcpts = slices.DeleteFunc(it.Rcpts, func(rc relay.Recipient) bool { return rc.Addr == r.Rcpt })
		} else {
			it.Last = []relay.Result{r}
		}
	}
	if warned {
		it.Warned, it.Told = true, time.Now()
	}
	h.note("settle %s", strings.Join(said, ", "))
	if len(it.Rcpts) == 0 {
		delete(h.items, k)
	}
	return nil
}

func (h *house) GiveBack(k queue.Key) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.underWay, k)
}

func (h *house) NextDue() (time.Time, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var first time.Time
	for _, it := range h.items {
		if !it.Held && (first.IsZero() || it.Next.Before(first)) {
			first = it.Next
		}
	}
	return first, !first.IsZero()
}

func (h *house) Hasten(domain relay.Domain) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, it := range h.items {
		if (domain == "" || it.Domain == domain) && !it.Held && it.Next.After(time.Now()) && !h.underWay[it.Key()] {
			it.Next = time.Now()
			n++
		}
	}
	if n > 0 {
		h.Knock()
	}
	return n
}

func (h *house) Wake() <-chan struct{} { return h.wake }

type body struct{ *strings.Reader }

func (body) Close() error { return nil }

func (h *house) Body(id relay.ID) (io.ReadSeekCloser, error) {
	if err := h.noBody; err != nil {
		return nil, fmt.Errorf("queue: body %s: %w", id, err)
	}
	return body{strings.NewReader("Subject: letter\r\nMessage-ID: <" + string(id) + "@office.example>\r\n\r\nsecret text\r\n")}, nil
}

func (h *house) List(_ context.Context, f queue.Filter) iter.Seq2[queue.Item, error] {
	return func(yield func(queue.Item, error) bool) {
		h.mu.Lock()
		defer h.mu.Unlock() // a store that cannot settle while it lists
		for k, it := range h.items {
			if (f.Domain == "" || f.Domain == string(k.Domain)) && !yield(*it, nil) {
				return
			}
		}
	}
}

// answer is a Deliverer that gives each recipient the outcome its name says.
func answer(_ context.Context, env relay.Envelope, _ relay.Domain) []relay.Result {
	var results []relay.Result
	for _, r := range env.Rcpts {
		res := relay.Result{Rcpt: r.Addr, Host: "mx1.partner.example[192.0.2.7]:25", At: time.Now()}
		switch {
		case strings.HasPrefix(r.Addr.Local, "bad"):
			res.Outcome, res.Reply = relay.Failed, relay.Reply{Code: 550, Status: relay.Status{5, 1, 1}, Text: "no such user"}
		case strings.HasPrefix(r.Addr.Local, "slow"):
			res.Outcome, res.Reply = relay.Deferred, relay.Reply{Code: 451, Status: relay.Status{4, 7, 1}, Text: "greylisted, come back"}
		default:
			res.Outcome, res.Reply = relay.Delivered, relay.Reply{Code: 250, Status: relay.Status{2, 0, 0}, Text: "ok"}
		}
		results = append(results, res)
	}
	return results
}

func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

var errDisk = errors.New("no space left on device")
