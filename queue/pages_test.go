package queue

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"relayd/relay"
)

// Whatever the file holds, reading it ends, without a panic.
func FuzzPages(f *testing.F) {
	for _, n := range []int{0, 1, 40} {
		b := smallDB(f, n)
		for at := 0; at < len(b); at += 331 {
			f.Add(b, uint16(at), byte(at))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, at uint16, change byte) {
		b = bytes.Clone(b)
		if int(at) < len(b) {
			b[at] ^= change
		}
		count := func(uint32, []byte, []byte) error { return nil }
		scanFile(bytes.NewReader(b), map[string]leafFunc{"items": count, "corrupt": count}, nil)
	})
}

// smallDB is a database of pages small enough to fuzz.
func smallDB(t testing.TB, items int) []byte {
	path := filepath.Join(t.TempDir(), "db")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{PageSize: 1024, NoFreelistSync: items%2 == 0})
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(btx *bbolt.Tx) error {
		btx.CreateBucket(itemsBucket)
		btx.CreateBucket(corruptBucket)
		t := newTx(btx)
		for range items {
			k := Key{relay.NewID(time.Now()), "a.example"}
			if err := t.add(k, bytes.Repeat([]byte{7}, 100)); err != nil {
				return err
			}
		}
		return t.seal()
	})
	if err != nil {
		t.Fatal(err)
	}
	used := int64(0)
	db.View(func(btx *bbolt.Tx) error { used = btx.Size(); return nil })
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got := 0
	_, sequence, err := scanFile(bytes.NewReader(b), map[string]leafFunc{
		"items":   func(uint32, []byte, []byte) error { got++; return nil },
		"corrupt": func(uint32, []byte, []byte) error { return nil },
	}, nil)
	if err != nil || got != items || sequence["items"] != uint64(items) {
		t.Fatalf("read %d items of %d, sequence %v: %v", got, items, sequence, err)
	}
	return b[:used]
}
