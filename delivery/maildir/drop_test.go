package maildir_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"relayd/delivery/maildir"
	"relayd/relay"
	"relayd/relay/relaytest"
)

func uids(d *maildir.Drop) (list []string) {
	for _, m := range d.Messages() {
		list = append(list, m.UID)
	}
	return list
}

// Letters come in order of delivery with the sizes RETR sends, whoever delivered them; folders,
// links and pipes are none.
func TestList(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := open(t, root)
	box := filepath.Join(root, "office.example", "ann")
	put(t, box+"/cur/1700000003.M1P2.other:2,RS", "no size in the name\nno end")
	put(t, box+"/new/1700000001.M1P2.other,S=99", "crlf\r\nlf\n\n")
	put(t, box+"/cur/1700000002.M1P2.other,S=5,W=6:2,", "abcd\n")
	put(t, box+"/new/1700000004.empty", "")
	put(t, box+"/new/.1700000000.being.written", "x")
	// Another program is just moving this one; or it did so while we were looking.
	put(t, box+"/new/1700000002.M1P2.other,S=5,W=6", "abcd\n")
	put(t, box+"/new/1700000005.folder/x", "x")
	put(t, root+"/secret", "x")
	os.Symlink(root+"/secret", box+"/new/1700000006.link")
	syscall.Mkfifo(box+"/new/1700000007.pipe", 0o600)
	d := drop(t, s, ann)
	got := fmt.Sprint(d.Messages())
	want := fmt.Sprint([]relay.Message{
		{UID: "1700000001.M1P2.other", Size: 6 + 4 + 2},
		{UID: "1700000002.M1P2.other", Size: 6},
		{UID: "1700000003.M1P2.other", Size: 21 + 8},
		{UID: "1700000004.empty", Size: 0},
	})
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if body := read(t, d, 3); body != "no size in the name\nno end" {
		t.Errorf("message 3: %q", body)
	}
	// A link that takes a letter's place afterwards is not followed either.
	os.Remove(box + "/new/1700000004.empty")
	os.Symlink(root+"/secret", box+"/new/1700000004.empty")
	if _, err := d.Open(4); err == nil {
		t.Error("followed a symbolic link")
	}
}

// Opening a maildrop of 10,000 letters neither reads nor stats one of them: they are all names of
// files whose content contradicts them and which nobody may read.
func TestOpenReadsNoLetter(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := open(t, root)
	box := filepath.Join(root, "office.example", "ann")
	const count = 10000
	put(t, box+"/tmp/one", "wrong")
	os.Mkdir(box+"/cur", 0o700)
	os.Mkdir(box+"/new", 0o700)
	os.Chmod(box+"/tmp/one", 0)
	for i := range count {
		sub := []string{"new", "cur"}[i%2]
		if err := os.Link(box+"/tmp/one", fmt.Sprintf("%s/%s/1700%06d.M1P2.other,S=900,W=1000", box, sub, i)); err != nil {
			t.Fatal(err)
		}
	}
	var before, after unix.Stat_t
	unix.Stat(box+"/tmp/one", &before)
	d := drop(t, s, ann)
	unix.Stat(box+"/tmp/one", &after)
	if before.Atim != after.Atim {
		t.Error("a letter was read")
	}
	if len(d.Messages()) != count {
		t.Fatalf("%d messages", len(d.Messages()))
	}
	for i, m := range d.Messages() {
		if m.Size != 1000 || m.UID != fmt.Sprintf("1700%06d.M1P2.other", i) {
			t.Fatalf("message %d: %+v", i+1, m)
		}
	}
}

