package durable_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"relayd/relay/durable"
)

// Whoever waits while a commit runs shares the next one, and nobody is left behind.
func TestGroupSharesCommits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var batches [][]int
		g := durable.NewGroup(10, func(items []int) error {
			time.Sleep(time.Second) // a slow disk, in the bubble's time
			batches = append(batches, slices.Clone(items))
			return nil
		})
		start := time.Now()
		var wg sync.WaitGroup
		for i := range 25 {
			wg.Go(func() {
				if err := g.Do(t.Context(), i); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		wg.Wait()
		if len(batches) != 4 || len(batches[0]) != 1 || len(batches[1]) != 10 || len(batches[3]) != 4 {
			t.Errorf("batches %v, want sizes 1, 10, 10, 4", batches)
		}
		if took := time.Since(start); took != 4*time.Second {
			t.Errorf("took %v, want 4s", took)
		}
	})
}

// An error reaches everybody of the batch it struck and nobody else.
func TestGroupErrorStaysInItsBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken disk")
		g := durable.NewGroup(10, func(items []int) error {
			time.Sleep(time.Second)
			if slices.Contains(items, 3) {
				return broken
			}
			return nil
		})
		errs := make([]error, 5)
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() { errs[i] = g.Do(t.Context(), i) })
			synctest.Wait()
		}
		wg.Wait()
		errs[4] = g.Do(t.Context(), 4)
		for i, want := range []error{nil, broken, broken, broken, nil} {
			if errs[i] != want {
				t.Errorf("item %d: %v, want %v", i, errs[i], want)
			}
		}
	})
}

// Whoever is in no hurry rides along with the next commit, and waits no longer than it said.
func TestGroupTakesThePatientAlong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var batches [][]int
		g := durable.NewGroup(3, func(items []int) error {
			batches = append(batches, slices.Clone(items))
			time.Sleep(time.Second)
			return nil
		})
		var wg sync.WaitGroup
		patient := func(i int) {
			wg.Go(func() {
				if err := g.DoWithin(t.Context(), i, 10*time.Second); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		patient(1)
		patient(2)
		start := time.Now()
		if err := g.Do(t.Context(), 3); err != nil || time.Since(start) != time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		wg.Wait()
		for i := range 4 {
			patient(10 + i)
		}
		wg.Wait()
		if took := time.Since(start); took != 13*time.Second {
			t.Errorf("took %v, want 13s: 1, then 10 of patience and two commits", took)
		}
		for _, want := range [][]int{{3, 1, 2}, {10, 11, 12}, {13}} {
			if len(batches) == 0 || len(batches[0]) != len(want) || want[0] == 3 && !slices.Equal(batches[0], want) {
				t.Fatalf("batches %v, want next %v", batches, want)
			}
			batches = batches[1:]
		}
	})
}

// A panic in a commit is an error to everybody of its batch, and the next one is made all the same.
func TestGroupOutlivesAPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := durable.NewGroup(10, func(items []int) error {
			time.Sleep(time.Second)
			if slices.Contains(items, 2) {
				panic("a page that is none")
			}
			return nil
		})
		errs := make([]error, 4)
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				defer func() {
					if p := recover(); p != nil {
						errs[i] = errors.New("panicked")
					}
				}()
				if i == 3 {
					time.Sleep(1500 * time.Millisecond)
				}
				errs[i] = g.Do(t.Context(), i)
			})
			synctest.Wait()
		}
		wg.Wait()
		for i, want := range []string{"", "a page that is none", "a page that is none", ""} {
			if got := errs[i]; want == "" && got != nil || want != "" && (got == nil || !strings.Contains(got.Error(), want)) {
				t.Errorf("item %d: %v", i, got)
			}
		}
	})
}

func TestGroupRefusesACancelledCaller(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	g := durable.NewGroup(1, func([]int) error { t.Error("committed"); return nil })
	if err := g.Do(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestFlusher(t *testing.T) {
	dir := t.TempDir()
	f, err := durable.NewFlusher(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	file, err := os.Create(filepath.Join(dir, "letter"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := f.Flush(t.Context(), durable.Write{Files: []*os.File{file}, Dirs: []string{dir}}); err != nil {
		t.Error(err)
	}
}
