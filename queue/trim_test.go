package queue

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"relayd/relay"
)

func sparesOf(t *testing.T, letters int) (s *spares, dir string) {
	t.Helper()
	dir = t.TempDir()
	s, err := findSpares(filepath.Join(dir, "spare"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range letters {
		name := filepath.Join(dir, fmt.Sprint("body", i))
		if err := os.WriteFile(name, []byte("settled"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.discard(relay.ID(fmt.Sprint(i)), name); err != nil {
			t.Fatal(err)
		}
	}
	return s, dir
}

func spareFiles(t *testing.T, dir string) int {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "spare"))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// After a burst the spares that nobody needs go, bit by bit; those that are in use stay.
func TestSparesAreTrimmed(t *testing.T) {
	t.Parallel()
	const burst = keptSpares + 400
	s, dir := sparesOf(t, burst)
	s.removeUnused() // from now on it knows what is needed
	had := spareFiles(t, dir)
	newName := func(i int) string { return filepath.Join(dir, fmt.Sprint("new", i)) }
	for i := range had {
		f, err := s.create(newName(i))
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	for i := range had {
		if err := s.discard(relay.ID(fmt.Sprint("new", i)), newName(i)); err != nil {
			t.Fatal(err)
		}
	}
	if s.removeUnused(); spareFiles(t, dir) != had {
		t.Errorf("%d spares of %d that were all needed", spareFiles(t, dir), had)
	}
	for range 20 {
		if !s.removeUnused() {
			break
		}
	}
	if n := spareFiles(t, dir); n != keptSpares {
		t.Errorf("%d spares are kept, want %d", n, keptSpares)
	}
	if f, err := s.create(filepath.Join(dir, "last")); err != nil || spareFiles(t, dir) != keptSpares-1 {
		t.Errorf("what is left is not used: %v", err)
	} else {
		f.Close()
	}
}

// Trimming begins when there are many, with those of an earlier process too, and ends with stop.
func TestSparesAreTrimmedInTime(t *testing.T) {
	t.Parallel()
	_, dir := sparesOf(t, keptSpares+9)
	synctest.Test(t, func(t *testing.T) {
		s, err := findSpares(filepath.Join(dir, "spare"))
		if err != nil {
			t.Fatal(err)
		}
		stop := make(chan struct{})
		done := make(chan struct{})
		go func() { s.trim(stop); close(done) }()
		relay.Sleep(t.Context(), 30*trimEvery)
		synctest.Wait()
		if n := spareFiles(t, dir); n != keptSpares {
			t.Errorf("%d spares are kept, want %d", n, keptSpares)
		}
		close(stop)
		<-done
	})
}
