package users_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"relayd/relay"
	"relayd/relay/users"
)

const (
	ann = "ann@office.example"
	bob = "bob@office.example"
)

var (
	guesser = netip.MustParseAddr("203.0.113.9")
	office  = netip.MustParseAddr("198.51.100.7")
)

// inOffice runs a test in a bubble with ann and bob, whose passwords are "pass of NAME".
func inOffice(t *testing.T, f func(t *testing.T, s *users.Store), opts ...users.Option) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "users")
	synctest.Test(t, func(t *testing.T) {
		s, err := users.Open(path, append(opts, cheap)...)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []string{ann, bob} {
			if err := s.Add(t.Context(), address(t, n), "pass of "+n); err != nil {
				t.Fatal(err)
			}
		}
		f(t, s)
	})
}

// outcome is how a login ends: "in", "denied" or "refused", and after how long.
func outcome(t *testing.T, s *users.Store, name, password string, from netip.Addr) (string, time.Duration) {
	t.Helper()
	start := time.Now()
	_, err := s.Authenticate(t.Context(), name, password, from)
	took := time.Since(start)
	f, isFailure := errors.AsType[*relay.Failure](err)
	switch {
	case err == nil:
		return "in", took
	case errors.Is(err, relay.ErrDenied):
		return "denied", took
	case isFailure && f.Reply.Code == 454 && f.Reply.Status == relay.Status{4, 7, 0}:
		return "refused", took
	}
	t.Fatal(err)
	return "", 0
}

func want(t *testing.T, s *users.Store, name, password string, from netip.Addr, result string, least, most time.Duration) {
	t.Helper()
	if got, took := outcome(t, s, name, password, from); got != result || took < least || took > most {
		t.Errorf("%s from %s: %s after %v, want %s after %v to %v", name, from, got, took, result, least, most)
	}
}

// guess tries n wrong passwords, each another, and returns how many got a verdict.
func guess(t *testing.T, s *users.Store, name string, from netip.Addr, n int) (verdicts int) {
	t.Helper()
	for i := range n {
		if got, _ := outcome(t, s, name, fmt.Sprintf("guess %d", i), from); got == "denied" {
			verdicts++
		}
	}
	return verdicts
}

// Each wrong password delays the next, and ten of one name are the end for a while: from there,
// not for the owner elsewhere.
func TestGuessingOneNameIsSlow(t *testing.T) {
	for _, name := range []string{ann, "nobody@office.example"} {
		inOffice(t, func(t *testing.T, s *users.Store) {
			for i, delay := range []time.Duration{0, 0, 0, 1, 2, 4, 8, 8, 8, 8} {
				want(t, s, name, fmt.Sprint("guess ", i), guesser, "denied", delay*time.Second, delay*time.Second)
			}
			want(t, s, name, "guess 11", guesser, "refused", 0, 0)
			want(t, s, ann, "pass of "+ann, office, "in", 0, 0)
			if name == ann {
				want(t, s, "ANN@office.example", "pass of "+ann, guesser, "refused", 0, 0)
				want(t, s, "ann", "pass of "+ann, guesser, "refused", 0, 0)
			}
			want(t, s, bob, "pass of "+bob, guesser, "in", 0, 0)
			time.Sleep(16 * time.Minute)
			want(t, s, name, "guess 12", guesser, "denied", 0, 8*time.Second)
			time.Sleep(16 * time.Minute)
			want(t, s, name, "guess 13", guesser, "refused", 0, 0) // this time it is half an hour
			time.Sleep(25 * time.Hour)
			want(t, s, name, "guess 14", guesser, "denied", 0, 0)
			want(t, s, name, "guess 15", guesser, "denied", 0, 0)
		})
	}
}

// A right password clears the name, and only a right one.
func TestRightPasswordClears(t *testing.T) {
	inOffice(t, func(t *testing.T, s *users.Store) {
		guess(t, s, ann, guesser, 7)
		want(t, s, ann, "pass of "+ann, guesser, "in", 8*time.Second, 8*time.Second)
		want(t, s, ann, "a slip", guesser, "denied", 0, 0)
		if got := s.Guesses(); len(got) != 2 || got[0].Failures+got[1].Failures != 1+8 {
			t.Errorf("got %+v", got)
		}
	})
}

// A thousand guesses at the same time are no better than one after the other, and hold nobody up.
func TestParallelGuesses(t *testing.T) {
	inOffice(t, func(t *testing.T, s *users.Store) {
		var all sync.WaitGroup
		before := s.Computed()
		for i := range 1000 {
			all.Go(func() { outcome(t, s, ann, fmt.Sprint("guess ", i), guesser) })
		}
		want(t, s, ann, "pass of "+ann, office, "in", 0, 0)
		all.Wait()
		if n := s.Computed() - before; n > 11 {
			t.Errorf("%d were computed", n)
		}
	})
}

// Nobody waits longer than half a minute for a verdict.
func TestLongWaitsAreRefused(t *testing.T) {
	inOffice(t, func(t *testing.T, s *users.Store) {
		want(t, s, ann, "pass of "+ann, office, "in", 0, 0)
		var all sync.WaitGroup
		for i := range 90 {
			all.Go(func() {
				if got, took := outcome(t, s, ann, fmt.Sprint("guess ", i), office); took > 30*time.Second || took > 0 && got == "refused" {
					t.Errorf("%s after %v", got, took)
				}
			})
		}
		all.Wait()
	})
}

