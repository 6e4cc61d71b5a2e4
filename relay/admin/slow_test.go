package admin

import (
	"context"
	"io"
	"iter"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"relayd/queue"
)

// slowQueue takes its time: a long bounce, a pager with somebody reading behind it.
type slowQueue struct{ Queue }

func (slowQueue) List(ctx context.Context, _ queue.Filter) iter.Seq2[queue.Item, error] {
	return func(yield func(queue.Item, error) bool) {
		for range 3 {
			select {
			case <-time.After(3 * time.Minute):
			case <-ctx.Done():
				yield(queue.Item{}, ctx.Err())
				return
			}
			if !yield(queue.Item{}, nil) {
				return
			}
		}
	}
}

func (slowQueue) Drop(ctx context.Context, _ queue.Filter) (int, error) {
	select {
	case <-time.After(5 * time.Minute):
		return 1, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// pipes is a listener in the bubble.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	if c, ok := <-p; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}
func (p pipes) Close() error   { close(p); return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// slowServer runs body against a server whose queue is slow.
func slowServer(t *testing.T, body func(t *testing.T, c *Client)) {
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(Config{DataDir: ".", Queue: slowQueue{}})
		ln := make(pipes)
		done := make(chan error)
		go func() { done <- serve(t.Context(), s.control, ln) }()
		c := &Client{http: &http.Client{Transport: &http.Transport{
			DialContext: func(context.Context, string, string) (net.Conn, error) {
				ours, theirs := net.Pipe()
				ln <- theirs
				return ours, nil
			}}}}
		body(t, c)
		c.Close()
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// No time-out of the server ends what the operator is still waiting for.
func TestSlowAnswersEnd(t *testing.T) {
	slowServer(t, func(t *testing.T, c *Client) {
		n := 0
		for _, err := range c.List(t.Context(), Filter{}) {
			if err != nil {
				t.Error(err)
			}
			n++
		}
		if n != 3 {
			t.Errorf("%d items", n)
		}
		if n, err := c.Change(t.Context(), "drop", Order{All: true}); n != 1 || err != nil {
			t.Errorf("dropped %d, %v", n, err)
		}
	})
}

// An order that never comes to its end is given up.
func TestTricklingOrder(t *testing.T) {
	slowServer(t, func(t *testing.T, c *Client) {
		start := time.Now()
		r, w := io.Pipe()
		defer w.Close()
		go io.WriteString(w, `{"all":`)
		body, err := c.do(t.Context(), http.MethodPost, "/v1/queue/drop", r)
		if err == nil {
			got, _ := io.ReadAll(body)
			t.Errorf("done: %s", got)
		}
		if took := time.Since(start); took > 2*readTimeout {
			t.Errorf("waited %v", took)
		}
	})
}
