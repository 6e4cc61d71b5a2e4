// Package users says who may log in, and which mailboxes exist. Its store is a passwd-file as
// Dovecot reads and writes it, one user a line, so that Dovecot can serve IMAP to the same people:
//
//	ann@office.example:{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$<salt>$<hash>
//
// relay/smtpd and pop3 hand names and passwords to Authenticate, relay/intake asks Mailbox who is
// there, and relayctl edits the file, whether the daemon runs or not: every use looks whether the
// file has changed. A line that cannot be read harms only its own user.
//
// A guess costs the same whether the name exists or not, only a few are computed at once because
// each takes 64 MiB of memory, and one address computes one at a time so that a guesser does not
// hold up people elsewhere; addresses from which somebody has logged in go first. Wrong passwords make the next wait, and after some of them a name is
// refused from that address for a while, and then the address as a whole. Passwords that were right are remembered for minutes, as a keyed hash
// in memory alone, so that a mail program that polls costs nothing.
package users

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"relayd/relay"
)

// What the callers of Add, SetPassword and Remove branch on.
var (
	ErrExists   = errors.New("there is a user of this name already")
	ErrUnknown  = errors.New("there is no user of this name")
	ErrName     = errors.New("this cannot be the name of a user")
	ErrPassword = errors.New("this cannot be a password")
)

// ErrBusy is within a *relay.Failure (454 4.7.0) of Authenticate: too many logins of one client wait
// already, or too many addresses guess at once.
var ErrBusy = errors.New("too many logins are waiting")

// User is one line of the file.
type User struct {
	Address relay.Address `json:"address"`
	Scheme  string        `json:"scheme"`           // how the password is kept: "ARGON2ID", "BLF-CRYPT", ...
	Problem string        `json:"problem,omitzero"` // why this user cannot log in; empty: can
	APOP    bool          `json:"apop,omitzero"`    // has a secret for APOP
}

// Store is the users file. Its methods may be called by many goroutines, and other programs may
// change the file meanwhile.
type Store struct {
	path     string
	log      *slog.Logger
	params   Params
	gate     *gate
	memory   *memory
	throttle *throttle
	secret   func() []byte // of made-up salts

	apop       apopBook
	iterations int // of new SCRAM verifiers

	computed atomic.Int64 // passwords, right or wrong

	mu    sync.Mutex
	table *table // never nil; replaced whole
	stamp stamp  // of the file the table was read from
	young bool   // the file was, when it was read
	data  []byte // what was read
	sour  string // the last trouble with reading, so that it is logged once
}

// Option changes how a Store is opened.
type Option func(*Store)

// WithLog gives the logger for lines that cannot be read. The default is silence.
func WithLog(log *slog.Logger) Option { return func(s *Store) { s.log = log } }

// WithParams sets what a new password costs. Tests make it cheap.
func WithParams(p Params) Option { return func(s *Store) { s.params = p } }

// WithIterations sets what a new SCRAM verifier costs. Tests make it cheap.
func WithIterations(n int) Option { return func(s *Store) { s.iterations = n } }

// WithTrusted says which clients are never refused as a whole: behind them are many people of ours.
func WithTrusted(trusted func(client netip.Addr) bool) Option {
	return func(s *Store) { s.throttle.trusted = trusted }
}

// Open reads the users file at path. That there is none yet is no error: Add makes it, with the
// mode 0600, in the folder that must exist.
func Open(path string, opts ...Option) (*Store, error) {
	// An edit replaces the file by renaming; through a link it would replace the link.
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	s := &Store{path: path, log: slog.New(slog.DiscardHandler), params: DefaultParams,
		gate: newGate(), memory: newMemory(), throttle: newThrottle(), table: newTable(nil), iterations: scramIterations}
	s.secret = sync.OnceValue(s.loadSecret)
	for _, o := range opts {
		o(s)
	}
	if err := s.refresh(); err != nil {
		return nil, fmt.Errorf("users: open: %w", err)
	}
	return s, nil
}

// Authenticate says whose mailbox a name and a password open. The name is an address in any case,
// or its local part alone where only one domain has such a user; the password must match exactly.
// relay.ErrDenied says that one of them is wrong; every other error is temporary, such as the
// *relay.Failure (454 4.7.0) for a client that has guessed too often. After wrong passwords it may
// take its time, at most half a minute.
func (s *Store) Authenticate(ctx context.Context, name, password string, client netip.Addr) (relay.Address, error) {
	if checkPassword(password) != nil {
		return relay.Address{}, relay.ErrDenied
	}
	return s.attempt(ctx, s.login(name, password, client), func(try *try) (bool, error) { return s.verdict(ctx, try) })
}

// attempt is one login that the throttle knows of; verdict says whether it is right.
func (s *Store) attempt(ctx context.Context, l login, verdict func(*try) (bool, error)) (relay.Address, error) {
	// Before the passwords remembered, too: a look at them is as good as a guess, and far cheaper.
	try, err := s.throttle.begin(l)
	if err != nil {
		return relay.Address{}, err
	}
	right, err := verdict(try)
	switch {
	case errors.Is(err, ErrBusy):
		try.undecided()
		f := relay.Refuse("users: gate", 454, "4.7.0", "too many logins are waiting, please try again in a minute")
		f.Err = err
		return relay.Address{}, f
	case err != nil:
		try.undecided()
		return relay.Address{}, fmt.Errorf("users: authenticate: %w", err)
	case !right:
		if until, failures := try.wrong(); !until.IsZero() {
			s.log.Warn("logins are refused for a while", "client", l.who.from, "user", l.whose(), "failures", failures, "until", until)
		}
		return relay.Address{}, relay.ErrDenied
	}
	try.right()
	return l.user.address, nil
}