// A unique-id depends on nothing but what never changes in a name, and fits POP3.
func TestUID(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := open(t, root)
	box := filepath.Join(root, "office.example", "ann")
	names := []string{
		"1700000001.plain", "1700000002.same,S=1,W=2", "1700000002.same,S=3,W=4",
		"1700000003." + strings.Repeat("long", 30), "1700000004.sp ace", "1700000005.\u00fcml", "1700000006.R0123456789abcdef.h,S=1,W=1", ",S=1,W=1",
	}
	for _, n := range names {
		put(t, box+"/new/"+n, "x")
	}
	os.Mkdir(box+"/cur", 0o700)
	d := drop(t, s, ann)
	first := uids(d)
	if len(first) != len(names) {
		t.Fatalf("%d uids", len(first))
	}
	for i, u := range first {
		if u == "" || len(u) > 70 || strings.ContainsFunc(u, func(r rune) bool { return r < 0x21 || r > 0x7e }) {
			t.Errorf("uid %q", u)
		}
		if slices.Contains(first[:i], u) {
			t.Errorf("uid %q twice", u)
		}
	}
	if id := d.Messages()[len(names)-1].ID; id != "0123456789abcdef" {
		t.Errorf("id %q", id)
	}
	for n := range names {
		d.Seen(n + 1)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if got := files(t, root, "cur"); len(got) != len(names) {
		t.Errorf("in cur: %v", got)
	}
	for _, path := range files(t, root, "cur") {
		os.Rename(path, strings.TrimSuffix(path, ":2,S")+":2,FRST")
	}
	again := uids(drop(t, open(t, root), ann))
	// Letters of one second may come in another order.
	slices.Sort(first)
	slices.Sort(again)
	if !slices.Equal(first, again) {
		t.Errorf("uids changed:\n%q\n%q", first, again)
	}
}

// One session at a time, in this process and in another; a crash leaves no lock behind.
func TestLock(t *testing.T) {
	// Not parallel: for a moment the new process holds the locks of every other test.
	root := t.TempDir()
	s := open(t, root)
	if _, err := s.Maildrop(t.Context(), ann); err != nil {
		t.Fatal(err) // never got a letter: empty, but a session nevertheless
	}
	if _, err := s.Maildrop(t.Context(), relay.Address{Local: "ANN", Domain: "office.example"}); !errors.Is(err, maildir.ErrInUse) {
		t.Errorf("second session: %v", err)
	}
	deliver(t, s, "x\r\n", bob)
	d := drop(t, s, bob)
	d.Close()
	d.Close()
	d = drop(t, s, bob)
	if _, err := open(t, root).Maildrop(t.Context(), bob); !errors.Is(err, maildir.ErrInUse) {
		t.Errorf("another process: %v", err)
	}
	d.Close()

	// Another process locks it and is killed.
	cmd := exec.Command("flock", "-x", "-o", filepath.Join(root, "office.example", "bob"), "sh", "-c", "echo locked; exec cat")
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Skip("no flock(1): ", err)
	}
	defer in.Close()
	out.Read(make([]byte, 10))
	if _, err := s.Maildrop(t.Context(), bob); !errors.Is(err, maildir.ErrInUse) {
		t.Errorf("while another process has it: %v", err)
	}
	cmd.Process.Kill()
	in.Close()
	cmd.Wait()
	d, err := s.Maildrop(t.Context(), bob)
	if err != nil {
		t.Fatalf("the lock outlived its holder: %v", err)
	}
	d.Close()
}

