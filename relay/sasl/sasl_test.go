package sasl_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xdg-go/scram"

	"relayd/relay"
	"relayd/relay/sasl"
	"relayd/relay/users"
)

const (
	ann      = "ann@office.example" // has a SCRAM verifier
	old      = "old@office.example" // has an argon2id hash
	password = "correct horse"
)

var client = netip.MustParseAddr("192.0.2.7")

// office is a users file with ann and old; neither, where bare.
func office(t testing.TB, bare bool) *users.Store {
	t.Helper()
	s, err := users.Open(filepath.Join(t.TempDir(), "users"), users.WithIterations(4096),
		users.WithParams(users.Params{Memory: 64, Time: 1, Threads: 1}))
	if err != nil {
		t.Fatal(err)
	}
	for name, scheme := range map[string]string{"old": users.SchemeArgon2, "ann": users.SchemeScram} {
		if scheme == users.SchemeScram && bare {
			continue
		}
		if err := s.AddAs(context.Background(), relay.Address{Local: name, Domain: "office.example"}, password, scheme); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// handshake is both ends' view of one TLS connection.
func handshake(t testing.TB, version uint16) (server, client *tls.ConnectionState) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := net.Pipe()
	defer ours.Close()
	defer theirs.Close()
	s := tls.Server(ours, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, SessionTicketsDisabled: true})
	c := tls.Client(theirs, &tls.Config{InsecureSkipVerify: true, MinVersion: version, MaxVersion: version})
	done := make(chan error, 1)
	go func() { done <- c.Handshake() }()
	if err := errors.Join(s.Handshake(), <-done); err != nil {
		t.Fatal(err)
	}
	a, b := s.ConnectionState(), c.ConnectionState()
	return &a, &b
}

// Only what can work is offered.
func TestMechanisms(t *testing.T) {
	t.Parallel()
	new13, _ := handshake(t, tls.VersionTLS13)
	old12, _ := handshake(t, tls.VersionTLS12)
	plain, scrams := office(t, true), office(t, false)
	for _, c := range []struct {
		auth relay.Authenticator
		tls  *tls.ConnectionState
		want string
	}{
		{plain, new13, "PLAIN LOGIN"},
		{scrams, nil, "PLAIN LOGIN SCRAM-SHA-256"},
		{scrams, old12, "PLAIN LOGIN SCRAM-SHA-256"},
		{scrams, new13, "PLAIN LOGIN SCRAM-SHA-256 SCRAM-SHA-256-PLUS"},
		{struct{ relay.Authenticator }{scrams}, new13, "PLAIN LOGIN"},
	} {
		s := sasl.Session{Auth: c.auth, TLS: c.tls, Client: client}
		if got := strings.Join(s.Mechanisms(), " "); got != c.want {
			t.Errorf("offered %s, want %s", got, c.want)
		}
		for _, name := range []string{"PLAIN", "login", "Scram-Sha-256", "SCRAM-SHA-256-PLUS", "CRAM-MD5", ""} {
			if offered := slices.Contains(s.Mechanisms(), strings.ToUpper(name)); (s.Start(name) != nil) != offered {
				t.Errorf("%s: offered %v, and Start says otherwise", name, offered)
			}
		}
	}
}

// say gives an exchange messages until it is over; nil is no initial response.
func say(t testing.TB, x *sasl.Exchange, messages ...[]byte) (challenges []string, err error) {
	t.Helper()
	for _, m := range messages {
		challenge, done, err := x.Next(t.Context(), m)
		if err != nil || done {
			if done && x.Who().String() != ann {
				t.Errorf("in as %v", x.Who())
			}
			return challenges, err
		}
		challenges = append(challenges, string(challenge))
	}
	return challenges, errors.New("it is not over")
}

func TestPlainAndLogin(t *testing.T) {
	t.Parallel()
	s := sasl.Session{Auth: office(t, false), Client: client}
	m := func(text string) []byte { return []byte(text) }
	for _, c := range []struct {
		mech     string
		messages [][]byte
		want     error
		asked    string
	}{
		{"PLAIN", [][]byte{m("\x00ann\x00" + password)}, nil, ""},
		{"PLAIN", [][]byte{nil, m("ann\x00ann\x00" + password)}, nil, ""},
		{"PLAIN", [][]byte{m("old\x00ann\x00" + password)}, relay.ErrDenied, ""},
		{"PLAIN", [][]byte{m("\x00ann\x00wrong")}, relay.ErrDenied, ""},
		{"PLAIN", [][]byte{m("\x00ann\x00" + password + "\x00")}, relay.ErrLoginSyntax, ""},
		{"PLAIN", [][]byte{m("")}, relay.ErrLoginSyntax, ""},
		{"PLAIN", [][]byte{m("\x00ann\x00" + strings.Repeat("x", 5000))}, relay.ErrLoginSyntax, ""},
		{"LOGIN", [][]byte{nil, m("ann"), m(password)}, nil, "Username: Password:"},
		{"LOGIN", [][]byte{m("ann"), m(password)}, nil, "Password:"},
		{"LOGIN", [][]byte{m("ann"), m("wrong")}, relay.ErrDenied, "Password:"},
		{"LOGIN", [][]byte{m("ann\x00x"), m(password)}, relay.ErrDenied, "Password:"},
		{"LOGIN", [][]byte{m(""), m("")}, relay.ErrDenied, "Password:"},
	} {
		x := s.Start(c.mech)
		asked, err := say(t, x, c.messages...)
		if !errors.Is(err, c.want) || strings.TrimSpace(strings.Join(asked, " ")) != c.asked {
			t.Errorf("%s %q: %v after %q, want %v after %q", c.mech, c.messages, err, asked, c.want, c.asked)
		}
		if _, done, err := x.Next(t.Context(), c.messages[len(c.messages)-1]); done || !errors.Is(err, relay.ErrLoginSyntax) {
			t.Errorf("%s goes on after its end: %v %v", c.mech, done, err)
		}
	}
}

