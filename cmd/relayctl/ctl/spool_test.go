package ctl

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
)

// A reader who takes his time holds nobody up, and gets everything in order, also what did not fit
// into memory.
func TestSpoolNeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		s := newSpool(w)
		var want bytes.Buffer
		for i := 0; want.Len() < 2*spoolMemory; i++ {
			line := fmt.Appendf(nil, "line %d %s\n", i, bytes.Repeat([]byte("x"), i%5000))
			want.Write(line)
			if _, err := s.Write(line); err != nil {
				t.Fatal(err)
			}
		}
		var got []byte
		read := make(chan struct{})
		go func() {
			got, _ = io.ReadAll(r)
			close(read)
		}()
		if err := s.close(); err != nil {
			t.Error(err)
		}
		w.Close()
		<-read
		if !bytes.Equal(got, want.Bytes()) {
			t.Errorf("got %d octets, want %d", len(got), want.Len())
		}
	})
}

// When the reader has gone, the writer hears of it.
func TestSpoolOfNobody(t *testing.T) {
	r, w := io.Pipe()
	gone := errors.New("gone")
	r.CloseWithError(gone)
	s := newSpool(w)
	s.Write([]byte("x"))
	if err := s.close(); !errors.Is(err, gone) {
		t.Error(err)
	}
	if _, err := s.Write([]byte("y")); !errors.Is(err, gone) {
		t.Error(err)
	}
}
