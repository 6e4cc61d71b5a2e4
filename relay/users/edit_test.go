package users_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"relayd/relay"
	"relayd/relay/users"
)

func TestSentinels(t *testing.T) {
	t.Parallel()
	s, path := open(t, "ann@office.example")
	before := read(t, path)
	ann, nobody := address(t, "ANN@office.example"), address(t, "nobody@office.example")
	for what, c := range map[string]struct{ got, want error }{
		"add ann again":     {s.Add(t.Context(), ann, "x"), users.ErrExists},
		"remove nobody":     {s.Remove(t.Context(), nobody), users.ErrUnknown},
		"password of noone": {s.SetPassword(t.Context(), nobody, "x"), users.ErrUnknown},
		"empty password":    {s.SetPassword(t.Context(), ann, ""), users.ErrPassword},
		"NUL in password":   {s.Add(t.Context(), nobody, "a\x00b"), users.ErrPassword},
		"newline":           {s.Add(t.Context(), nobody, "a\nb"), users.ErrPassword},
		"latin 1":           {s.Add(t.Context(), nobody, "caf\xe9"), users.ErrPassword},
		"long password":     {s.Add(t.Context(), nobody, strings.Repeat("x", 1025)), users.ErrPassword},
	} {
		if !errors.Is(c.got, c.want) {
			t.Errorf("%s: %v", what, c.got)
		}
	}
	if after := read(t, path); after != before {
		t.Errorf("the file became %q", after)
	}
}

// Names that would break a line of the file, a path or a login form are not given to anybody.
func TestNames(t *testing.T) {
	t.Parallel()
	s, path := open(t)
	for _, local := range []string{"", ".", "..", ".ann", "ann.", "a..b", "a/b", "../x", "a:b", "a b", "#ann",
		"a\x00b", "a\nb", "a\\b", `a"b`, "a@b", "a\u202eb", "a\u00a0b", "a\xff", strings.Repeat("a", 65)} {
		if err := s.Add(t.Context(), relay.Address{Local: local, Domain: "office.example"}, "x"); !errors.Is(err, users.ErrName) {
			t.Errorf("%q: %v", local, err)
		}
	}
	for _, a := range []relay.Address{{}, {Local: "ann"}, {Local: "ann", Domain: "[192.0.2.1]"}} {
		if err := s.Add(t.Context(), a, "x"); !errors.Is(err, users.ErrName) {
			t.Errorf("%v: %v", a, err)
		}
	}
	if _, err := os.Stat(path); err == nil {
		t.Errorf("the file was made: %q", read(t, path))
	}
	for _, local := range []string{"a", "o'neil", "x+y", "ann.smith", "büro", "日本", strings.Repeat("a", 64)} {
		if err := s.Add(t.Context(), relay.Address{Local: local, Domain: "office.example"}, "x"); err != nil {
			t.Errorf("%q: %v", local, err)
		}
		if got, ok := login(t, s, local+"@office.example", "x"); !ok {
			t.Errorf("%q cannot log in: %q", local, got)
		}
	}
}

// Edits keep what they are not about: comments, blank lines, strangers' lines, extra fields.
func TestEditsPreserve(t *testing.T) {
	t.Parallel()
	s, path := open(t)
	text := "# staff\n\nann@office.example:{PLAIN}x:1:2:::\n  \ngarbage without colon\n#bob@office.example:{PLAIN}y\nlast@office.example:{PLAIN}z"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Add(t.Context(), address(t, "bob@office.example"), "x"); err != nil {
		t.Fatal(err)
	}
	got := read(t, path)
	if !strings.HasPrefix(got, text+"\nbob@office.example:{ARGON2ID}") || strings.Count(got, "\n") != 8 {
		t.Errorf("after Add: %q", got)
	}
	if err := s.Remove(t.Context(), address(t, "bob@office.example")); err != nil {
		t.Fatal(err)
	}
	if got := read(t, path); got != text+"\n" {
		t.Errorf("after Remove: %q", got)
	}
}

