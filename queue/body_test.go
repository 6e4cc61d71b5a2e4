package queue_test

import (
	"strings"
	"testing"
)

// Whether a letter needs 8BITMIME is seen in its octets, wherever the one above 127 stands: the
// client need not have announced it.
func TestEightBitIsSeen(t *testing.T) {
	t.Parallel()
	for i := range 20 {
		for _, c := range []struct {
			octet string
			want  bool
		}{{"\x7f", false}, {"\x80", true}, {"\xff", true}} {
			f := newOffice(t)
			env := envelope("bob@one.example")
			if err := f.stage(env, strings.Repeat("x", i)+c.octet+strings.Repeat("y", 19-i)+"\r\n").Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := f.take(1, nil)[0].Body8Bit; got != c.want {
				t.Errorf("%q at %d: %v", c.octet, i, got)
			}
		}
	}
}
