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
	dir := f.TempDir()
	for _, n := range []int{0, 1, 100} {
		l := layout{filepath.Join(dir, string(rune('a'+n%26)))}
		os.Mkdir(l.dir, 0o700)
		err := l.createDB(func(db *bbolt.DB) error {
			return db.Update(func(btx *bbolt.Tx) error {
				t := newTx(btx)
				for range n {
					k := Key{relay.NewID(time.Now()), "a.example"}
					if err := t.add(k, bytes.Repeat([]byte{7}, 500)); err != nil {
						return err
					}
				}
				return t.seal()
			})
		})
		if err != nil {
			f.Fatal(err)
		}
		b, err := os.ReadFile(l.db())
		if err != nil {
			f.Fatal(err)
		}
		for at := 0; at < len(b) && at < 1<<16; at += 997 {
			f.Add(b[:min(len(b), 1<<16)], uint16(at), byte(at))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, at uint16, change byte) {
		b = bytes.Clone(b)
		if int(at) < len(b) {
			b[at] ^= change
		}
		count := func(uint32, []byte, []byte) error { return nil }
		scanFile(bytes.NewReader(b), map[string]leafFunc{"items": count, "corrupt": count})
	})
}
