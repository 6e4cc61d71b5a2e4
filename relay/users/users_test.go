package users_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"relayd/relay"
	"relayd/relay/users"
)

var cheap = users.WithParams(users.Params{Memory: 64, Time: 1, Threads: 1})

var client = netip.MustParseAddr("192.0.2.7")

func address(t testing.TB, s string) relay.Address {
	t.Helper()
	a, err := relay.ParseAddress(s, true)
	if err != nil {
		t.Fatal(s, err)
	}
	return a
}

// open makes a store with users whose password is "pass of NAME".
func open(t testing.TB, names ...string) (*users.Store, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "users")
	s, err := users.Open(path, cheap)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if err := s.Add(t.Context(), address(t, n), "pass of "+n); err != nil {
			t.Fatal(err)
		}
	}
	return s, path
}

func login(t testing.TB, s *users.Store, name, password string) (string, bool) {
	t.Helper()
	a, err := s.Authenticate(t.Context(), name, password, client)
	if err != nil && !errors.Is(err, relay.ErrDenied) {
		t.Fatalf("%q: %v", name, err)
	}
	if err != nil && a != (relay.Address{}) {
		t.Errorf("denied, and yet %v", a)
	}
	return a.String(), err == nil
}

func TestAuthenticate(t *testing.T) {
	t.Parallel()
	var _ relay.Authenticator = (*users.Store)(nil)
	s, _ := open(t, "ann@office.example", "bob@office.example", "bob@other.example", "rené@office.example")
	for _, c := range []struct{ name, password, want string }{
		{"ann@office.example", "pass of ann@office.example", "ann@office.example"},
		{"ann", "pass of ann@office.example", "ann@office.example"},
		{"ann@office.example.", "pass of ann@office.example", "ann@office.example"},
		{"ann@office.example", "pass of ann@office.exampl", ""},
		{"ann@office.example", "pass of ann@office.example ", ""},
		{"ann@office.example", "pass of bob@office.example", ""},
		{"ann@office.example", "", ""},
		{"ann@other.example", "pass of ann@office.example", ""},
		{"bob", "pass of bob@office.example", ""}, // which bob?
		{"bob@other.example", "pass of bob@other.example", "bob@other.example"},
		{"nobody", "pass of ann@office.example", ""},
		{"", "", ""},
		{"@", "x", ""},
		{"ann@", "pass of ann@office.example", ""},
		{"rene\u0301@office.example", "pass of rené@office.example", "rené@office.example"},
		{"RENÉ", "pass of rené@office.example", "rené@office.example"},
		{"ann\x00", "pass of ann@office.example", ""},
		{"ann\x00@office.example", "pass of ann@office.example", ""},
		{"ann", "pass of ann@office.example\x00", ""},
		{"ann", "pass of ann@office.example\x00x", ""},
		{"ann\r\n", "pass of ann@office.example", ""},
		{"../ann", "pass of ann@office.example", ""},
		{strings.Repeat("a", 10_000), "x", ""},
		{"ann", strings.Repeat("x", 10_000), ""},
	} {
		if got, ok := login(t, s, c.name, c.password); got != c.want || ok != (c.want != "") {
			t.Errorf("%q %q: %q, %v", c.name, c.password, got, ok)
		}
	}
}

// Seed S2.6: names match in any case, passwords exactly.
func TestSeed_S2_6_NamesInAnyCase(t *testing.T) {
	t.Parallel()
	s, _ := open(t, "Ann@Office.example")
	for _, name := range []string{"ann@office.example", "ANN@OFFICE.EXAMPLE", "aNn", "Ann@Office.Example"} {
		if got, ok := login(t, s, name, "pass of Ann@Office.example"); !ok || got != "ann@office.example" {
			t.Errorf("%s: %q, %v", name, got, ok)
		}
		if _, ok := login(t, s, name, "PASS of Ann@Office.example"); ok {
			t.Errorf("%s with the wrong case of the password", name)
		}
	}
	if a, ok := s.Mailbox(address(t, "ANN@office.example")); !ok || a != address(t, "ann@office.example") {
		t.Errorf("mailbox %v, %v", a, ok)
	}
	if !s.Exists(address(t, "aNN@office.example")) || s.Exists(address(t, "ann@other.example")) {
		t.Error("Exists is wrong")
	}
}

