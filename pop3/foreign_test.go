package pop3_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func write(t *testing.T, path, content string) {
	t.Helper()
	os.MkdirAll(filepath.Dir(path), 0o700)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// What other programs put into the maildir comes whole, ends where it ends, and leaves the session
// in step: without sizes in its name, with wrong ones, with CRLF or mixed line ends on disk.
func TestForeignFiles(t *testing.T) {
	t.Parallel()
	_, root, addr := overMaildirs(t)
	box := filepath.Join(root, "office.example", "ann")
	want := map[string]string{}
	for name, l := range map[string]struct{ disk, wire string }{
		"new/1700000001.M1P1.dovecot":               {"a: b\n\nno sizes\n", "a: b\r\n\r\nno sizes\r\n"},
		"cur/1700000002.M2P1.dovecot,S=16:2,":       {"a: b\r\n\r\ncrlf\r\n", "a: b\r\n\r\ncrlf\r\n"},
		"cur/1700000003.M3P1.dovecot,S=3,W=4:2,Sab": {"a: b\n\nlonger than its name says\n", "a: b\r\n\r\nlonger than its name says\r\n"},
		"new/1700000004.M4P1.dovecot,S=900,W=999":   {"a: b\n\nshorter\n", "a: b\r\n\r\nshorter\r\n"},
		"cur/1700000005.mutt_1.host:2,RS":           {"a: b\r\n\n.\r\nmixed\nno end", "a: b\r\n\r\n.\r\nmixed\r\nno end\r\n"},
		"cur/1700000006.mutt_2.host,W=-1,S=x:2,":    {"x\n", "x\r\n"},
	} {
		write(t, filepath.Join(box, name), l.disk)
		base, _, _ := strings.Cut(filepath.Base(name), ":")
		unique, _, _ := strings.Cut(base, ",")
		want[unique] = l.wire
	}
	for _, name := range []string{"dovecot-uidlist", "dovecot.index.log", "maildirsize", ".Sent/cur/1.x:2,S"} {
		write(t, filepath.Join(box, name), "not a letter")
	}
	c := dial(t, addr, "ann")
	c.ok("UIDL")
	uids := strings.Fields(c.body())
	if len(uids) != 2*len(want) {
		t.Fatalf("UIDL %v", uids)
	}
	for i := 1; i < len(uids); i += 2 {
		text := want[uids[i]]
		size := strings.Fields(c.ok("LIST " + uids[i-1]))[2]
		c.ok("RETR " + uids[i-1])
		if got := c.body(); got != text {
			t.Errorf("%s: %q, want %q", uids[i], got, text)
		}
		wrong := strings.Contains(uids[i], "M3P1") || strings.Contains(uids[i], "M4P1")
		if !wrong && size != strconv.Itoa(len(text)) {
			t.Errorf("%s: LIST %s, %d sent", uids[i], size, len(text))
		}
	}
	c.ok("QUIT")
	for _, kept := range []string{"dovecot-uidlist", "maildirsize", ".Sent/cur/1.x:2,S", "cur/1700000003.M3P1.dovecot,S=3,W=4:2,Sab", "cur/1700000001.M1P1.dovecot:2,S"} {
		if _, err := os.Stat(filepath.Join(box, kept)); err != nil {
			t.Error(err)
		}
	}
}

// A restored backup brings the same unique-ids back, wherever the files lay when it was made.
func TestRestore(t *testing.T) {
	t.Parallel()
	store, root, addr := overMaildirs(t)
	box := filepath.Join(root, "office.example", "ann")
	for i := range 3 {
		deliver(t, store, ann, strconv.Itoa(i)+"\r\n")
	}
	letters := func(remove bool) string {
		c := dial(t, addr, "ann")
		c.ok("UIDL")
		list := c.body()
		for n := range strings.Count(list, "\r\n") {
			c.ok("RETR " + strconv.Itoa(n+1))
			list += c.body()
			if remove {
				c.ok("DELE " + strconv.Itoa(n+1))
			}
		}
		c.ok("QUIT")
		return list
	}
	backup := map[string]string{}
	paths, _ := filepath.Glob(box + "/new/*")
	for _, path := range paths {
		data, _ := os.ReadFile(path)
		backup[path] = string(data)
	}
	before := letters(false)
	letters(true)
	if left := letters(false); left != "" {
		t.Fatalf("left %q", left)
	}
	for path, data := range backup {
		write(t, path, data)
	}
	if after := letters(false); after != before {
		t.Errorf("before %q, restored %q", before, after)
	}
}