// Other programs move, flag and remove letters under our feet.
func TestOtherPrograms(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := open(t, root)
	for i := range 5 {
		deliver(t, s, fmt.Sprintf("%d\r\n", i), ann)
	}
	d := drop(t, s, ann)
	box := filepath.Join(root, "office.example", "ann")
	var content [6]string
	for n := 1; n <= 5; n++ {
		content[n] = read(t, d, n)
	}
	for i, path := range files(t, root, "new") {
		switch base := filepath.Base(path); i {
		case 0:
			os.Rename(path, box+"/cur/"+base+":2,F")
		case 1:
			os.Remove(path)
		case 2:
			os.Rename(path, box+"/cur/"+base+":2,")
		}
	}
	gone := 0
	for n := 1; n <= 5; n++ {
		r, err := d.Open(n)
		if errors.Is(err, maildir.ErrGone) {
			gone++
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		if got := read(t, d, n); got != content[n] {
			t.Errorf("message %d: %q, was %q", n, got, content[n])
		}
	}
	if gone != 1 {
		t.Errorf("%d gone", gone)
	}
	deliver(t, s, "meanwhile\r\n", ann)
	if err := d.Remove(1, 2, 3, 4, 5); err != nil {
		t.Error(err)
	}
	if _, err := d.Open(1); !errors.Is(err, maildir.ErrGone) {
		t.Errorf("open after remove: %v", err)
	}
	left := append(files(t, root, "new"), files(t, root, "cur")...)
	if len(left) != 1 {
		t.Fatalf("left %v", left)
	}
	if b, _ := os.ReadFile(left[0]); string(b) != "meanwhile\n" {
		t.Errorf("left %q", b)
	}
}

// Remove says which letters stay, and removes the others.
func TestRemoveSaysWhichStay(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := open(t, root)
	box := filepath.Join(root, "office.example", "ann")
	put(t, box+"/new/1.a,S=1,W=1", "x")
	put(t, box+"/new/2.b,S=1,W=1", "x")
	d := drop(t, s, ann)
	os.Remove(box + "/new/2.b,S=1,W=1")
	put(t, box+"/new/2.b,S=1,W=1/file", "a folder that is not empty cannot be removed")
	err := d.Remove(1, 2)
	re, ok := errors.AsType[*maildir.RemoveError](err)
	if !ok || !slices.Equal(re.NotRemoved(), []int{2}) {
		t.Errorf("remove: %v", err)
	}
	if _, err := os.Stat(box + "/new/1.a,S=1,W=1"); err == nil {
		t.Error("message 1 stays")
	}
}

// The flag S is added once, in its place among the others; what was removed is not marked.
func TestSeen(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := open(t, root)
	box := filepath.Join(root, "office.example", "ann")
	for _, n := range []string{"new/1.a", "cur/2.b:2,", "cur/3.c:2,FRT", "cur/4.d:2,S", "new/5.e", "cur/6.f:1,x"} {
		put(t, box+"/"+n+"", "x")
	}
	d := drop(t, s, ann)
	for n := range 6 {
		d.Seen(n + 1)
	}
	d.Remove(5)
	d.Close()
	var got []string
	for _, path := range files(t, root, "*") {
		got = append(got, strings.TrimPrefix(path, box+"/"))
	}
	want := []string{"cur/1.a:2,S", "cur/2.b:2,S", "cur/3.c:2,FRST", "cur/4.d:2,S", "cur/6.f:2,S"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// After a boot, letters of ours that are shorter than their names say are set aside before anybody
// lists them; after a mere restart nothing is touched.
func TestTornLetters(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	torn := "/office.example/ann/new/1700000001.R0123456789abcdef.h,S=100,W=101"
	put(t, root+torn, "half")
	put(t, root+"/office.example/ann/new/1700000002.R0123456789abcdef.h,S=5,W=6", "full\n")
	put(t, root+"/office.example/ann/new/1700000003.M1P1.other,S=100,W=101", "not ours")
	put(t, root+"/office.example/ann/tmp/x", "")
	put(t, root+"/"+maildir.BootFile, "another boot\n")
	s := open(t, root)
	if got := uids(drop(t, s, ann)); !slices.Equal(got, []string{"1700000002.R0123456789abcdef.h", "1700000003.M1P1.other"}) {
		t.Errorf("listed %v", got)
	}
	s.WaitSweep()
	if got := files(t, root, "tmp"); len(got) != 2 {
		t.Errorf("in tmp: %v", got)
	}
	put(t, root+torn, "half")
	s2 := open(t, root)
	s2.WaitSweep()
	if _, err := os.Stat(root + torn); err != nil {
		t.Errorf("a restart without a boot touched it: %v", err)
	}
}

// Litter in tmp/ goes after 36 hours, younger files and letters stay.
func TestLitter(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for name, age := range map[string]time.Duration{"old": 37 * time.Hour, "young": 35 * time.Hour} {
		for _, sub := range []string{"tmp", "new", "cur"} {
			path := filepath.Join(root, "office.example", "ann", sub, name)
			put(t, path, "x")
			when := time.Now().Add(-age)
			os.Chtimes(path, when, when)
		}
	}
	open(t, root).WaitSweep()
	if got := files(t, root, "*"); len(got) != 5 || slices.Contains(got, filepath.Join(root, "office.example", "ann", "tmp", "old")) {
		t.Errorf("left %v", got)
	}
}

func TestHostPart(t *testing.T) {
	t.Parallel()
	if got := maildir.HostPart("[IPv6:a/b,c]\n"); got != `[IPv6\072a\057b\054c]_` {
		t.Errorf("%q", got)
	}
}

// Opening a maildrop of 10,000 letters.
func BenchmarkMaildrop(b *testing.B) {
	root := b.TempDir()
	s := open(b, root)
	deliver(b, s, "x\r\n", ann)
	first := files(b, root, "new")[0]
	for i := range 9999 {
		os.Link(first, fmt.Sprintf("%s/1700%06d.R0123456789abcdef.mail.office.example,S=2,W=10480", filepath.Dir(first), i))
	}
	for b.Loop() {
		d, err := s.Maildrop(b.Context(), ann)
		if err != nil {
			b.Fatal(err)
		}
		d.Close()
	}
}

// Letters of 10 KiB, durable, by 1, 10 and 50 sessions.
func BenchmarkDeliver(b *testing.B) {
	body := []byte(strings.Repeat(strings.Repeat("x", 76)+"\r\n", 10<<10/78))
	for _, sessions := range []int{1, 10, 50} {
		b.Run(fmt.Sprint(sessions), func(b *testing.B) {
			s := open(b, b.TempDir())
			var left atomic.Int64
			left.Store(int64(b.N))
			done := make(chan error, sessions)
			b.ResetTimer()
			for i := range sessions {
				box := relay.Address{Local: fmt.Sprintf("user%d", i), Domain: "office.example"}
				go func() {
					for left.Add(-1) >= 0 {
						st, err := s.Stage(b.Context(), envelope(box))
						if err == nil {
							_, err = st.Write(body)
						}
						if err == nil {
							err = st.Commit(b.Context())
						}
						if err != nil {
							done <- err
							return
						}
					}
					done <- nil
				}()
			}
			for range sessions {
				if err := <-done; err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "letters/s")
		})
	}
}

// Whoever forks has our descriptors in the child until it calls exec. The mailbox is free all the same when
// its session is over.
func TestMaildropIsFreeDuringAFork(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := open(t, root)
	deliver(t, s, "Subject: one\r\n\r\none\r\n", ann)
	d := drop(t, s, ann)
	relaytest.HoldOpen(t, filepath.Join(root, "office.example", "ann"))
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	drop(t, s, ann)
}