// login is what a client says about itself.
type login struct {
	client   netip.Addr
	who      suspect
	user     *user // a decoy, unless known
	known    bool
	password string
	proof    proof
}

func (s *Store) login(name, password string, client netip.Addr) login {
	t := s.current()
	l := login{client: client, password: password}
	l.who = suspect{origin(client), s.memory.sum("nobody", strings.ToLower(name))}
	if l.user, l.known = t.byLogin(name); l.known {
		l.who.name = s.memory.sum("user", l.user.address.String())
	} else {
		// Without a user's hash to try, that of another is: which one depends on the name alone, so
		// that its cost is as steady as that of a real user.
		l.user = t.decoy(s.memory.pick(name, len(t.usable)), s.params)
	}
	l.proof = s.memory.proof(l.user, password)
	return l
}

// whose is the user of that name; null for nobody's.
func (l login) whose() relay.Address {
	if !l.known {
		return relay.Address{}
	}
	return l.user.address
}

// verdict waits for the try's turn and for its place at the gate, and looks at the password.
func (s *Store) verdict(ctx context.Context, try *try) (right bool, err error) {
	l := try.login
	if err := try.wait(ctx); err != nil {
		return false, err
	}
	if l.known && s.memory.has(l.proof) {
		return true, nil
	}
	release, err := s.gate.enter(ctx, l.client, l.user.verifier.memory(), func() bool { return s.throttle.regular(l) })
	if err != nil {
		return false, err
	}
	defer release()
	// Somebody before us in the line may have proved the same meanwhile.
	if l.known && s.memory.has(l.proof) {
		return true, nil
	}
	s.computed.Add(1)
	if right = l.user.verifies(l.password); !right || !l.known {
		return false, nil
	}
	s.memory.add(l.proof)
	return true, nil
}

// Exists says whether somebody has the mailbox a, in any case.
func (s *Store) Exists(a relay.Address) bool {
	_, ok := s.Mailbox(a)
	return ok
}

// Mailbox returns the one spelling of a under which its mail is kept, and whether somebody has it.
// A user who cannot log in because of a broken hash still has one: mail is not refused for it.
func (s *Store) Mailbox(a relay.Address) (relay.Address, bool) {
	a = Normalize(a)
	_, ok := s.current().users[a]
	return a, ok
}

// List returns all users by domain and name.
func (s *Store) List() ([]User, error) {
	if err := s.refresh(); err != nil {
		return nil, fmt.Errorf("users: list: %w", err)
	}
	var list []User
	secrets := s.apopSecrets()
	for a, u := range s.snapshot().users {
		list = append(list, User{Address: a, Scheme: u.scheme, Problem: u.problem, APOP: secrets[a] != ""})
	}
	slices.SortFunc(list, func(a, b User) int {
		if c := strings.Compare(string(a.Address.Domain), string(b.Address.Domain)); c != 0 {
			return c
		}
		return strings.Compare(a.Address.Local, b.Address.Local)
	})
	return list, nil
}

// current is the table as the file has it now. Where the file cannot be read or has vanished, the
// last one stays: an editor that swaps files must not make us refuse everybody's mail for good.
func (s *Store) current() *table {
	if err := s.refresh(); err != nil {
		s.complain("keeping the users known so far", err)
	}
	return s.snapshot()
}

func (s *Store) snapshot() *table {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.table
}

// complain logs a trouble with the file once, until there is another or none.
func (s *Store) complain(text string, err error) {
	s.mu.Lock()
	again := s.sour == err.Error()
	s.sour = err.Error()
	s.mu.Unlock()
	if !again {
		s.log.Error("users file: "+text, "file", s.path, "err", err)
	}
}

// refresh reads the file again if it has changed.
func (s *Store) refresh() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, young, err := stampOf(s.path)
	if err != nil {
		return s.missing(err)
	}
	// What was read while the file was young may have been changed since without a trace.
	if now == s.stamp && !s.young {
		return nil
	}
	if now.size == 0 && young && len(s.table.users) > 0 {
		return errEmptied
	}
	data, err := readAll(s.path)
	if err != nil {
		return s.missing(err)
	}
	s.stamp, s.young, s.sour = now, young, ""
	// For seconds after each change the file is read for every letter, and parsed only if it
	// does differ: the lines of a large office take a while.
	if s.data == nil || !bytes.Equal(s.data, data) {
		s.data, s.table = data, newTable(data)
		s.table.report(s.log, s.path)
	}
	return nil
}

// errEmptied is a file that was cut to nothing a moment ago: somebody is about to write it. Our
// own edits never leave an empty file.
var errEmptied = errors.New("the file is empty: waiting for it to be written")

// missing decides what it means that the file cannot be read. It is fine before there are users.
func (s *Store) missing(err error) error {
	if errors.Is(err, errNotExist) && len(s.table.users) == 0 {
		return nil
	}
	s.stamp = stamp{}
	return err
}
