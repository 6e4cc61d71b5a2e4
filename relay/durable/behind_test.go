package durable_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"relayd/relay/durable"
)

// A long file stays what was written, whatever the disk is told meanwhile, and a file that cannot
// be written behind says so.
func TestBehind(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "letter"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b durable.Behind
	piece := bytes.Repeat([]byte("0123456789abcdef"), 4<<10)
	for range 300 {
		n, err := f.Write(piece)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Wrote(f, n); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(f.Name())
	if err != nil || !bytes.Equal(got, bytes.Repeat(piece, 300)) {
		t.Errorf("%d octets, %v", len(got), err)
	}
	f.Close()
	if err := b.Wrote(f, 8<<20); err == nil {
		t.Error("no error for a closed file")
	}
}