// SCRAM over a real TLS connection, bound to it and not; a proof that was made for another
// connection opens nothing.
func TestScram(t *testing.T) {
	t.Parallel()
	auth := office(t, false)
	server, mine := handshake(t, tls.VersionTLS13)
	_, another := handshake(t, tls.VersionTLS13)
	for _, c := range []struct {
		mech, name string
		bound      *tls.ConnectionState
		want       error
	}{
		{"SCRAM-SHA-256", ann, nil, nil},
		{"SCRAM-SHA-256-PLUS", ann, mine, nil},
		{"SCRAM-SHA-256-PLUS", ann, another, relay.ErrDenied},
		{"SCRAM-SHA-256", old, nil, relay.ErrDenied},
		{"SCRAM-SHA-256-PLUS", old, mine, relay.ErrDenied},
	} {
		x := sasl.Session{Auth: auth, Client: client, TLS: server}.Start(c.mech)
		err := prove(t, x, c.name, c.bound)
		if !errors.Is(err, c.want) || x.Name() != c.name || (err == nil) != (x.Who().String() == c.name) {
			t.Errorf("%s %s: %v as %v, want %v", c.mech, c.name, err, x.Who(), c.want)
		}
	}
}

func prove(t *testing.T, x *sasl.Exchange, name string, bound *tls.ConnectionState) error {
	t.Helper()
	c, err := scram.SHA256.NewClient(name, password, "")
	if err != nil {
		t.Fatal(err)
	}
	conv := c.NewConversation()
	if bound != nil {
		binding, err := scram.NewTLSExporterBinding(bound)
		if err != nil {
			t.Fatal(err)
		}
		conv = c.NewConversationWithChannelBinding(binding)
	}
	for challenge := ""; ; {
		answer, err := conv.Step(challenge)
		if err != nil {
			t.Fatal(err)
		}
		if conv.Done() {
			break
		}
		next, _, err := x.Next(t.Context(), []byte(answer))
		if err != nil {
			return err
		}
		challenge = string(next)
	}
	if !conv.Valid() {
		t.Error("the client does not believe the server")
	}
	_, done, err := x.Next(t.Context(), []byte{})
	if !done && err == nil {
		t.Error("the exchange is not over")
	}
	return err
}

// Whatever a client says by whatever mechanism: no panic, an end after four messages, no more than
// one of them remembered, and nobody is in who did not say the password.
func FuzzExchange(f *testing.F) {
	auth := office(f, false)
	server, _ := handshake(f, tls.VersionTLS13)
	names := []string{"PLAIN", "LOGIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"}
	f.Add(uint8(0), []byte("\x00ann\x00x"), []byte(""), []byte(""), true)
	f.Add(uint8(1), []byte("ann"), []byte("x"), []byte(""), false)
	f.Add(uint8(2), []byte("n,,n=ann,r=x"), []byte("c=biws,r=x,p=AAAA"), []byte(""), true)
	f.Add(uint8(3), []byte("p=tls-exporter,,n=ann,r=x"), []byte("c=biws,r=x,p=AAAA"), []byte("x"), true)
	f.Fuzz(func(t *testing.T, mech uint8, a, b, c []byte, initial bool) {
		x := sasl.Session{Auth: auth, Client: client, TLS: server}.Start(names[int(mech)%len(names)])
		messages := [][]byte{a, b, c, {}, {}}
		if !initial {
			messages = append([][]byte{nil}, messages...)
		}
		over := false
		for _, m := range messages {
			challenge, done, err := x.Next(t.Context(), m)
			if said := string(a) + string(b) + string(c); done && !strings.Contains(said, password) {
				t.Fatalf("%q is in as %v", messages, x.Who())
			}
			if over && err == nil {
				t.Fatalf("%q goes on after its end", messages)
			}
			if len(challenge) > 4096 || len(x.Name()) > 4096 {
				t.Fatalf("%d octets remembered", len(challenge)+len(x.Name()))
			}
			over = over || done || err != nil
		}
		if !over {
			t.Errorf("%q has no end", messages)
		}
		auth.Forgive(relay.Address{}, netip.Addr{}) // or the throttle answers from now on
	})
}
