package main

import (
	"testing"
	"time"

	"relayd/relay/relaytest"
)

// TestFootprint holds the memory relayd takes to what was promised: 15 MB at rest, 15 KB for each
// of 1,000 connections that have been greeted and say nothing, and 40 MB under load.
func TestFootprint(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector takes its several times the memory")
	}
	s := besiege(t)
	idle, own := s.atRest(), s.memory("RssAnon")
	greeted := s.crowd(t, 1000, "")
	each := (s.memory("RssAnon") - own) / greeted // the pages of the program that come back are not theirs
	t.Logf("at rest %.1f MB; %.1f KB for each of %d connections", float64(idle)/1e6, float64(each)/1e3, greeted)
	if idle > 15e6 {
		t.Errorf("%d octets at rest", idle)
	}
	if each > 15e3 {
		t.Errorf("%d octets for a connection", each)
	}
	s = besiege(t)
	own = s.memory("RssAnon")
	greeted = s.crowd(t, 1000, "EHLO stranger.example")
	t.Logf("%.1f KB for each of %d connections that have said EHLO", float64(s.memory("RssAnon")-own)/1e3/float64(greeted), greeted)
	s = besiege(t)
	r, err := relaytest.Load{
		Addr: s.d.addrs["smtp"], Sessions: 50, Letters: 5_000, Size: 10 << 10,
		Rcpt: func(int) []string { return []string{"ann@office.test"} },
	}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	peak := s.memory("VmHWM")
	t.Logf("%.1f MB at %.0f letters a second in 50 sessions", float64(peak)/1e6, r.PerSecond())
	if peak > 40e6 {
		t.Errorf("%d octets under load", peak)
	}
}

// atRest is the memory relayd holds when its start is over and forgotten.
func (s *siege) atRest() int {
	idle := s.memory("VmRSS")
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); idle > 15e6 && time.Now().Before(end); <-tick.C {
		idle = s.memory("VmRSS")
	}
	return idle
}

// crowd connects n strangers, lets each say one thing if any, and keeps them until the test ends.
func (s *siege) crowd(t *testing.T, n int, say string) int {
	t.Helper()
	for i := range n {
		d, err := s.stranger("smtp", i)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		if d.expect("220"); say != "" {
			d.say(say)
		}
		if d.err != nil {
			t.Fatal(d.err)
		}
	}
	return n
}