// A mail program that goes on with an old password, on several connections, is one failure.
func TestSameWrongPasswordCountsOnce(t *testing.T) {
	inOffice(t, func(t *testing.T, s *users.Store) {
		for range 100 {
			want(t, s, ann, "the old one", office, "denied", 0, 0)
			time.Sleep(time.Minute)
		}
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() { want(t, s, ann, "pass of "+ann, office, "in", 0, 0) })
		}
		all.Wait()
	})
}

// The same guess twice is no way around the delay.
func TestSameGuessWaitsForItsTurn(t *testing.T) {
	inOffice(t, func(t *testing.T, s *users.Store) {
		guess(t, s, ann, guesser, 6)
		var both sync.WaitGroup
		for range 2 {
			both.Go(func() { want(t, s, ann, "another", guesser, "denied", 8*time.Second, 8*time.Second) })
			synctest.Wait()
		}
		both.Wait()
	})
}

// Who tries many names is refused as a whole, but for those who have logged in from there before;
// a trusted network never is.
func TestGuessingManyNames(t *testing.T) {
	trusted := netip.MustParseAddr("192.168.1.5")
	inOffice(t, func(t *testing.T, s *users.Store) {
		names := func(from netip.Addr, n int) (verdicts int) {
			for i := range n {
				verdicts += guess(t, s, fmt.Sprintf("name%d@office.example", i), from, 1)
			}
			return verdicts
		}
		want(t, s, ann, "pass of "+ann, office, "in", 0, 0)
		if n := names(guesser, 100); n != 50 {
			t.Errorf("a stranger tried %d", n)
		}
		want(t, s, ann, "pass of "+ann, guesser, "refused", 0, 0)
		if n := names(office, 550); n != 500 {
			t.Errorf("somebody behind the office's address tried %d", n)
		}
		want(t, s, ann, "pass of "+ann, office, "in", 0, 0)
		want(t, s, bob, "pass of "+bob, office, "refused", 0, 0)
		if n := names(trusted, 600); n != 600 {
			t.Errorf("in the trusted network %d were tried", n)
		}
		want(t, s, bob, "pass of "+bob, trusted, "in", 0, 0)
	}, users.WithTrusted(func(a netip.Addr) bool { return a == trusted }))
}

// Behind the office's address the owner waits while somebody guesses there, and is let in.
func TestOwnerIsNotLockedOut(t *testing.T) {
	inOffice(t, func(t *testing.T, s *users.Store) {
		want(t, s, ann, "pass of "+ann, office, "in", 0, 0)
		guess(t, s, ann, office, 50)
		want(t, s, ann, "pass of "+ann, office, "in", 8*time.Second, 8*time.Second)
		if n := guess(t, s, ann, office, 200); n != 100 {
			t.Errorf("%d guesses", n)
		}
	})
}

// A password that is remembered cannot be guessed at the speed of the memory.
func TestRememberedPasswordIsThrottled(t *testing.T) {
	inOffice(t, func(t *testing.T, s *users.Store) {
		want(t, s, ann, "pass of "+ann, office, "in", 0, 0)
		guess(t, s, ann, guesser, 10)
		want(t, s, ann, "pass of "+ann, guesser, "refused", 0, 0)
	})
}

// The 2^64 addresses that any IPv6 customer has are one.
func TestIPv6IsCountedByCustomer(t *testing.T) {
	inOffice(t, func(t *testing.T, s *users.Store) {
		verdicts := 0
		for i := range 100 {
			verdicts += guess(t, s, ann, netip.MustParseAddr(fmt.Sprintf("2001:db8:0:1::%x", i)), 1+i)
		}
		if verdicts > 13 {
			t.Errorf("%d guesses", verdicts)
		}
		want(t, s, ann, "pass of "+ann, netip.MustParseAddr("2001:db8:0:2::1"), "in", 0, 0)
	})
}

// Without a verdict nothing is counted.
func TestGivingUpIsNoFailure(t *testing.T) {
	inOffice(t, func(t *testing.T, s *users.Store) {
		guess(t, s, ann, guesser, 9)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Authenticate(ctx, ann, "the tenth", guesser); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		for _, g := range s.Guesses() {
			if g.Failures != 9 || g.Until.After(time.Now()) {
				t.Errorf("got %+v", g)
			}
		}
	})
}

func TestForgive(t *testing.T) {
	inOffice(t, func(t *testing.T, s *users.Store) {
		guess(t, s, ann, guesser, 20)
		guess(t, s, "nobody", guesser, 1)
		guess(t, s, bob, office, 1)
		if got := s.Guesses(); len(got) != 5 || got[0].Client.String() != "198.51.100.7/32" {
			t.Errorf("got %+v", got)
		}
		if n := s.Forgive(address(t, "ANN@office.example"), netip.Addr{}); n != 1 {
			t.Errorf("forgave %d", n)
		}
		want(t, s, ann, "pass of "+ann, guesser, "in", 0, 8*time.Second) // the address is slow still
		if n := s.Forgive(relay.Address{}, guesser); n != 2 {
			t.Errorf("forgave %d", n)
		}
		if n := s.Forgive(relay.Address{}, netip.Addr{}); n != 2 || len(s.Guesses()) != 0 {
			t.Errorf("forgave %d, left %+v", n, s.Guesses())
		}
	})
}