// Seed S1.9: users in a text file, one a line, hashes and never plain text.
func TestSeed_S1_9_TextFileOfHashes(t *testing.T) {
	t.Parallel()
	s, path := open(t, "ann@office.example", "bob@office.example")
	text := read(t, path)
	line := regexp.MustCompile(`(?m)^(ann|bob)@office\.example:\{ARGON2ID\}\$argon2id\$v=19\$m=64,t=1,p=1\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}$`)
	if got := line.FindAllString(text, -1); len(got) != 2 {
		t.Errorf("lines %q", text)
	}
	if strings.Contains(text, "pass of") {
		t.Error("a password in the clear")
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	appendTo(t, path, "eve@office.example:{PLAIN}open sesame\nmallory@office.example:secret\n")
	for _, c := range [][2]string{{"eve", "open sesame"}, {"mallory", "secret"}, {"mallory", ""}} {
		if _, ok := login(t, s, c[0], c[1]); ok {
			t.Errorf("%s logged in against plain text", c[0])
		}
	}
}

// Seed S4.11: users come, go and change their passwords while the server runs; here the edits are
// those of another process, for which another Store stands.
func TestSeed_S4_11_EditsAreSeenAtOnce(t *testing.T) {
	t.Parallel()
	daemon, path := open(t, "ann@office.example")
	ctl, err := users.Open(path, cheap)
	if err != nil {
		t.Fatal(err)
	}
	ann, carol := address(t, "ann@office.example"), address(t, "carol@office.example")
	if _, ok := login(t, daemon, "ann", "pass of ann@office.example"); !ok {
		t.Error("ann cannot log in")
	}
	if err := ctl.SetPassword(t.Context(), ann, "new"); err != nil {
		t.Fatal(err)
	}
	if _, ok := login(t, daemon, "ann", "pass of ann@office.example"); ok {
		t.Error("the old password still works")
	}
	if _, ok := login(t, daemon, "ann", "new"); !ok {
		t.Error("the new password does not work")
	}
	if err := ctl.Add(t.Context(), carol, "secret"); err != nil {
		t.Fatal(err)
	}
	if _, ok := login(t, daemon, "carol", "secret"); !ok || !daemon.Exists(carol) {
		t.Error("carol cannot log in")
	}
	if err := ctl.Remove(t.Context(), carol); err != nil {
		t.Fatal(err)
	}
	if _, ok := login(t, daemon, "carol", "secret"); ok || daemon.Exists(carol) {
		t.Error("carol is still there")
	}
}

// An edit in place that changes neither size nor inode is seen too, however soon it comes.
func TestEditInPlace(t *testing.T) {
	t.Parallel()
	s, path := open(t, "ann@office.example")
	text := read(t, path)
	for i := range 20 {
		name := fmt.Sprintf("u%02d@office.example", i)
		if err := os.WriteFile(path, []byte(strings.Replace(text, "ann@office.example", name, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		if i%2 == 1 {
			s.Mistake()
		}
		if !s.Exists(address(t, name)) {
			t.Fatalf("%s is not seen", name)
		}
	}
}

// Unknown names and wrong passwords cost the same: one computation each, of the same parameters.
func TestUnknownUserCostsTheSame(t *testing.T) {
	t.Parallel()
	s, path := open(t, "ann@office.example")
	appendTo(t, path, "locked@office.example:!\n")
	for _, name := range []string{"ann", "ann@office.example", "nobody", "nobody@office.example",
		"nobody@elsewhere.example", "locked", "not an address", "@", "a@b@c", ""} {
		before := s.Computed()
		if _, ok := login(t, s, name, "wrong"); ok {
			t.Errorf("%q logged in", name)
		}
		if n := s.Computed() - before; n != 1 {
			t.Errorf("%q cost %d computations", name, n)
		}
	}
	empty, _ := open(t)
	login(t, empty, "ann", "wrong")
	if n := empty.Computed(); n != 1 {
		t.Errorf("without any user a guess cost %d computations", n)
	}
}

// The password of a user whose hash stands in for nobody's opens nothing.
func TestDecoyOpensNothing(t *testing.T) {
	t.Parallel()
	s, _ := open(t, "ann@office.example")
	for range 2 {
		if _, ok := login(t, s, "nobody", "pass of ann@office.example"); ok {
			t.Fatal("nobody logged in as ann")
		}
		login(t, s, "ann", "pass of ann@office.example")
	}
}

func TestSuccessIsRemembered(t *testing.T) {
	t.Parallel()
	s, path := open(t, "ann@office.example")
	synctest.Test(t, func(t *testing.T) {
		step := func(what, name, password string, wantOK bool, wantComputed int64) {
			t.Helper()
			before := s.Computed()
			_, ok := login(t, s, name, password)
			if n := s.Computed() - before; ok != wantOK || n != wantComputed {
				t.Errorf("%s: %v after %d computations, want %v after %d", what, ok, n, wantOK, wantComputed)
			}
		}
		right := "pass of ann@office.example"
		step("first", "ann", right, true, 1)
		step("second", "ann", right, true, 0)
		step("other spelling", "ANN@office.example", right, true, 0)
		step("wrong password", "ann", right+"!", false, 1)
		step("wrong password again", "ann", right+"!", false, 1)
		time.Sleep(9 * time.Minute)
		step("after 9 minutes", "ann", right, true, 0)
		time.Sleep(2 * time.Minute)
		step("after 11 minutes", "ann", right, true, 1)
		step("and again", "ann", right, true, 0)

		text := read(t, path)
		if err := s.SetPassword(t.Context(), address(t, "ann@office.example"), "new"); err != nil {
			t.Fatal(err)
		}
		step("changed password", "ann", right, false, 1)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		step("old line back", "ann", right, true, 0)
		if err := s.Remove(t.Context(), address(t, "ann@office.example")); err != nil {
			t.Fatal(err)
		}
		step("removed", "ann", right, false, 1)
	})
}

// Many logins at the same time: all right ones succeed, and the same one is computed once.
func TestConcurrentLogins(t *testing.T) {
	t.Parallel()
	var names []string
	for i := range 8 {
		names = append(names, fmt.Sprintf("u%d@office.example", i))
	}
	s, _ := open(t, names...)
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			name := names[i%len(names)]
			if a, err := s.Authenticate(t.Context(), name, "pass of "+name, client); err != nil || a.String() != name {
				t.Errorf("%s: %v, %v", name, a, err)
			}
			if _, err := s.Authenticate(t.Context(), name, "wrong", client); !errors.Is(err, relay.ErrDenied) {
				t.Errorf("%s with a wrong password: %v", name, err)
			}
		})
	}
	wg.Wait()
	if n := s.Computed(); n != 8+64 {
		t.Errorf("%d computations, want 8 for the right and 64 for the wrong passwords", n)
	}
}

// A caller that gives up gets its own context's error, which is temporary.
func TestAuthenticateCancelled(t *testing.T) {
	t.Parallel()
	s, _ := open(t, "ann@office.example")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Authenticate(ctx, "ann", "wrong", client)
	if !errors.Is(err, context.Canceled) || errors.Is(err, relay.ErrDenied) {
		t.Errorf("%v", err)
	}
}

func TestGeneratePassword(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	form := regexp.MustCompile(`^[a-z]{4}(-[a-z]{4}){4}$`)
	for range 1000 {
		p := users.GeneratePassword()
		if !form.MatchString(p) || seen[p] {
			t.Fatalf("password %q", p)
		}
		seen[p] = true
	}
}

func TestNormalize(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"ANN@office.example": "ann@office.example", "E\u0301va@office.example": "éva@office.example",
		"ÅSA@office.example": "åsa@office.example", "A\u030asa@office.example": "åsa@office.example",
	} {
		if got := users.Normalize(address(t, in)); got != address(t, want) {
			t.Errorf("%q: %q", in, got)
		}
	}
}

