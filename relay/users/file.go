package users

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"relayd/relay"
)

var errNotExist = fs.ErrNotExist

// maxFile bounds the file: 100,000 users of 160 octets.
const maxFile = 16 << 20

var errTooLarge = errors.New("the file is larger than 16 MiB")

// stamp tells one state of the file from another.
type stamp struct {
	modified, changed int64 // nanoseconds
	size              int64
	inode             uint64
}

// settled is how old a change must be before the stamp can be trusted to tell the next one: clocks
// of file systems tick slowly.
const settled = 2 * time.Second

// stampOf also says whether the file is young: changed so lately that another change may look the
// same.
func stampOf(path string) (s stamp, young bool, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{}, false, err
	}
	s = stamp{modified: info.ModTime().UnixNano(), size: info.Size()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		s.inode, s.changed = sys.Ino, sys.Ctim.Nano()
	}
	return s, time.Since(info.ModTime()).Abs() < settled, nil
}

func readAll(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = errTooLarge
	}
	return data, err
}

// user is one line that names somebody.
type user struct {
	address  relay.Address // normalised
	scheme   string
	stored   string // the password field as it stands in the file
	verifier verifier
	problem  string // why verifier is nil
}

// table is one reading of the file, never changed afterwards.
type table struct {
	users   map[relay.Address]*user
	bare    map[string][]*user // by local part
	usable  []*user            // those with a verifier, in the order of the file
	kinds   []kind             // of SCRAM verifiers, each once
	domains map[relay.Domain]bool
	broken  []brokenLine
}

// maxKinds bounds what a stranger's name costs; an office has one or two.
const maxKinds = 16

type brokenLine struct {
	number int
	reason string
}

// newTable reads the lines. Like Dovecot it takes the first of several lines of one name.
func newTable(data []byte) *table {
	t := &table{users: map[relay.Address]*user{}, bare: map[string][]*user{}, domains: map[relay.Domain]bool{}}
	number := 0
	for line := range bytes.Lines(data) {
		number++
		u, reason := parseLine(string(line))
		if u != nil && t.users[u.address] != nil {
			u, reason = nil, "the name stands in an earlier line"
		}
		if reason != "" {
			t.broken = append(t.broken, brokenLine{number, reason})
		}
		if u == nil {
			continue
		}
		t.users[u.address] = u
		t.bare[u.address.Local] = append(t.bare[u.address.Local], u)
		t.domains[u.address.Domain] = true
		if u.verifier != nil {
			t.usable = append(t.usable, u)
		}
		if v, ok := u.verifier.(scramVerifier); ok && !slices.Contains(t.kinds, v.kind) && len(t.kinds) < maxKinds {
			t.kinds = append(t.kinds, v.kind)
		}
	}
	return t
}

// parseLine reads name:password:... A comment or an empty line gives neither user nor reason; a
// line whose password cannot be used gives both.
func parseLine(line string) (u *user, reason string) {
	line = strings.TrimRight(line, "\r\n")
	if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
		return nil, ""
	}
	name, rest, _ := strings.Cut(line, ":")
	a, err := relay.ParseAddress(name, true)
	if err != nil {
		return nil, "the name is not an address"
	}
	if a, err = newName(a); err != nil {
		return nil, err.Error()
	}
	stored, _, _ := strings.Cut(rest, ":")
	u = &user{address: a, stored: stored}
	u.scheme, u.verifier, err = parseHash(stored)
	if err != nil {
		u.problem = err.Error()
	}
	return u, u.problem
}

// report logs the lines that cannot be used, by number only: what they hold may be a password.
func (t *table) report(log *slog.Logger, path string) {
	const most = 20
	for i, b := range t.broken {
		if i == most {
			log.Warn("users file: more lines cannot be used", "file", path, "count", len(t.broken)-most)
			return
		}
		log.Warn("users file: a line cannot be used", "file", path, "line", b.number, "err", b.reason)
	}
}

// byLogin finds who logs in as name. A name without a domain is good where it can mean only one.
func (t *table) byLogin(name string) (*user, bool) {
	if !strings.Contains(name, "@") {
		name += "@bare.invalid"
		a, err := relay.ParseAddress(name, true)
		if err != nil {
			return nil, false
		}
		same := t.bare[Normalize(a).Local]
		if len(same) != 1 || same[0].verifier == nil {
			return nil, false
		}
		return same[0], true
	}
	a, err := relay.ParseAddress(name, true)
	if err != nil {
		return nil, false
	}
	u := t.users[Normalize(a)]
	return u, u != nil && u.verifier != nil
}

// decoy is a user whose password is computed in place of nobody's.
func (t *table) decoy(i int, p Params) *user {
	if len(t.usable) > 0 {
		return t.usable[i]
	}
	return &user{verifier: argon2Verifier{params: p, salt: make([]byte, saltLen), sum: make([]byte, sumLen)}}
}
