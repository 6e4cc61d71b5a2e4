package users

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"relayd/relay"
)

var mib64 = int64(DefaultParams.Memory)

// A thousand guesses from one address delay somebody elsewhere by one computation at most.
func TestGateGuesserHoldsUpNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		var guesses sync.WaitGroup
		ctx, stop := context.WithCancel(t.Context())
		busy := 0
		for range 1000 {
			guesses.Go(func() {
				release, err := g.enter(ctx, netip.MustParseAddr("203.0.113.9"), mib64, stranger)
				switch {
				case errors.Is(err, ErrBusy):
					busy++
				case err == nil:
					time.Sleep(time.Second)
					release()
				}
			})
			synctest.Wait()
		}
		start := time.Now()
		release, err := g.enter(t.Context(), netip.MustParseAddr("192.0.2.1"), mib64, stranger)
		if err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(start); waited > time.Second {
			t.Errorf("waited %v", waited)
		}
		release()
		if busy != 1000-maxWaiting {
			t.Errorf("%d were turned away", busy)
		}
		stop()
		guesses.Wait()
		if len(g.lanes) != 0 {
			t.Errorf("%d lanes left behind", len(g.lanes))
		}
	})
}

// However many clients there are, the memory in use stays within the budget, also for hashes that
// take more than all of it.
func TestGateBoundsMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		var mu sync.Mutex
		var used, peak int64
		var all sync.WaitGroup
		for i := range 100 {
			kib := []int64{mib64, mib64 / 2, 100 * mib64}[i%3]
			all.Go(func() {
				release, err := g.enter(t.Context(), netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), kib, regular)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				used += min(kib, g.budget)
				peak = max(peak, used)
				mu.Unlock()
				time.Sleep(time.Second)
				mu.Lock()
				used -= min(kib, g.budget)
				mu.Unlock()
				release()
			})
		}
		all.Wait()
		if peak > g.budget || peak < mib64 {
			t.Errorf("peak %d KiB, budget %d KiB", peak, g.budget)
		}
		if len(g.lanes) != 0 {
			t.Errorf("%d lanes left behind", len(g.lanes))
		}
	})
}

// Who gives up while waiting for memory lets the next of its client have its turn.
func TestGateGivingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		full, err := g.enter(t.Context(), netip.MustParseAddr("192.0.2.1"), g.budget, regular)
		if err != nil {
			t.Fatal(err)
		}
		client := netip.MustParseAddr("192.0.2.2")
		ctx, stop := context.WithCancel(t.Context())
		var both sync.WaitGroup
		both.Go(func() {
			if _, err := g.enter(ctx, client, mib64, stranger); !errors.Is(err, context.Canceled) {
				t.Errorf("first: %v", err)
			}
		})
		synctest.Wait()
		both.Go(func() {
			release, err := g.enter(t.Context(), client, mib64, stranger)
			if err != nil {
				t.Errorf("second: %v", err)
				return
			}
			release()
		})
		synctest.Wait()
		stop()
		full()
		both.Wait()
		if len(g.lanes) != 0 {
			t.Errorf("%d lanes left behind", len(g.lanes))
		}
	})
}

func TestOrigin(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"192.0.2.1", "192.0.2.2", false},
		{"192.0.2.1", "::ffff:192.0.2.1", true},
		{"2001:db8::1", "2001:db8::2", true},
		{"2001:db8::1", "2001:db8:0:1::1", false},
		{"fe80::1%eth0", "fe80::1%eth1", true},
	} {
		if got := origin(netip.MustParseAddr(c.a)) == origin(netip.MustParseAddr(c.b)); got != c.same {
			t.Errorf("%s and %s: %v", c.a, c.b, got)
		}
	}
	origin(netip.Addr{})
}

// The memory of successes is bounded.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	m := newMemory()
	for i := range remembered + 10 {
		m.add(m.sum("test", string(rune(i))))
	}
	if n := len(m.until); n > remembered {
		t.Errorf("%d remembered", n)
	}
}

// No two lists of parts come to the same: ("ab", "c") is not ("a", "bc").
func TestProofsDiffer(t *testing.T) {
	t.Parallel()
	m := newMemory()
	if m.sum("ab", "c") == m.sum("a", "bc") || m.sum("a") == m.sum("a", "") {
		t.Error("parts run together")
	}
	if m.sum("a") == newMemory().sum("a") {
		t.Error("two processes have the same key")
	}
}