// A line that cannot be used harms only its own user, and its number is logged once.
func TestBrokenLines(t *testing.T) {
	t.Parallel()
	_, path := open(t, "ann@office.example")
	good := read(t, path)
	whole := "garbage\n:\n\x00\xff\nnodomain:{ARGON2ID}x\n" +
		"cut@office.example:{ARGON2ID}$argon2id$v=19$m=65536,t=3\n" +
		"bomb@office.example:{ARGON2ID}$argon2id$v=19$m=4294967295,t=3,p=1$c2FsdHNhbHRzYWx0$c2FsdHNhbHRzYWx0c2FsdHNhbHQ\n" +
		good + "ann@office.example:{ARGON2ID}twice\n"
	if err := os.WriteFile(path, []byte(whole), 0o600); err != nil {
		t.Fatal(err)
	}
	var log lockedBuffer
	s, err := users.Open(path, cheap, users.WithLog(slog.New(slog.NewTextHandler(&log, nil))))
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, ok := login(t, s, "ann", "pass of ann@office.example"); !ok {
			t.Error("ann cannot log in")
		}
	}
	if !s.Exists(address(t, "cut@office.example")) {
		t.Error("mail for a user with a broken hash would be refused")
	}
	if n := strings.Count(log.String(), "\n"); n != 7 {
		t.Errorf("%d log lines, want one for each broken line:\n%s", n, log.String())
	}
	if strings.Contains(log.String(), "c2FsdHNhbHRzYWx0") {
		t.Error("a hash in the log")
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// A file that vanishes or is cut to nothing while an editor saves it does not empty the office.
func TestVanishingFile(t *testing.T) {
	t.Parallel()
	s, path := open(t, "ann@office.example")
	ann := address(t, "ann@office.example")
	text := read(t, path)
	if !s.Exists(ann) {
		t.Fatal("no ann")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if !s.Exists(ann) {
		t.Error("without the file ann is gone")
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if !s.Exists(ann) {
		t.Error("with an empty file ann is gone")
	}
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "ann@", "eve@")), 0o600); err != nil {
		t.Fatal(err)
	}
	if s.Exists(ann) || !s.Exists(address(t, "eve@office.example")) {
		t.Error("the new file is not seen")
	}
}

