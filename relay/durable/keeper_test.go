package durable_test

import (
	"bufio"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"relayd/relay/durable"
)

// TestKeeper: a change is written at once, those that follow together and later, a failure is
// tried again, and Close writes what Run has not.
func TestKeeper(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		writes, state, fail := 0, "", error(nil)
		k := durable.NewKeeper(path, func() ([]byte, error) {
			mu.Lock()
			defer mu.Unlock()
			writes++
			return []byte(state), fail
		}, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); k.Run(ctx) }()
		set := func(to string, err error) { mu.Lock(); defer mu.Unlock(); state, fail = to, err }
		change := func(to string) { set(to, nil); k.Changed(); synctest.Wait() }
		on := func() string { b, _ := os.ReadFile(path); return string(b) }
		change("a")
		if on() != "a" || writes != 1 {
			t.Errorf("at once: %q, %d writes", on(), writes)
		}
		change("b")
		change("c")
		set("c", errors.New("no space left"))
		time.Sleep(6 * time.Second)
		synctest.Wait()
		if on() != "a" || writes != 2 {
			t.Errorf("while the disk fails: %q, %d writes", on(), writes)
		}
		set("c", nil)
		time.Sleep(6 * time.Second)
		synctest.Wait()
		if on() != "c" || writes != 3 {
			t.Errorf("later: %q, %d writes", on(), writes)
		}
		change("d")
		cancel()
		<-done
		if err := k.Close(); err != nil || on() != "d" {
			t.Errorf("at the end: %q, %v", on(), err)
		}
		if err := k.Close(); err != nil || on() != "d" || writes != 4 {
			t.Errorf("closed twice: %d writes, %v", writes, err)
		}
	})
}

// TestReadLines: a missing file has no lines, and neither a long line nor a long file is read to its end.
func TestReadLines(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	read := func(maxFile int64, maxLine int) (lines []string, err error) {
		err = durable.ReadLines(path, maxFile, maxLine, func(text []byte) { lines = append(lines, string(text)) })
		return lines, err
	}
	if lines, err := read(100, 100); err != nil || lines != nil {
		t.Errorf("without a file: %q, %v", lines, err)
	}
	if err := os.WriteFile(path, []byte("one\ntwo\nthe third\nfour\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		maxFile int64
		maxLine int
		want    []string
		err     error
	}{
		{100, 100, []string{"one", "two", "the third", "four"}, nil},
		{100, 8, []string{"one", "two"}, bufio.ErrTooLong},
		{10, 100, []string{"one", "two", "th"}, nil},
	} {
		if lines, err := read(c.maxFile, c.maxLine); !slices.Equal(lines, c.want) || !errors.Is(err, c.err) {
			t.Errorf("%d octets, lines of %d: %q, %v", c.maxFile, c.maxLine, lines, err)
		}
	}
	if err := durable.ReadLines(filepath.Dir(path), 100, 100, func([]byte) {}); err == nil {
		t.Error("a folder was read")
	}
}
