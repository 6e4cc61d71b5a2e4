package queue

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"relayd/relay"
)

// mendable is a running queue with one letter to two people of one domain.
type mendable struct {
	*testing.T
	*Queue
	k Key
}

func newMendable(t *testing.T) *mendable {
	q, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	m := &mendable{T: t, Queue: q}
	t.Cleanup(func() {
		if err := m.Check(context.Background()); err != nil {
			t.Error(err)
		}
		m.Close()
	})
	now := time.Now()
	env := relay.Envelope{ID: relay.NewID(now), Accepted: now, From: relay.Address{Local: "ann", Domain: "office.example"}}
	for _, local := range []string{"bob", "carol"} {
		env.Rcpts = append(env.Rcpts, relay.Recipient{Addr: relay.Address{Local: local, Domain: "a.example"}})
	}
	s, err := q.Stage(t.Context(), env)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(s, "Subject: x\r\n\r\n")
	if err := s.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := q.recordYoung(t.Context(), anyYoung); err != nil {
		t.Fatal(err)
	}
	m.k = Key{env.ID, "a.example"}
	return m
}

// harm flips an octet of the record, and of the letter's trailer if asked to.
func (m *mendable) harm(letter bool) {
	m.Helper()
	err := m.Queue.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(itemsBucket)
		v := bytes.Clone(b.Get([]byte(m.k.String())))
		v[len(v)-5] ^= 4
		return b.Put([]byte(m.k.String()), v)
	})
	if err != nil {
		m.Fatal(err)
	}
	if !letter {
		return
	}
	text, err := os.ReadFile(m.body(m.k.ID))
	if err != nil {
		m.Fatal(err)
	}
	text[len(text)-60] ^= 4
	if err := os.WriteFile(m.body(m.k.ID), text, 0o600); err != nil {
		m.Fatal(err)
	}
}

func (m *mendable) take() []Item {
	m.Helper()
	items, err := m.Take(m.Context(), time.Now(), 5, nil)
	if err != nil {
		m.Fatal(err)
	}
	return items
}

// A record that is damaged while the queue runs is made anew from the letter by whoever meets it:
// Take, Body, or Settle, whose results count.
func TestMendWhileRunning(t *testing.T) {
	t.Run("take", func(t *testing.T) {
		m := newMendable(t)
		m.harm(false)
		if items := m.take(); len(items) != 1 || len(items[0].Rcpts) != 2 || items[0].Attempts != 1 {
			t.Errorf("took %+v", items)
		}
	})
	t.Run("body", func(t *testing.T) {
		m := newMendable(t)
		m.harm(false)
		b, err := m.Body(m.k.ID)
		if err != nil {
			t.Fatal(err)
		}
		b.Close()
	})
	t.Run("settle", func(t *testing.T) {
		m := newMendable(t)
		it := m.take()[0]
		m.harm(false)
		bob := relay.Result{Rcpt: it.Rcpts[0].Addr, Outcome: relay.Delivered, At: time.Now()}
		if err := m.Settle(t.Context(), m.k, []relay.Result{bob}, false); err != nil {
			t.Fatal(err)
		}
		items, err := m.Get(t.Context(), m.k.ID)
		if err != nil || len(items) != 1 || len(items[0].Rcpts) != 1 || items[0].Rcpts[0].Addr.Local != "carol" {
			t.Errorf("left %+v, %v", items, err)
		}
	})
}

// When the letter is damaged too, the item is set aside: nobody meets it twice.
func TestDamagedBeyondMending(t *testing.T) {
	for name, meet := range map[string]func(m *mendable) error{
		"take":   func(m *mendable) error { m.harm(true); m.take(); return ErrDamaged },
		"body":   func(m *mendable) error { m.harm(true); _, err := m.Body(m.k.ID); return err },
		"settle": func(m *mendable) error { m.take(); m.harm(true); return m.Settle(m.Context(), m.k, nil, false) },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMendable(t)
			if err := meet(m); !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNotFound) {
				t.Errorf("got %v", err)
			}
			if st := m.Stats(); st.Items != 0 || len(m.take()) != 0 {
				t.Errorf("still there: %+v", st)
			}
			if _, err := os.Stat(filepath.Join(m.corrupt(), string(m.k.ID))); err != nil {
				t.Error(err)
			}
		})
	}
}
