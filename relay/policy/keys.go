package policy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"relayd/relay"
	"relayd/relay/durable"
)

// TXTResolver is the part of relay.Resolver that Keys ask. It should keep no answers: a record is
// looked for just after it was published.
type TXTResolver interface {
	TXT(ctx context.Context, name string) ([]string, error)
}

// Overlap is how long the record of an old key stays needed: as long as a letter may be under way,
// and some days for those who look at it later.
const Overlap = 8 * 24 * time.Hour

// How often the records are looked at: often while one is missing that should be there.
const (
	checkInterval = 10 * time.Minute
	checkSoon     = time.Minute
	// firstKeys is how long after the start keys are made for domains without: greeting the first
	// client need not wait for primes.
	firstKeys = time.Second
)

// What operators ask for in vain.
var (
	ErrNotVisible = errors.New("the record is not visible in the DNS")
	ErrNoKey      = errors.New("there is no such key")
	ErrInUse      = errors.New("the key is in use")
	ErrWaiting    = errors.New("there are next keys already")
)

// Keys is the signing keys of our domains, in one folder: DOMAIN/SELECTOR.pem, mode 0600. It is
// safe for many goroutines.
type Keys struct {
	dir string
	dns TXTResolver
	log *slog.Logger

	changing sync.Mutex // one change at a time; held while keys are made and records looked for
	domains  []relay.Domain
	complete bool // every one of domains has keys

	mu  sync.RWMutex
	all map[relay.Domain][]*Key // a Key in it is never changed, but replaced
}

// OpenKeys reads the keys in dir. A file that cannot be read is logged and left alone.
func OpenKeys(dir string, dns TXTResolver, log *slog.Logger) (*Keys, error) {
	ks := &Keys{dir: dir, dns: dns, log: log.With("room", "policy"), all: map[relay.Domain][]*Key{}}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("policy: %w", err)
	}
	for _, e := range entries {
		d, err := relay.ParseDomain(e.Name())
		if !e.IsDir() || err != nil {
			continue
		}
		if err := ks.read(d); err != nil {
			return nil, err
		}
	}
	return ks, nil
}

const (
	keySuffix     = ".pem"
	retiredSuffix = ".retired" // in the place of a key: its selector is not used again
)

func (ks *Keys) read(d relay.Domain) error {
	entries, err := os.ReadDir(filepath.Join(ks.dir, string(d)))
	if err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	var found []*Key
	for _, e := range entries {
		selector, ok := strings.CutSuffix(e.Name(), keySuffix)
		if _, err := relay.ParseDomain(selector); !ok || err != nil {
			continue
		}
		path := filepath.Join(ks.dir, string(d), e.Name())
		k, err := readKey(path, d, selector)
		if err != nil {
			ks.log.Error("a key cannot be used", "file", path, "err", err)
			continue
		}
		found = append(found, k)
	}
	ks.put(d, found)
	return nil
}

// SetDomains says which domains are to have keys, from now on.
func (ks *Keys) SetDomains(list []relay.Domain) {
	ks.changing.Lock()
	defer ks.changing.Unlock()
	ks.domains, ks.complete = slices.Clone(list), false
}

