package smtpd

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// A connection that waits for its next command holds no large buffer, whatever came before.
func TestIdleWireIsSmall(t *testing.T) {
	t.Parallel()
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	var w wire
	w.init(far, time.Minute)
	defer w.release()
	go io.WriteString(near, strings.Repeat("NOOP "+strings.Repeat("x", 900)+"\r\n", 5))
	limit := func([]byte) int { return 1000 }
	for range 5 {
		if _, err := w.line(limit, time.Now().Add(time.Minute), true); err != nil {
			t.Fatal(err)
		}
	}
	if w.big == nil {
		t.Fatal("the batch fitted into the small buffer, which proves nothing")
	}
	if _, err := w.line(limit, time.Unix(1, 0), true); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	if w.big != nil {
		t.Error("an idle connection holds a large buffer")
	}
}
