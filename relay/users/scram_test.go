package users_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xdg-go/scram"

	"relayd/relay"
	"relayd/relay/users"
)

// doveadmScram is what Dovecot 2.3's doveadm pw -s SCRAM-SHA-256 made of "pass wörd".
const doveadmScram = "{SCRAM-SHA-256}4096,4P7utzPMi4JN1WJvg9ZiPg==,TRzeAWUdsIo33J3GldvlRHMKTSzA/Y/ZwTsqMFAuvqI=,zDj6wP5AlkcpkPOmeuXk1txj8LmZ+jsXLaszxZTTmk8="

var quick = users.WithIterations(4096)

// prover is a SCRAM client.
type prover struct {
	name, password, as string
	theirs             []byte // the client's channel binding; nil: the client cannot
}

func (p prover) conversation(t testing.TB) *scram.ClientConversation {
	t.Helper()
	c, err := scram.SHA256.NewClientUnprepped(p.name, p.password, p.as)
	if err != nil {
		t.Fatal(err)
	}
	if p.theirs == nil {
		return c.NewConversation()
	}
	return c.NewConversationWithChannelBinding(scram.ChannelBinding{Type: scram.ChannelBindingTLSExporter, Data: p.theirs})
}

// prove runs an exchange to its end. The client must agree where the server lets it in.
func (p prover) prove(t testing.TB, s *users.Store, from netip.Addr, binding relay.ChannelBinding) (relay.Address, error) {
	t.Helper()
	client, x := p.conversation(t), s.Scram(from, binding)
	first, err := client.Step("")
	if err != nil {
		t.Fatal(err)
	}
	challenge, err := x.First(first)
	if err != nil {
		return relay.Address{}, err
	}
	final, err := client.Step(challenge)
	if err != nil {
		t.Fatal(err)
	}
	reply, who, err := x.Final(t.Context(), final)
	if err == nil {
		if _, err := client.Step(reply); err != nil || !client.Valid() {
			t.Errorf("%s does not believe us: %v", p.name, err)
		}
	} else if reply != "" || who != (relay.Address{}) {
		t.Errorf("denied, and yet %q %v", reply, who)
	}
	return who, err
}

func withScram(t *testing.T, s *users.Store, name, password string) {
	t.Helper()
	if err := s.AddAs(t.Context(), address(t, name), password, users.SchemeScram); err != nil {
		t.Fatal(err)
	}
}

// A verifier serves SCRAM and a password alike; an argon2id hash serves no SCRAM.
func TestScram(t *testing.T) {
	t.Parallel()
	s, path := open(t, "old@office.example")
	if s.HasScram() {
		t.Error("offered where nobody can use it")
	}
	s, err := users.Open(path, cheap, quick)
	if err != nil {
		t.Fatal(err)
	}
	withScram(t, s, "ann@office.example", "correct horse")
	appendTo(t, path, "eve@office.example:"+doveadmScram+"\n")
	if !s.HasScram() {
		t.Error("not offered")
	}
	for _, c := range []struct {
		prover
		want bool
	}{
		{prover{name: "ann@office.example", password: "correct horse"}, true},
		{prover{name: "ANN@Office.Example", password: "correct horse"}, true},
		{prover{name: "ann", password: "correct horse"}, true},
		{prover{name: "ann", password: "correct horse", as: "ann"}, true},
		{prover{name: "ann", password: "correct horse", as: "old@office.example"}, false},
		{prover{name: "ann", password: "wrong"}, false},
		{prover{name: "ann", password: ""}, false},
		{prover{name: "eve", password: "pass wörd"}, true},
		{prover{name: "eve", password: "correct horse"}, false},
		{prover{name: "old@office.example", password: "pass of old@office.example"}, false},
		{prover{name: "nobody@office.example", password: "correct horse"}, false},
		{prover{name: "", password: "correct horse"}, false},
	} {
		who, err := c.prove(t, s, client, relay.ChannelBinding{})
		if err != nil && !errors.Is(err, relay.ErrDenied) {
			t.Errorf("%+v: %v", c.prover, err)
		}
		if (err == nil) != c.want || err == nil && who.Local != strings.ToLower(c.name[:3]) {
			t.Errorf("%+v: %v, %v", c.prover, who, err)
		}
	}
	if _, ok := login(t, s, "ann", "correct horse"); !ok {
		t.Error("the password alone does not open it")
	}
	if _, ok := login(t, s, "ann", "correct hors"); ok {
		t.Error("a wrong password opens it")
	}
}