// ensure makes the keys of domains that have none. They are active at once, for there is nothing
// to rotate from, and sign when their records are seen. Called with changing held.
func (ks *Keys) ensure(ctx context.Context, now time.Time) error {
	if ks.complete {
		return nil
	}
	for _, d := range ks.domains {
		if len(ks.of(d)) > 0 || d.IsLiteral() {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := ks.add(d, Active, now); err != nil {
			return err
		}
		ks.log.Info("made keys to sign with", "domain", d)
	}
	ks.complete = true
	return nil
}

// of returns the keys of one domain in the order of put.
func (ks *Keys) of(d relay.Domain) []*Key {
	ks.mu.RLock()
	defer ks.mu.RUnlock()
	return slices.Clone(ks.all[d])
}

// put replaces the keys of one domain: those that sign first, of each algorithm the youngest.
func (ks *Keys) put(d relay.Domain, list []*Key) {
	order := map[Role]int{Active: 0, Next: 1, Old: 2}
	slices.SortStableFunc(list, func(a, b *Key) int {
		return cmp.Or(order[a.Role]-order[b.Role], cmp.Compare(b.Algorithm, a.Algorithm), b.Since.Compare(a.Since), cmp.Compare(b.Selector, a.Selector))
	})
	ks.mu.Lock()
	defer ks.mu.Unlock()
	ks.all[d] = list
}

// add makes one key of each algorithm.
func (ks *Keys) add(d relay.Domain, role Role, now time.Time) ([]*Key, error) {
	dir := filepath.Join(ks.dir, string(d))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	var made []*Key
	for _, algorithm := range []string{RSA, Ed25519} {
		selector, err := freeSelector(dir, algorithm, now)
		if err != nil {
			return nil, err
		}
		k, err := newKey(filepath.Join(dir, selector+keySuffix), Key{Domain: d, Selector: selector,
			Algorithm: algorithm, Role: role, Made: now, Since: now})
		if err != nil {
			return nil, err
		}
		made = append(made, k)
	}
	ks.put(d, append(ks.of(d), made...))
	return made, nil
}

// freeSelector is r202611 or e202611, and r202611b for the second of the month. Selectors are not
// used twice: the old record may be remembered somewhere.
func freeSelector(dir, algorithm string, now time.Time) (string, error) {
	base := algorithm[:1] + now.UTC().Format("200601")
	for i := range 26 {
		selector := base
		if i > 0 {
			selector += string(rune('a' + i))
		}
		_, err1 := os.Lstat(filepath.Join(dir, selector+keySuffix))
		_, err2 := os.Lstat(filepath.Join(dir, selector+retiredSuffix))
		if errors.Is(err1, fs.ErrNotExist) && errors.Is(err2, fs.ErrNotExist) {
			return selector, nil
		}
	}
	return "", fmt.Errorf("policy: %s: 26 keys in one month are enough", base)
}

// List returns every key, looked for in the DNS if fresh is set, and makes those that are missing.
func (ks *Keys) List(ctx context.Context, fresh bool) ([]Key, error) {
	ks.changing.Lock()
	defer ks.changing.Unlock()
	if err := ks.ensure(ctx, now()); err != nil {
		return nil, err
	}
	if fresh {
		ks.check(ctx)
	}
	return ks.list(), nil
}

// Known returns every key as it is known, without a wait.
func (ks *Keys) Known() []Key { return ks.list() }

func (ks *Keys) list() (out []Key) {
	ks.mu.RLock()
	defer ks.mu.RUnlock()
	for _, d := range slices.Sorted(maps.Keys(ks.all)) {
		for _, k := range ks.all[d] {
			out = append(out, *k)
		}
	}
	return out
}

// New makes the next keys of a domain. They sign after Rotate. ErrWaiting says that there are some.
func (ks *Keys) New(d relay.Domain) ([]Key, error) {
	ks.changing.Lock()
	defer ks.changing.Unlock()
	for _, k := range ks.of(d) {
		if k.Role == Next {
			return nil, fmt.Errorf("%s: %w: %s", d, ErrWaiting, k.Selector)
		}
	}
	made, err := ks.add(d, Next, now())
	return values(made), err
}

// Rotate has the next keys of a domain sign in the place of those that do. ErrNotVisible says
// which record is missing, ErrNoKey that there are no next keys.
func (ks *Keys) Rotate(ctx context.Context, d relay.Domain) ([]Key, error) {
	ks.changing.Lock()
	defer ks.changing.Unlock()
	ks.checkDomain(ctx, d)
	list := ks.of(d)
	turn := map[string]bool{}
	for _, k := range list {
		if k.Role != Next {
			continue
		}
		if !k.Visible {
			return nil, fmt.Errorf("%s: %w: %s", k.RecordName(), ErrNotVisible, cmp.Or(k.Problem, "the DNS does not answer"))
		}
		turn[k.Algorithm] = true
	}
	if len(turn) == 0 {
		return nil, fmt.Errorf("%s: %w: none is next", d, ErrNoKey)
	}
	// The new ones first: a crash in between leaves two active keys, of which the younger signs,
	// and never none.
	was := slices.Clone(list)
	for _, from := range []Role{Next, Active} {
		for i, k := range was {
			if k.Role != from || !turn[k.Algorithm] {
				continue
			}
			changed := *k
			changed.Since = now()
			changed.Role = map[Role]Role{Next: Active, Active: Old}[from]
			if err := changed.save(); err != nil {
				return nil, err
			}
			list[i] = &changed
		}
	}
	ks.put(d, list)
	return values(list), nil
}

// Retire removes a key for good; its selector is not used again. ErrInUse refuses an active key,
// and one whose letters may still be under way unless force is set.
func (ks *Keys) Retire(d relay.Domain, selector string, force bool) (Key, error) {
	ks.changing.Lock()
	defer ks.changing.Unlock()
	list := ks.of(d)
	i := slices.IndexFunc(list, func(k *Key) bool { return k.Selector == selector })
	if i < 0 {
		return Key{}, fmt.Errorf("%s of %s: %w", selector, d, ErrNoKey)
	}
	k := *list[i]
	switch until := k.Since.Add(Overlap); {
	case k.Role == Active:
		return k, fmt.Errorf("%s: %w: it signs", k.RecordName(), ErrInUse)
	case k.Role == Old && now().Before(until) && !force:
		return k, fmt.Errorf("%s: %w: letters it signed may be under way until %s", k.RecordName(), ErrInUse, until.Format(time.DateOnly))
	}
	if err := durable.Replace(strings.TrimSuffix(k.path, keySuffix)+retiredSuffix, nil); err != nil {
		return k, err
	}
	if err := os.Remove(k.path); err != nil {
		return k, fmt.Errorf("policy: %w", err)
	}
	ks.put(d, slices.Delete(list, i, i+1))
	return k, nil
}

func values(list []*Key) []Key {
	out := make([]Key, len(list))
	for i, k := range list {
		out[i] = *k
	}
	return out
}

// now is without the monotonic clock and fractions, as a key file has it.
func now() time.Time { return time.Now().UTC().Truncate(time.Second) }