// Lines as doveadm pw and an existing Dovecot installation write them.
func TestDovecotLines(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "users")
	// The passwords are "password" (the argon2 command line tool's reference vector, RFC PHC) and
	// "U*U" (the crypt_blowfish test vector).
	text := "# from dovecot\n\n" +
		"ann@office.example:{ARGON2ID}$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc:5000:5000::/home/ann::userdb_mail=maildir:~/Maildir\n" +
		"Bob@office.example:{BLF-CRYPT}$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW::::::\r\n" +
		"carol@office.example:{CRYPT}$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW\n" +
		"dave@office.example:{SCRAM-SHA-256}4096,abc,def,ghi\n" +
		"eve@office.example:" + doveadmScram + "\n"
	if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
	s, err := users.Open(path, cheap)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, password string
		want           bool
	}{
		{"ann", "password", true}, {"ann", "passwore", false},
		{"bob", "U*U", true}, {"bob", "U*V", false}, {"carol", "U*U", true},
		{"dave", "4096", false}, {"eve", "pass wörd", true}, {"eve", "pass word", false},
	} {
		if _, ok := login(t, s, c.name, c.password); ok != c.want {
			t.Errorf("%s %s: %v", c.name, c.password, ok)
		}
	}
	list, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	want := []users.User{
		{Address: address(t, "ann@office.example"), Scheme: "ARGON2ID"},
		{Address: address(t, "bob@office.example"), Scheme: "BLF-CRYPT"},
		{Address: address(t, "carol@office.example"), Scheme: "BLF-CRYPT"},
		{Address: address(t, "dave@office.example"), Scheme: "SCRAM-SHA-256", Problem: "the password hash is malformed"},
		{Address: address(t, "eve@office.example"), Scheme: "SCRAM-SHA-256"},
	}
	if diff := cmp.Diff(want, list); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if err := s.SetPassword(t.Context(), address(t, "BOB@office.example"), "new"); err != nil {
		t.Fatal(err)
	}
	got := strings.Split(read(t, path), "\n")
	for i, line := range strings.Split(text, "\n") {
		if i != 3 && got[i] != line {
			t.Errorf("line %d became %q", i+1, got[i])
		}
	}
	if !strings.HasPrefix(got[3], "Bob@office.example:{ARGON2ID}$") || !strings.HasSuffix(got[3], "::::::") {
		t.Errorf("bob's line is %q", got[3])
	}
}

func read(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func appendTo(t testing.TB, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}