// A new password keeps its kind unless told otherwise.
func TestScramStays(t *testing.T) {
	t.Parallel()
	s, err := users.Open(filepath.Join(t.TempDir(), "users"), cheap, quick)
	if err != nil {
		t.Fatal(err)
	}
	a := address(t, "ann@office.example")
	withScram(t, s, ann, "one")
	for _, step := range []struct {
		set    func() error
		scheme string
	}{
		{func() error { return s.SetPassword(t.Context(), a, "two") }, "SCRAM-SHA-256"},
		{func() error { return s.SetPasswordAs(t.Context(), a, "two", users.SchemeArgon2) }, "ARGON2ID"},
		{func() error { return s.SetPassword(t.Context(), a, "two") }, "ARGON2ID"},
		{func() error { return s.SetPasswordAs(t.Context(), a, "two", users.SchemeScram) }, "SCRAM-SHA-256"},
	} {
		if err := step.set(); err != nil {
			t.Fatal(err)
		}
		list, err := s.List()
		if err != nil || list[0].Scheme != step.scheme {
			t.Errorf("%+v, want %s: %v", list, step.scheme, err)
		}
		if _, ok := login(t, s, "ann", "two"); !ok {
			t.Error("the password does not open it")
		}
	}
}

// What the server says before it has seen a proof does not tell who exists: a made-up salt is as
// long as a real one, the same each time and for each spelling of a name, even after a restart.
func TestScramHidesWhoExists(t *testing.T) {
	t.Parallel()
	_, path := open(t, "old@office.example", "old2@branch.example")
	s, err := users.Open(path, cheap, quick)
	if err != nil {
		t.Fatal(err)
	}
	withScram(t, s, ann, "x")
	again, err := users.Open(path, cheap, quick)
	if err != nil {
		t.Fatal(err)
	}
	salt := func(s *users.Store, name string) string {
		first, err := s.Scram(client, relay.ChannelBinding{}).First("n,,n=" + name + ",r=nonce")
		if err != nil {
			t.Fatal(name, err)
		}
		_, rest, _ := strings.Cut(first, ",s=")
		return rest // with the iterations
	}
	seen := map[string]string{}
	for _, name := range []string{"ann", "old", "old2", "zed", "yan"} {
		got := salt(s, name)
		office, branch := salt(s, strings.ToUpper(name)+"@Office.Example"), salt(s, name+"@branch.example")
		if (got == office) == (got == branch) {
			t.Errorf("%s has the salt %s, in the one domain %s and in the other %s", name, got, office, branch)
		}
		if got != salt(s, name) || got != salt(again, name) {
			t.Errorf("the salt of %s changes", name)
		}
		if len(got) != len(salt(s, "ann")) || !strings.HasSuffix(got, ",i=4096") {
			t.Errorf("%s gives itself away: %s", name, got)
		}
		if other, twice := seen[got]; twice {
			t.Errorf("%s and %s have the same salt", name, other)
		}
		seen[got] = name
	}
}

// Where the connection is bound, a proof made for another one is worth nothing, and neither is one
// whose client was not told of the binding.
func TestScramChannelBinding(t *testing.T) {
	t.Parallel()
	s, err := users.Open(filepath.Join(t.TempDir(), "users"), cheap, quick)
	if err != nil {
		t.Fatal(err)
	}
	withScram(t, s, ann, "x")
	ours, others := []byte(strings.Repeat("o", 32)), []byte(strings.Repeat("p", 32))
	for _, c := range []struct {
		theirs  []byte
		binding relay.ChannelBinding
		want    error
	}{
		{ours, relay.ChannelBinding{Exporter: ours, Required: true}, nil},
		{ours, relay.ChannelBinding{Exporter: ours}, nil},
		{others, relay.ChannelBinding{Exporter: ours, Required: true}, relay.ErrDenied},
		{nil, relay.ChannelBinding{}, nil},
		{nil, relay.ChannelBinding{Exporter: ours}, nil},
		{nil, relay.ChannelBinding{Exporter: ours, Required: true}, relay.ErrDenied},
		{ours, relay.ChannelBinding{}, relay.ErrLoginSyntax},
	} {
		_, err := prover{name: ann, password: "x", theirs: c.theirs}.prove(t, s, client, c.binding)
		if !errors.Is(err, c.want) {
			t.Errorf("client %.1q, server %.1q %v: %v, want %v", c.theirs, c.binding.Exporter, c.binding.Required, err, c.want)
		}
	}
}