func TestParseHashBounds(t *testing.T) {
	t.Parallel()
	const tail = "$c2FsdHNhbHRzYWx0$c2FsdHNhbHRzYWx0c2FsdHNhbHQ"
	for hash, want := range map[string]error{
		"{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1" + tail:   nil,
		"{argon2id}$argon2id$v=19$m=65536,t=3,p=1" + tail:   nil,
		"$argon2id$v=19$m=65536,t=3,p=1" + tail:             nil,
		"{ARGON2ID}$argon2id$v=16$m=65536,t=3,p=1" + tail:   errMalformed,
		"{ARGON2ID}$argon2id$v=19$m=65536,t=0,p=1" + tail:   errMalformed,
		"{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=0" + tail:   errMalformed,
		"{ARGON2ID}$argon2id$v=19$m=7,t=3,p=1" + tail:       errMalformed,
		"{ARGON2ID}$argon2id$v=19$m=+65536,t=3,p=1" + tail:  errMalformed,
		"{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1,x" + tail: errMalformed,
		"{ARGON2ID}$argon2id$v=19$m=262145,t=3,p=1" + tail:  errExpensive,
		"{ARGON2ID}$argon2id$v=19$m=65536,t=99,p=1" + tail:  errExpensive,
		"{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=99" + tail:  errExpensive,
		"{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$$":        errMalformed,
		"{ARGON2ID}": errNoPassword,
		"{ARGON2ID}$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW":  errMalformed,
		"{BLF-CRYPT}$2a$31$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW": errBcryptCost,
		"{BLF-CRYPT}$2a$05$CCCC": errMalformed,
		"{PLAIN}x":               errPlain,
		"{MD5-CRYPT}$1$x$y":      errScheme,
		"secret":                 errScheme,
		"":                       errNoPassword,
		"!":                      errNoPassword,
		"{":                      errMalformed,
	} {
		_, v, err := parseHash(hash)
		if !errors.Is(err, want) || (v == nil) == (want == nil) {
			t.Errorf("%q: %v, %v", hash, v, err)
		}
	}
}

// What a new password costs is what the documentation says, and a stranger's hash is not needed
// to find the decoy: its parameters are ours.
func TestDecoyHasTheUsualCost(t *testing.T) {
	t.Parallel()
	line := "ann@office.example:" + hashPassword("x", Params{Memory: 128, Time: 2, Threads: 1}) + "\n"
	for _, c := range []struct {
		t    *table
		want Params
	}{{newTable([]byte(line)), Params{128, 2, 1}}, {newTable(nil), DefaultParams}} {
		v, ok := c.t.decoy(0, DefaultParams).verifier.(argon2Verifier)
		if !ok || v.params != c.want {
			t.Errorf("decoy %+v, want %+v", v.params, c.want)
		}
	}
}

// One RCPT command looks up one mailbox, and at most a few: the file is only looked at.
func BenchmarkMailbox(b *testing.B) {
	path := filepath.Join(b.TempDir(), "users")
	line := ":" + hashPassword("x", Params{Memory: 8, Time: 1, Threads: 1}) + "\n"
	var text strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&text, "user%d@office.example%s", i, line)
	}
	old := time.Now().Add(-time.Hour)
	if err := errors.Join(os.WriteFile(path, []byte(text.String()), 0o600), os.Chtimes(path, old, old)); err != nil {
		b.Fatal(err)
	}
	s, err := Open(path)
	if err != nil {
		b.Fatal(err)
	}
	a := relay.Address{Local: "user9999", Domain: "office.example"}
	for b.Loop() {
		if !s.Exists(a) {
			b.Fatal("gone")
		}
	}
}

func regular() bool  { return true }
func stranger() bool { return false }

// Among a thousand addresses that guess, a regular waits for one computation, and so does the latest
// stranger; the others lose patience, and nothing is left behind.
func TestGateManyAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		var all sync.WaitGroup
		var mu sync.Mutex
		served, tired := 0, 0
		for i := range 1000 {
			all.Go(func() {
				release, err := g.enter(t.Context(), netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)}), mib64, stranger)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					served++
					mu.Unlock()
					time.Sleep(time.Second)
					mu.Lock()
					release()
				case errors.Is(err, ErrBusy):
					tired++
				default:
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		for _, who := range []func() bool{regular, stranger} {
			start := time.Now()
			release, err := g.enter(t.Context(), netip.MustParseAddr("192.0.2.1"), mib64, who)
			if err != nil || time.Since(start) > time.Second {
				t.Errorf("%v after %v", err, time.Since(start))
				continue
			}
			release()
		}
		start := time.Now()
		all.Wait()
		if served+tired != 1000 || served == 0 || time.Since(start) > maxPatience+time.Second {
			t.Errorf("%d served and %d tired after %v", served, tired, time.Since(start))
		}
		if len(g.lanes)+len(g.strangers)+len(g.regulars) != 0 || g.free != g.budget {
			t.Errorf("left behind: %d lanes, %d KiB of %d", len(g.lanes), g.free, g.budget)
		}
	})
}
