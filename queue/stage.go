package queue

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	berrors "go.etcd.io/bbolt/errors"

	"relayd/relay"
	"relayd/relay/durable"
)

// staged is a letter on its way in. It belongs to one goroutine.
type staged struct {
	q     *Queue
	env   relay.Envelope
	body  *bodyWriter
	state stagedState
	sick  bool // the file could not be written or flushed
}

type stagedState int

const (
	writing  stagedState = iota
	flushing             // Commit has begun, and the letter is nobody's yet
	promised             // the index or the database may know it
	gone
)

// Stage opens a body file for a letter to foreign recipients. Errors are *relay.Failure: 452
// 4.3.1 when the disk is full, 451 4.3.0 otherwise.
func (q *Queue) Stage(ctx context.Context, env relay.Envelope) (relay.Staged, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	// The ID becomes a file name and half of every key.
	if _, err := relay.ParseID(string(env.ID)); err != nil {
		return nil, failure("queue: stage", fmt.Errorf("%q: %w", env.ID, err))
	}
	if len(env.Rcpts) == 0 {
		return nil, failure("queue: stage", fmt.Errorf("%s: no recipients", env.ID))
	}
	for _, rc := range env.Rcpts {
		if rc.Addr.Domain == "" {
			return nil, failure("queue: stage", fmt.Errorf("%s: recipient %q has no domain", env.ID, rc.Addr))
		}
	}
	f, err := q.spares.create(q.body(env.ID))
	if err != nil {
		return nil, failure("queue: stage", err)
	}
	return &staged{q: q, env: env, body: newBodyWriter(f)}, nil
}

// Write takes the next octets of the body.
func (s *staged) Write(p []byte) (int, error) {
	n, err := s.body.Write(p)
	if err != nil {
		s.sick = true
		return n, failure("queue: stage "+string(s.env.ID), err)
	}
	return n, nil
}

// Commit flushes the body, and records the items of a letter that cannot leave at once; both
// flushes are shared with whoever else commits. It rings Wake.
func (s *staged) Commit(ctx context.Context) error {
	if s.state != writing {
		return failure("queue: commit", fmt.Errorf("%s: committed or aborted before", s.env.ID))
	}
	s.state = flushing
	if err := s.commit(ctx); err != nil {
		s.sick = true
		return failure("queue: commit "+string(s.env.ID), err)
	}
	s.q.ring()
	return nil
}

func (s *staged) commit(ctx context.Context) error {
	s.env.Size, s.env.Body8Bit = s.body.size, s.body.bit8
	if err := s.body.finish(s.env); err != nil {
		return err
	}
	s.q.step("queue: body written")
	w := durable.Write{Files: []*os.File{s.body.file}, Dirs: []string{s.q.bodies()}}
	if err := s.q.flush.Flush(ctx, w); err != nil {
		return err
	}
	s.q.step("queue: body flushed")
	if err := s.body.file.Close(); err != nil {
		return err
	}
	items := split(s.env)
	s.q.holdNew(items)
	s.state = promised
	if s.q.admit(items, s.body.sum.Sum32()) {
		s.q.step("queue: admitted")
		return nil
	}
	records, err := encodeAll(items, s.body.sum.Sum32())
	if err != nil {
		return err
	}
	return s.q.do(ctx, &op{
		apply: func(t *tx) error {
			for i, it := range items {
				if err := t.add(it.Key(), records[i]); err != nil {
					return err
				}
			}
			return nil
		},
		publish: func(x *index) { s.q.publishNew(x, items) },
	})
}

// holdNew holds what the operator has ordered to be held.
func (q *Queue) holdNew(items []*Item) {
	if q.hold == nil {
		return
	}
	for _, it := range items {
		if it.Held {
			continue
		}
		it.Hold = q.hold(it)
		it.Held = it.Hold != ""
	}
}

func encodeAll(items []*Item, sum uint32) ([][]byte, error) {
	records := make([][]byte, len(items))
	for i, it := range items {
		var err error
		if records[i], err = encode(it, sum); err != nil {
			return nil, err
		}
	}
	return records, nil
}

// Abort drops the letter. After a Commit, also one that failed half-way, it takes the items out
// of the database again. An attempt that Take has already handed out goes on, and its Settle
// finds nothing: the recipient may get a letter whose sender is told to send it again.
func (s *staged) Abort() error {
	was := s.state
	s.state = gone
	switch was {
	case gone:
		return nil
	case promised:
		return s.q.takeBack(s.env.ID, split(s.env))
	}
	s.body.release()
	s.body.file.Close()
	drop := s.q.spares.discard
	if s.sick { // a spare with a bad block would fail letter after letter
		drop = func(_ relay.ID, name string) error { return os.Remove(name) }
	}
	if err := drop(s.env.ID, s.q.body(s.env.ID)); err != nil {
		return fmt.Errorf("queue: abort: %w", err)
	}
	return nil
}

func (q *Queue) takeBack(id relay.ID, items []*Item) error {
	if q.disown(id) {
		q.removeBodies(id)
		return nil
	}
	// Not the session's context: it is often what ended, and the letter must go all the same.
	err := q.do(context.Background(), &op{
		apply: func(t *tx) error {
			if err := q.record(t, id); err != nil {
				return err
			}
			for _, it := range items {
				if t.get(it.Key()) == nil {
					continue
				}
				if err := t.delete(it.Key()); err != nil {
					return err
				}
			}
			return nil
		},
		publish: func(x *index) {
			for _, it := range items {
				x.remove(it.Key())
			}
		},
	})
	if err != nil {
		return fmt.Errorf("queue: abort %s: %w", id, err)
	}
	q.removeBodies(id)
	return nil
}

// failure makes the answer to a client of an error of the disk.
func failure(op string, err error) error {
	code, status, text := 451, relay.Status{4, 3, 0}, "Local error, please try again later"
	if isFull(err) {
		code, status, text = 452, relay.Status{4, 3, 1}, "Insufficient system storage, please try again later"
	}
	return relay.Fail(op, relay.ScopeMessage, relay.Reply{Code: code, Status: status, Text: text}, err)
}

// isFull says whether space ran out. bbolt reports the failure to grow its file as text only.
func isFull(err error) bool {
	for _, full := range []error{syscall.ENOSPC, syscall.EDQUOT} {
		if errors.Is(err, full) || strings.Contains(err.Error(), full.Error()) {
			return true
		}
	}
	return errors.Is(err, berrors.ErrMaxSizeReached)
}