// A client that cannot bind says "n", and may choose the mechanism without it.
func TestScramWithoutBinding(t *testing.T) {
	t.Parallel()
	s, err := users.Open(filepath.Join(t.TempDir(), "users"), cheap, quick)
	if err != nil {
		t.Fatal(err)
	}
	exporter := []byte(strings.Repeat("o", 32))
	if _, err := s.Scram(client, relay.ChannelBinding{Exporter: exporter}).First("n,,n=ann,r=nonce"); err != nil {
		t.Error(err)
	}
	if _, err := s.Scram(client, relay.ChannelBinding{Exporter: exporter, Required: true}).First("n,,n=ann,r=nonce"); err == nil {
		t.Error("the -PLUS mechanism without a binding")
	}
	// One that could, and says that it was not offered it, has been lied to.
	if _, err := s.Scram(client, relay.ChannelBinding{Exporter: exporter}).First("y,,n=ann,r=nonce"); !errors.Is(err, relay.ErrDenied) {
		t.Errorf("the offer was taken out of our list: %v", err)
	}
	if _, err := s.Scram(client, relay.ChannelBinding{}).First("y,,n=ann,r=nonce"); err != nil {
		t.Errorf("we did not offer it: %v", err)
	}
}

// Guesses by SCRAM count with those of passwords, a thousand at once are no better than one after
// the other, and the owner elsewhere does not wait.
func TestScramGuesses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	synctest.Test(t, func(t *testing.T) {
		s, err := users.Open(path, cheap, quick)
		if err != nil {
			t.Fatal(err)
		}
		withScram(t, s, ann, "pass of "+ann)
		var all sync.WaitGroup
		var mu sync.Mutex
		denied := 0
		for i := range 1000 {
			all.Go(func() {
				_, err := prover{name: ann, password: fmt.Sprint("guess ", i)}.prove(t, s, guesser, relay.ChannelBinding{})
				mu.Lock()
				defer mu.Unlock()
				switch _, refused := errors.AsType[*relay.Failure](err); {
				case errors.Is(err, relay.ErrDenied):
					denied++
				case !refused:
					t.Error(err)
				}
			})
		}
		start := time.Now()
		if _, err := (prover{name: ann, password: "pass of " + ann}).prove(t, s, office, relay.ChannelBinding{}); err != nil || time.Since(start) > 0 {
			t.Errorf("the owner elsewhere: %v after %v", err, time.Since(start))
		}
		all.Wait()
		if denied > 10 {
			t.Errorf("%d got a verdict", denied)
		}
		for i := range 10 - denied {
			prover{name: ann, password: fmt.Sprint("more ", i)}.prove(t, s, guesser, relay.ChannelBinding{})
		}
		want(t, s, ann, "pass of "+ann, guesser, "refused", 0, 0)
		want(t, s, ann, "pass of "+ann, office, "in", 0, 0)
	})
}

// A thousand strangers' logins that are never finished hold nothing and count nothing.
func TestScramUnfinished(t *testing.T) {
	t.Parallel()
	s, err := users.Open(filepath.Join(t.TempDir(), "users"), cheap, quick)
	if err != nil {
		t.Fatal(err)
	}
	withScram(t, s, ann, "x")
	for range 1000 {
		if _, err := s.Scram(client, relay.ChannelBinding{}).First("n,,n=ann,r=nonce"); err != nil {
			t.Fatal(err)
		}
	}
	if list := s.Guesses(); len(list) > 0 {
		t.Errorf("counted: %+v", list)
	}
	if _, err := (prover{name: "ann", password: "x"}).prove(t, s, client, relay.ChannelBinding{}); err != nil {
		t.Error(err)
	}
}

