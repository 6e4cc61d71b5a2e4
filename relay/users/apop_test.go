package users_test

import (
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"relayd/relay"
	"relayd/relay/users"
)

const (
	challenge = "<1896.697170952@dbc.mtview.ca.us>" // of RFC 1939
	secret    = "tanstaaf tanstaaf"
)

func digest(secret string) string {
	sum := md5.Sum([]byte(challenge + secret))
	return hex.EncodeToString(sum[:])
}

// A secret opens APOP and nothing else; a password does not open APOP.
func TestAPOP(t *testing.T) {
	t.Parallel()
	s, path := open(t, ann, bob)
	a := address(t, ann)
	if s.HasAPOP() {
		t.Error("offered where nobody has a secret")
	}
	for bad, want := range map[string]error{
		"": users.ErrPassword, "tanstaaf": users.ErrAPOP, secret + ":": users.ErrAPOP,
		"pass of " + ann: users.ErrAPOP, secret + "\n": users.ErrPassword,
	} {
		if err := s.SetAPOP(t.Context(), a, bad); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", bad, err, want)
		}
	}
	if err := s.SetAPOP(t.Context(), address(t, "nobody@office.example"), secret); !errors.Is(err, users.ErrUnknown) {
		t.Errorf("nobody's secret: %v", err)
	}
	if err := s.SetAPOP(t.Context(), a, "an older secret"+secret); err != nil {
		t.Fatal(err)
	}
	if err := s.SetAPOP(t.Context(), a, secret); err != nil || !s.HasAPOP() {
		t.Fatal(err)
	}
	if got := read(t, path+".apop"); strings.Count(got, "ann@office.example:{PLAIN}"+secret+"\n") != 1 || strings.Contains(got, "older") {
		t.Errorf("the file is %q", got)
	}
	if info, err := os.Stat(path + ".apop"); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	for _, c := range []struct {
		name, digest string
		want         bool
	}{
		{ann, digest(secret), true}, {"ANN", digest(secret), true},
		{ann, digest("pass of " + ann), false}, {ann, strings.ToUpper(digest(secret)), false}, {ann, "", false},
		{bob, digest(secret), false}, {bob, digest(""), false}, {bob, digest("pass of " + bob), false},
		{"nobody", digest(""), false}, {"", digest(""), false},
	} {
		who, err := s.APOP(t.Context(), c.name, challenge, c.digest, client)
		if err != nil && !errors.Is(err, relay.ErrDenied) {
			t.Error(err)
		}
		if (err == nil) != c.want || (who == a) != c.want {
			t.Errorf("%s %s: %v, %v", c.name, c.digest, who, err)
		}
	}
	if _, ok := login(t, s, ann, secret); ok {
		t.Error("the secret is good for a password")
	}
	if _, ok := login(t, s, ann, "pass of "+ann); !ok {
		t.Error("the password is gone")
	}
	checkAPOPEnds(t, s, path)
}

// checkAPOPEnds: a file that others may read is not used, and who goes takes the secret along.
func checkAPOPEnds(t *testing.T, s *users.Store, path string) {
	t.Helper()
	if err := os.Chmod(path+".apop", 0o640); err != nil || s.HasAPOP() {
		t.Errorf("a secret that others may read is used: %v", err)
	}
	if err := os.Chmod(path+".apop", 0o600); err != nil || !s.HasAPOP() {
		t.Errorf("the secret is not used: %v", err)
	}
	if list, err := s.List(); err != nil || !list[0].APOP || list[1].APOP {
		t.Errorf("listed %+v, %v", list, err)
	}
	if err := s.Remove(t.Context(), address(t, ann)); err != nil || s.HasAPOP() {
		t.Errorf("ann is gone, her secret is not: %v", err)
	}
	if err := s.RemoveAPOP(t.Context(), address(t, bob)); !errors.Is(err, users.ErrUnknown) {
		t.Errorf("bob's secret: %v", err)
	}
}

// Digests count with passwords.
func TestAPOPGuesses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	synctest.Test(t, func(t *testing.T) {
		s, err := users.Open(path, cheap)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Add(t.Context(), address(t, ann), "pass of "+ann); err != nil {
			t.Fatal(err)
		}
		if err := s.SetAPOP(t.Context(), address(t, ann), secret); err != nil {
			t.Fatal(err)
		}
		for i := range 10 {
			if _, err := s.APOP(t.Context(), ann, challenge, digest(fmt.Sprint(i)), guesser); !errors.Is(err, relay.ErrDenied) {
				t.Fatal(err)
			}
		}
		if _, err := s.APOP(t.Context(), ann, challenge, digest(secret), guesser); err == nil || errors.Is(err, relay.ErrDenied) {
			t.Errorf("the eleventh: %v", err)
		}
		want(t, s, ann, "pass of "+ann, guesser, "refused", 0, 0)
		if _, err := s.APOP(t.Context(), ann, challenge, digest(secret), office); err != nil {
			t.Errorf("the owner elsewhere: %v", err)
		}
	})
}
