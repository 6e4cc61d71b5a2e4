package admin

import (
	"context"
	"errors"
	"io"
	"iter"
	"net/http"
	"os"
	"time"

	"relayd/queue"
	"relayd/relay"
	"relayd/relay/orders"
)

// Lister is the reading half of a queue: a *queue.Queue, or a *queue.View when no daemon runs.
type Lister interface {
	List(ctx context.Context, f queue.Filter) iter.Seq2[queue.Item, error]
	Get(ctx context.Context, id relay.ID) ([]queue.Item, error)
	Body(id relay.ID) (io.ReadSeekCloser, error)
	Transcripts(k queue.Key) ([]queue.Transcript, error)
}

// Reader shows a queue as the control socket does, without the socket. The server answers from
// one, and relayctl uses one when no daemon runs.
type Reader struct {
	q Lister
	// Pauses are those in force; nil: none.
	Pauses func() []orders.Pause
	// Waits says what keeps a due letter to a domain from being tried, and until when at least; nil: nothing.
	Waits func(relay.Domain) (what string, until time.Time)
	// Lost is how much of the time from born to now our own line was down; nil: none.
	Lost func(born, now time.Time) time.Duration
}

// NewReader reads from q.
func NewReader(q Lister) *Reader { return &Reader{q: q} }

// List yields the items f chooses, oldest letter first. An *Error with Code 0 is about one item
// and does not end the list.
func (r *Reader) List(ctx context.Context, f Filter) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		qf, err := resolve(ctx, r.q, f)
		if err != nil {
			yield(Item{}, err)
			return
		}
		r.list(ctx, qf)(yield)
	}
}

func (r *Reader) list(ctx context.Context, f queue.Filter) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		for it, err := range r.q.List(ctx, f) {
			if err != nil {
				if !yield(Item{}, &Error{Message: err.Error()}) {
					return
				}
				continue
			}
			if !yield(r.item(it), nil) {
				return
			}
		}
	}
}

// item is NewItem with what the queue does not know.
func (r *Reader) item(q queue.Item) Item {
	it := NewItem(q)
	it.Paused = r.Pauses != nil && orders.Find(r.Pauses(), it.Domain) != nil
	if r.Waits != nil && !it.Held && !it.Paused && !it.Next.After(time.Now()) {
		it.Waits, it.WaitsTill = r.Waits(it.Domain)
	}
	if r.Lost != nil {
		it.LineLost = r.Lost(q.Born(), time.Now()).Round(time.Second).Seconds()
	}
	return it
}

// Get returns the items of the one letter that name names: an ID, the beginning of one, or either
// with /domain, which leaves only that domain's item. They come with their Transcripts. Errors are *Error where the name is at
// fault.
func (r *Reader) Get(ctx context.Context, name string) ([]Item, error) {
	k, err := find(ctx, r.q, name)
	if err != nil {
		return nil, err
	}
	items, err := r.q.Get(ctx, k.ID)
	if err != nil && !isNotFound(err) {
		return nil, err
	}
	var out []Item
	for _, it := range items {
		if k.Domain == "" || it.Domain == k.Domain {
			shown := r.item(it)
			// Without them there is still the rest to see.
			if shown.Transcripts, _ = r.q.Transcripts(it.Key()); len(shown.Transcripts) > 0 {
				shown.Transcript = shown.Transcripts[len(shown.Transcripts)-1].Text
			}
			out = append(out, shown)
		}
	}
	// It may have been delivered since find looked.
	if len(out) == 0 {
		return nil, notQueued(name)
	}
	return out, nil
}

// Body opens the letter as it will be sent.
func (r *Reader) Body(ctx context.Context, name string) (io.ReadCloser, error) {
	k, err := find(ctx, r.q, name)
	if err != nil {
		return nil, err
	}
	body, err := r.q.Body(k.ID)
	if isNotFound(err) {
		return nil, refuse(http.StatusNotFound, "the text of %s is not on the disk", k.ID)
	}
	return body, err
}

// Totals sums up the whole queue. Items that cannot be read are left out and counted in broken.
func (r *Reader) Totals(ctx context.Context) (t Totals, broken int) {
	for it, err := range r.list(ctx, queue.Filter{}) {
		if err != nil {
			broken++
			continue
		}
		t.Add(it)
	}
	return t, broken
}

func isNotFound(err error) bool {
	return errors.Is(err, queue.ErrNotFound) || errors.Is(err, os.ErrNotExist)
}