// The last user gone does not leave an empty file, which would look like a save in progress.
func TestRemoveLast(t *testing.T) {
	t.Parallel()
	s, path := open(t)
	if err := os.WriteFile(path, []byte("ann@office.example:{PLAIN}x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), address(t, "ann@office.example")); err != nil {
		t.Fatal(err)
	}
	if s.Exists(address(t, "ann@office.example")) || read(t, path) == "" {
		t.Errorf("file %q", read(t, path))
	}
}

// Many programs add at once, and no user is lost.
func TestConcurrentEdits(t *testing.T) {
	t.Parallel()
	_, path := open(t)
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			s, err := users.Open(path, cheap)
			if err != nil {
				t.Error(err)
				return
			}
			if err := s.Add(t.Context(), address(t, fmt.Sprintf("u%d@office.example", i)), "x"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	s, err := users.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if list, err := s.List(); err != nil || len(list) != 12 {
		t.Errorf("%d users, %v", len(list), err)
	}
	left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*"))
	if len(left) != 2 { // the file and its lock
		t.Errorf("litter: %v", left)
	}
}

// Who cannot get the lock gives up with its context, and the file is not touched.
func TestEditWaitsForTheLock(t *testing.T) {
	t.Parallel()
	s, path := open(t, "ann@office.example")
	lock, err := os.OpenFile(path+".lock", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	before := read(t, path)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if err := s.Remove(ctx, address(t, "ann@office.example")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if read(t, path) != before {
		t.Error("the file was changed without the lock")
	}
}

// What a crash left is no obstacle, and modes never let the world read.
func TestReplace(t *testing.T) {
	t.Parallel()
	s, path := open(t, "ann@office.example")
	if err := os.WriteFile(path+".new", []byte("half"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := s.SetPassword(t.Context(), address(t, "ann@office.example"), "x"); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := os.Stat(path + ".new"); err == nil {
		t.Error("the temporary file is still there")
	}
}

// Root's relayctl leaves files that the daemon, who is not root, can read: they belong to whom the
// folder, and later the file, belongs.
func TestOwner(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	s, path := open(t)
	if err := os.Chown(filepath.Dir(path), 1234, 4321); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		ann := address(t, "ann@office.example")
		if err := errors.Join(s.Add(t.Context(), ann, "x"), s.Remove(t.Context(), ann)); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{path, path + ".lock"} {
			var st unix.Stat_t
			if err := unix.Stat(name, &st); err != nil || st.Uid != 1234 || st.Gid != 4321 || st.Mode&0o777 != 0o600 {
				t.Errorf("%s: owner %d:%d, mode %o, %v", name, st.Uid, st.Gid, st.Mode, err)
			}
		}
	}
}

// A link to the file stays a link.
func TestLink(t *testing.T) {
	t.Parallel()
	_, path := open(t, "ann@office.example")
	link := filepath.Join(t.TempDir(), "users")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	s, err := users.Open(link, cheap)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), address(t, "ann@office.example")); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Error("the link became a file")
	}
	if strings.Contains(read(t, path), "ann") {
		t.Error("the edit went elsewhere")
	}
}

// Whatever the file holds, reading it gives users with valid, normalised names, and an edit of one
// line leaves the others alone.
func FuzzFile(f *testing.F) {
	f.Add([]byte("# c\nann@office.example:{ARGON2ID}$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc:1:2\n"))
	f.Add([]byte("a@b:{BLF-CRYPT}$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW\r\nA@B:x\n\x00:y"))
	f.Add([]byte("\"q:r\"@b:x\n@:::\n#\n{ARGON2ID}\na@b:{\nÉ@b:$argon2id$$$$\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		path := filepath.Join(dir, "users")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := users.Open(path, cheap)
		if err != nil {
			t.Fatal(err)
		}
		before, err := s.List()
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range before {
			back, err := relay.ParseAddress(u.Address.String(), true)
			if err != nil || back != u.Address || users.Normalize(back) != back {
				t.Errorf("name %q: %v, %v", u.Address, back, err)
			}
			if strings.ContainsAny(u.Address.Local, "/:\x00\n\"") {
				t.Errorf("name %q", u.Address)
			}
		}
		guest := relay.Address{Local: "guest-of-the-fuzzer", Domain: "office.example"}
		if err := s.Add(t.Context(), guest, "x"); err != nil && !errors.Is(err, users.ErrExists) {
			t.Fatal(err)
		}
		if err := s.Remove(t.Context(), guest); err != nil {
			t.Fatal(err)
		}
		after := read(t, path)
		if want := strings.TrimSuffix(string(data), "\n"); strings.TrimSuffix(after, "\n") != want && want != "" {
			t.Errorf("%q became %q", data, after)
		}
	})
}
