package maildir_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"relayd/delivery/maildir"
	"relayd/relay"
)

// session fetches and removes the letters of ann that are named by their numbers.
func session(t testing.TB, s *maildir.Store, from string, fetch, remove []int) {
	t.Helper()
	sessionOf(t, s, ann, from, fetch, remove)
}

func sessionOf(t testing.TB, s *maildir.Store, mailbox relay.Address, from string, fetch, remove []int) {
	t.Helper()
	d := drop(t, s, mailbox)
	d.SetClient(netip.MustParseAddr(from))
	for _, n := range fetch {
		d.Seen(n)
	}
	if err := d.Remove(remove...); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

// settler waits until the store has looked into all sessions before: it does so in their order, so
// bob gets an alarm of his own at the end.
type settler struct {
	times int
	bob   chan bool
}

func (w *settler) wait(t testing.TB, s *maildir.Store) {
	t.Helper()
	w.times++
	deliver(t, s, "x\r\n", bob)
	sessionOf(t, s, bob, "10.0.0.1", []int{1}, nil)
	sessionOf(t, s, bob, fmt.Sprintf("10.0.%d.1", w.times), []int{1}, []int{1})
	select {
	case <-w.bob:
	case <-time.After(10 * time.Second):
		t.Fatal("no alarm came")
	}
}

// The log tells who took and removed what, to its owner alone.
func TestFetches(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := keeping(t, root, time.Hour)
	deliver(t, s, "one\r\n", ann)
	uid := uids(drop1(t, s))[0]
	session(t, s, "192.0.2.7", []int{1}, nil)
	path := root + "/office.example/ann/fetches"
	f, _ := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	f.WriteString("2026-11-21T00:00:00Z fetched 192.0.2.9 torn")
	f.WriteString("\n2026 warned\n")
	f.Close()
	session(t, s, "2001:db8::1", []int{1}, []int{1})
	var got []string
	for f, err := range maildir.Fetches(root, ann) {
		if err != nil || time.Since(f.At) > time.Minute || f.UID != uid || f.ID == "" || f.Size != 5 {
			t.Errorf("%+v, %v", f, err)
		}
		got = append(got, f.Word+" "+f.Client.String())
	}
	if want := "[fetched 192.0.2.7 fetched 2001:db8::1 removed 2001:db8::1]"; fmt.Sprint(got) != want {
		t.Errorf("got  %v\nwant %s", got, want)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the log: %v, %v", info, err)
	}
}

// However much is fetched, the log stays small and keeps what came last.
func TestFetchesAreBounded(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := keeping(t, root, time.Hour)
	deliver(t, s, "one\r\n", ann)
	many := make([]int, 50_000)
	for i := range many {
		many[i] = 1
	}
	for i := range 3 {
		session(t, s, fmt.Sprintf("192.0.2.%d", i), many, nil)
	}
	session(t, s, "192.0.2.99", []int{1}, nil)
	var size int64
	for _, name := range []string{"fetches", "fetches.1"} {
		info, err := os.Stat(root + "/office.example/ann/" + name)
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	if size > 9<<20 {
		t.Errorf("the log has %d octets", size)
	}
	var last maildir.Fetch
	for f := range maildir.Fetches(root, ann) {
		last = f
	}
	if last.Client.String() != "192.0.2.99" {
		t.Errorf("the last is %+v", last)
	}
}

// One program never fetches a letter twice: only two that do, of which one removes them, are worth
// a word.
func TestAlarm(t *testing.T) {
	t.Parallel()
	type visit struct {
		from          string
		fetch, remove []int
		alarms        int // by then
	}
	both := []int{1, 2}
	for name, visits := range map[string][]visit{
		"a second client empties":          {{"192.0.2.7", both, nil, 0}, {"198.51.100.1", both, both, 1}},
		"over IPv6":                        {{"2001:db8::1", both, nil, 0}, {"2001:db8:0:1::1", both, both, 1}},
		"one program with two addresses":   {{"192.0.2.7", both, nil, 0}, {"198.51.100.1", nil, both, 0}},
		"another address in one network":   {{"192.0.2.7", both, nil, 0}, {"192.0.2.200", both, both, 0}},
		"another address in one /64":       {{"2001:db8::1", both, nil, 0}, {"2001:db8::2", both, both, 0}},
		"nobody else":                      {{"192.0.2.7", both, both, 0}},
		"reads now, removes one later":     {{"192.0.2.7", both, nil, 0}, {"198.51.100.1", both, []int{1}, 0}},
		"two that both leave letters here": {{"192.0.2.7", both, nil, 0}, {"198.51.100.1", both, nil, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			alarms := make(chan maildir.Emptying, 10)
			w := settler{bob: make(chan bool, 10)}
			s := keeping(t, t.TempDir(), time.Hour, maildir.WithAlarm(func(_ context.Context, e maildir.Emptying) error {
				if e.Mailbox == bob {
					w.bob <- true
					return nil
				}
				alarms <- e
				return nil
			}))
			deliver(t, s, "one\r\n", ann)
			deliver(t, s, "two\r\n", ann)
			for _, v := range visits {
				session(t, s, v.from, v.fetch, v.remove)
				w.wait(t, s)
				if len(alarms) != v.alarms {
					t.Fatalf("after %v: %d alarms", v, len(alarms))
				}
			}
			if len(alarms) > 0 {
				first, last := visits[0], visits[len(visits)-1]
				if e := <-alarms; e.Mailbox != ann || e.Client.String() != last.from || e.Other.String() != first.from ||
					e.Letters != 2 || time.Since(e.Last) > time.Minute {
					t.Errorf("told of %+v", e)
				}
			}
		})
	}
}

// Nobody hears of the same two clients again, unless it could not be told.
func TestAlarmOnce(t *testing.T) {
	t.Parallel()
	var told []string
	fail := true
	w := settler{bob: make(chan bool, 10)}
	s := keeping(t, t.TempDir(), time.Hour, maildir.WithAlarm(func(_ context.Context, e maildir.Emptying) error {
		if e.Mailbox == bob {
			w.bob <- true
			return nil
		}
		told = append(told, e.Other.String())
		if fail {
			return errors.New("nobody listens")
		}
		return nil
	}))
	again := func(reader string) {
		deliver(t, s, "one\r\n", ann)
		session(t, s, reader, []int{1}, nil)
		session(t, s, "198.51.100.1", []int{1}, []int{1})
		w.wait(t, s)
	}
	again("192.0.2.7")
	fail = false
	again("192.0.2.7")
	again("192.0.2.8")
	again("203.0.113.1")
	if got := strings.Join(told, " "); got != "192.0.2.7 192.0.2.7 203.0.113.1" {
		t.Errorf("told of %s", got)
	}
}
