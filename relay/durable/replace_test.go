package durable_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"relayd/relay/durable"
)

func TestReplace(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path+".new", []byte("half of one, left by a crash"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"one", "two"} {
		if err := durable.Replace(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(path); string(got) != text {
			t.Errorf("the file: %q", got)
		}
	}
	if err := os.Mkdir(path+"d", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := durable.Replace(path+"d", []byte("x")); err == nil {
		t.Error("a folder was replaced by a file")
	}
	left, _ := filepath.Glob(path + "*.new")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 || len(left) > 0 {
		t.Errorf("%v %v, left %q", info.Mode(), err, left)
	}
}

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
