package users_test

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"relayd/relay/users"
)

// A thousand addresses guess at once, at what a password really costs. Neither somebody at the
// office nor somebody on the way, from where nobody has logged in before, waits for more than a few
// seconds, and the memory is that of a few computations.
func TestBruteForce(t *testing.T) {
	s, err := users.Open(filepath.Join(t.TempDir(), "users"))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{ann, bob} {
		if err := s.Add(t.Context(), address(t, n), "pass of "+n); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now()
	want(t, s, ann, "pass of "+ann, office, "in", 0, time.Minute)
	alone := time.Since(start)
	ctx, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	var begun sync.WaitGroup
	for i := range 1000 {
		begun.Add(1)
		from := netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)})
		all.Go(func() {
			begun.Done()
			if _, err := s.Authenticate(ctx, ann, fmt.Sprint("guess ", i), from); err == nil {
				t.Error("a guess was right")
			}
		})
	}
	begun.Wait()
	few := max(4*time.Second, 20*alone) // a busy machine, or the race detector, takes seconds for one
	want(t, s, bob, "pass of "+bob, office, "in", 0, few)
	want(t, s, bob, "pass of "+bob, netip.MustParseAddr("198.51.100.200"), "in", 0, few)
	want(t, s, ann, "pass of "+ann, netip.MustParseAddr("198.51.100.201"), "in", 0, few)
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if m.HeapInuse > 600<<20 {
		t.Errorf("%d MiB in use", m.HeapInuse>>20)
	}
	stop()
	all.Wait()
}
