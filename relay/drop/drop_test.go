package drop_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"relayd/relay/drop"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type taken struct {
	order  drop.Order
	letter string
}

// collect runs a Collector until it has taken n letters.
func collect(t *testing.T, dir string, n int, answer error) []taken {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var all []taken
	c := &drop.Collector{Dir: dir, Log: slog.New(slog.DiscardHandler),
		Accept: func(_ context.Context, o drop.Order, r io.Reader) error {
			text, err := io.ReadAll(r)
			if err != nil {
				return err
			}
			if all = append(all, taken{o, string(text)}); len(all) == n {
				cancel()
			}
			return answer
		}}
	if err := c.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if len(all) != n {
		t.Fatalf("took %d letters, not %d", len(all), n)
	}
	return all
}

func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func TestDropAndCollect(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "drop")
	if err := drop.MakeDir(dir); err != nil {
		t.Fatal(err)
	}
	want := drop.Order{From: "<>", Rcpts: []string{"ann", "b@x"}, Name: "A \n B", Unsigned: true, UID: 1234}
	for range 2 {
		if err := drop.Write(dir, want, strings.NewReader("one\n.\n")); err != nil {
			t.Fatal(err)
		}
	}
	for _, got := range collect(t, dir, 2, nil) {
		if diff := cmp.Diff(want, got.order); diff != "" || got.letter != "one\n.\n" {
			t.Errorf("%q %s", got.letter, diff)
		}
	}
	if left := names(t, dir); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// A letter that cannot be written whole leaves nothing behind.
func TestDropHalf(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := drop.Write(dir, drop.Order{Rcpts: []string{"a"}}, iotest.ErrReader(io.ErrUnexpectedEOF)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
	if left := names(t, dir); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// Trouble of ours leaves the letter where it is; a letter that nobody wants is set aside.
func TestCollectTrouble(t *testing.T) {
	t.Parallel()
	for answer, want := range map[error]string{errors.New("the disk is full"): "", drop.ErrRejected: "bad"} {
		dir := t.TempDir()
		if err := drop.Write(dir, drop.Order{Rcpts: []string{"a"}}, strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
		collect(t, dir, 1, answer)
		if left := names(t, filepath.Join(dir, want)); len(left) != 1 || !strings.HasSuffix(left[0], ".letter") {
			t.Errorf("%v: %q", answer, left)
		}
	}
}

// Who owns a file that neither root nor the daemon wrote is who wrote it, whatever it says.
func TestOwnerCounts(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root to write as somebody else")
	}
	dir := t.TempDir()
	if err := drop.Write(dir, drop.Order{Rcpts: []string{"a"}, UID: 0}, strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(filepath.Join(dir, names(t, dir)[0]), 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if got := collect(t, dir, 1, nil)[0].order.UID; got != 65534 {
		t.Errorf("it counts as uid %d's", got)
	}
}

var newline = regexp.MustCompile("\r\n|\r|\n")

// FuzzText: what comes out is what came in, with CR LF line ends, one at the end, and no NUL.
func FuzzText(f *testing.F) {
	for _, s := range []string{"", "a", "a\n", "a\r", "a\r\nb\n\nc\r\r\n\x00\n\r", strings.Repeat("x\n", 5000)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		want := strings.ReplaceAll(newline.ReplaceAllString(in, "\r\n"), "\x00", "?")
		if want != "" && !strings.HasSuffix(want, "\r\n") {
			want += "\r\n"
		}
		for _, r := range []io.Reader{strings.NewReader(in), iotest.OneByteReader(strings.NewReader(in)), iotest.DataErrReader(strings.NewReader(in))} {
			if err := iotest.TestReader(drop.Text(r), []byte(want)); err != nil {
				t.Fatalf("%q: %v", in, err)
			}
		}
	})
}

// FuzzRead: an Order that is read writes itself again, and nothing panics.
func FuzzRead(f *testing.F) {
	f.Add([]byte("{\"from\":\"a\",\"rcpts\":[\"b\"]}\nletter"))
	f.Add([]byte("{}\n"))
	f.Add([]byte("nonsense"))
	f.Fuzz(func(t *testing.T, in []byte) {
		o, err := drop.Read(bufio.NewReader(strings.NewReader(string(in))))
		if err != nil {
			if !errors.Is(err, drop.ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		line, err := o.Encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := drop.Read(bufio.NewReader(strings.NewReader(string(line))))
		if err != nil || !cmp.Equal(o, again) {
			t.Fatalf("%+v became %+v, %v", o, again, err)
		}
	})
}