// A password is the same however its characters were typed; hashes made before spellings were
// unified, or by Dovecot, still open.
func TestSpellings(t *testing.T) {
	t.Parallel()
	const composed, decomposed = "caf\u00e9 \u00fc", "cafe\u0301\u00a0u\u0308"
	path := filepath.Join(t.TempDir(), "users")
	s, err := users.Open(path, cheap, quick)
	if err != nil {
		t.Fatal(err)
	}
	for i, set := range []string{composed, decomposed} {
		for _, scheme := range []string{users.SchemeArgon2, users.SchemeScram} {
			name := fmt.Sprintf("%s%d@office.example", strings.ToLower(scheme[:2]), i)
			if err := s.AddAs(t.Context(), address(t, name), set, scheme); err != nil {
				t.Fatal(err)
			}
			for _, typed := range []string{composed, decomposed} {
				if _, ok := login(t, s, name, typed); !ok {
					t.Errorf("%s set as %+q is not opened by %+q", scheme, set, typed)
				}
			}
			if _, ok := login(t, s, name, "cafe u"); ok {
				t.Error("an e without its accent opens it")
			}
		}
		// A client prepares what was typed (RFC 5802 §5.1), and that is the composed form.
		if _, err := (prover{name: fmt.Sprintf("sc%d", i), password: composed}).prove(t, s, client, relay.ChannelBinding{}); err != nil {
			t.Errorf("SCRAM, set as %+q: %v", set, err)
		}
	}
	appendTo(t, path, "raw@office.example:"+users.Hash(decomposed)+"\n")
	if _, ok := login(t, s, "raw", decomposed); !ok {
		t.Error("a hash of the decomposed form no longer opens")
	}
	if err := s.AddAs(t.Context(), address(t, "emoji@office.example"), "🐴🔋", users.SchemeScram); !errors.Is(err, users.ErrPassword) {
		t.Errorf("a verifier that no client may agree with: %v", err)
	}
}

// Whatever a client says: no panic, and nobody gets in who does not know the password.
func FuzzScram(f *testing.F) {
	dir := f.TempDir()
	s, err := users.Open(filepath.Join(dir, "users"), cheap, quick)
	if err != nil {
		f.Fatal(err)
	}
	if err := s.AddAs(context.Background(), address(f, ann), "correct horse", users.SchemeScram); err != nil {
		f.Fatal(err)
	}
	zero := base64.StdEncoding.EncodeToString(make([]byte, 32))
	f.Add("n,,n=ann,r=abc", "c=biws,r=NONCE,p="+zero, false)
	f.Add("y,a=ann,n=ann,r=abc", "c=biws,r=NONCE,m=x,p=AA==", true)
	f.Add("p=tls-exporter,,n=a=2Cnn,r=abc", "c=biws", true)
	f.Add("p=tls-unique,,n=ann,r=,", ",,,", true)
	f.Add("n,,m=1,n=ann,r=x", "", false)
	f.Add("n,,n=ann,r=", "c=biws,r=NONCE,p=", false)
	f.Fuzz(func(t *testing.T, first, final string, bound bool) {
		var binding relay.ChannelBinding
		if bound {
			binding.Exporter = []byte(strings.Repeat("b", 32))
		}
		x := s.Scram(client, binding)
		challenge, err := x.First(first)
		if err == nil {
			nonce, _, _ := strings.Cut(strings.TrimPrefix(challenge, "r="), ",s=")
			final = strings.ReplaceAll(final, "NONCE", nonce)
		}
		if len(challenge) > 4096 || len(x.Name()) > len(first) {
			t.Errorf("%d octets remembered", len(challenge))
		}
		if reply, who, err := x.Final(t.Context(), final); err == nil || reply != "" || !who.IsNull() {
			t.Errorf("%q %q got in as %v: %q", first, final, who, reply)
		}
		if _, _, err := x.Final(t.Context(), final); err == nil {
			t.Error("in at the second try")
		}
		s.Forgive(relay.Address{}, netip.Addr{}) // or the throttle answers from now on
	})
}
