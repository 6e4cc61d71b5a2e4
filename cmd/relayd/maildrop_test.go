package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// cheapUsers writes a users file of ann and n more, whose hashes cost next to nothing.
func (s *siege) cheapUsers(n int) {
	s.t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte("correct horse battery"), bcrypt.MinCost)
	if err != nil {
		s.t.Fatal(err)
	}
	var users strings.Builder
	fmt.Fprintf(&users, "ann@office.test:{BLF-CRYPT}%s\n", hash)
	for i := range n {
		fmt.Fprintf(&users, "user%d@office.test:{BLF-CRYPT}%s\n", i, hash)
	}
	if err := os.WriteFile(filepath.Join(s.dir, "data/users"), []byte(users.String()), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// maildir makes the mailbox of a user and returns its cur.
func (s *siege) maildir(user string) string {
	s.t.Helper()
	box := filepath.Join(s.dir, "data/mail/office.test", user)
	for _, sub := range []string{"tmp", "new", "cur"} {
		if err := os.MkdirAll(filepath.Join(box, sub), 0o700); err != nil {
			s.t.Fatal(err)
		}
	}
	return filepath.Join(box, "cur")
}

func (s *siege) open(user string, n int) *dialogue {
	s.t.Helper()
	d, err := s.stranger("pop3", n)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { d.Close() })
	d.expect("+OK")
	d.pop("USER " + user + "@office.test")
	if reply := d.pop("PASS correct horse battery"); !strings.HasPrefix(reply, "+OK") || d.err != nil {
		s.t.Fatalf("%s: %q, %v", user, reply, d.err)
	}
	return d
}

// TestHugeMaildrop opens a maildrop of 100,000 letters, as names of two files, and asks for all that
// a client asks. It must not take long, nor more than a few hundred octets a letter.
func TestHugeMaildrop(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector takes its several times the memory")
	}
	const letters, text = 100_000, "Subject: one of many\r\n\r\n"
	s := besiege(t)
	s.cheapUsers(0)
	cur := s.maildir("ann")
	name := func(n int) string {
		return filepath.Join(cur, fmt.Sprintf("%d.M%dP1.old.office.test,S=%d,W=%d:2,S", 1_700_000_000+n, n, len(text), len(text)))
	}
	for n := range letters {
		if n%50_000 > 0 { // ext4 gives a file 65,000 names
			if err := os.Link(name(n-n%50_000), name(n)); err != nil {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(name(n), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before := s.atRest()
	for range 2 { // from the disk, and from what is kept
		start := time.Now()
		d := s.open("ann", 0)
		if got, want := d.pop("STAT"), fmt.Sprintf("+OK %d %d\n", letters, letters*len(text)); got != want {
			t.Errorf("STAT: %q, want %q", got, want)
		}
		list, uidl := strings.Count(d.pop("LIST"), "\r\n"), strings.Count(d.pop("UIDL"), "\r\n")
		took := time.Since(start)
		if list != letters || uidl != letters || d.err != nil {
			t.Errorf("%d lines of LIST, %d of UIDL, %v", list, uidl, d.err)
		}
		if got := d.pop(fmt.Sprintf("RETR %d", letters)); !strings.HasSuffix(got, text) {
			t.Errorf("RETR: %q, %v", got, d.err)
		}
		d.pop("QUIT")
		t.Logf("open, STAT, LIST and UIDL of %d letters: %v", letters, took)
	}
	if grown := s.memory("VmHWM") - before; grown > 800*letters {
		t.Errorf("it took %d octets", grown)
	} else {
		t.Logf("%d octets a letter", grown/letters)
	}
}

// TestManyReaders has 500 people at their maildrops at once, each with a letter of their own.
func TestManyReaders(t *testing.T) {
	const readers = 500
	s := besiege(t)
	s.cheapUsers(readers)
	for i := range readers {
		letter := fmt.Sprintf("Subject: to user %d\r\n\r\n", i)
		if err := os.WriteFile(filepath.Join(s.maildir(fmt.Sprintf("user%d", i)), "1700000000.M1P1.old"), []byte(letter), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	all := make([]*dialogue, readers)
	for i := range all {
		all[i] = s.open(fmt.Sprintf("user%d", i), i)
	}
	var wg sync.WaitGroup
	for i, d := range all {
		wg.Go(func() {
			if got := d.pop("RETR 1"); !strings.Contains(got, fmt.Sprintf("Subject: to user %d\r\n", i)) {
				t.Errorf("user%d: %q, %v", i, got, d.err)
			}
		})
	}
	wg.Wait()
	if peak := s.memory("VmHWM"); peak > 60e6 && !raceEnabled {
		t.Errorf("%d octets", peak)
	}
	for _, d := range all {
		d.pop("QUIT")
	}
}

// TestHugeLetter sends a letter of a gigabyte, which is a hole in a file, in constant memory.
func TestHugeLetter(t *testing.T) {
	const size = 1 << 30
	s := besiege(t)
	s.cheapUsers(0)
	name := filepath.Join(s.maildir("ann"), fmt.Sprintf("1700000000.M1P1.old,S=%d,W=%d:2,", size, size))
	line := []byte("Subject: nothing\r\n\r\n")
	err := os.WriteFile(name, line, 0o600)
	if err == nil {
		err = os.Truncate(name, size)
	}
	if err != nil {
		t.Fatal(err)
	}
	d := s.open("ann", 0)
	d.write("RETR 1\r\n")
	d.expect("+OK")
	var last []byte
	octets, block := 0, make([]byte, 1<<20)
	for !bytes.HasSuffix(last, []byte("\r\n.\r\n")) {
		n, err := d.r.Read(block)
		if err != nil {
			t.Fatal(octets, err)
		}
		octets += n
		last = append(last[max(0, len(last)-5):], block[max(0, n-5):n]...)
	}
	if want := size + len("\r\n.\r\n"); octets != want {
		t.Errorf("%d octets, want %d", octets, want)
	}
	if peak := s.memory("VmHWM"); peak > 40e6 && !raceEnabled {
		t.Errorf("%d octets of memory", peak)
	}
	if got := d.pop("STAT"); got != fmt.Sprintf("+OK 1 %d\n", size) {
		t.Errorf("STAT: %q", got)
	}
	d.pop("QUIT")
}
