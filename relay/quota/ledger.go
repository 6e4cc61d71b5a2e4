package quota

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"relayd/relay"
	"relayd/relay/durable"
)

// Counting goes by slots: the hour is the present one and the six before it, the day alike, so
// either is a few minutes longer than its name.
const (
	slotLength = 10 * time.Minute
	hourSlots  = int64(time.Hour / slotLength)
	daySlots   = 24 * hourSlots
)

// samples is how many subjects the postmaster is shown.
const samples = 3

// maxFile bounds what is read of the file.
const maxFile = 16 << 20

// Limit is how many recipients elsewhere a login may write to.
type Limit struct{ Hour, Day int }

// Account is what is known of one login.
type Account struct {
	User     relay.Address `json:"user"`
	Counts   []Count       `json:"counts,omitempty"`   // oldest first
	Subjects []string      `json:"subjects,omitempty"` // of its last letters, the newest first
	Held     time.Time     `json:"held,omitzero"`      // since when its letters are held
	Why      string        `json:"why,omitempty"`      // they are
	Told     bool          `json:"told,omitempty"`     // the postmaster knows

	telling bool
	era     int // begins anew with each Release
}

// Count is the recipients of one slot, numbered since 1970.
type Count struct {
	Slot int64 `json:"slot"`
	N    int   `json:"n"`
}

// Ledger is the accounts of all logins. Safe for many goroutines. There are no more of them than
// users who have written within a day or are held.
type Ledger struct {
	log    *slog.Logger
	keeper *durable.Keeper

	mu       sync.Mutex
	accounts map[relay.Address]*Account
}

// Open reads the file at path. One that is damaged is set aside, with an error in the log: letters
// that are held stay so whatever it says.
func Open(path string, log *slog.Logger) (*Ledger, error) {
	l := &Ledger{log: log.With("room", "quota"), accounts: map[relay.Address]*Account{}}
	l.keeper = durable.NewKeeper(path, l.state, l.log)
	err := l.read(path)
	if errors.Is(err, errDamaged) {
		l.log.Error("the counts of what users wrote are damaged and begin anew", "file", path, "err", err, "kept", path+".damaged")
		err = os.Rename(path, path+".damaged")
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("quota: %w", err)
	}
	return l, nil
}

var errDamaged = errors.New("the file is damaged")

func (l *Ledger) read(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Size() > maxFile {
		return fmt.Errorf("%w: %d octets", errDamaged, info.Size())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var list []*Account
	if err := json.Unmarshal(data, &list); err != nil {
		return fmt.Errorf("%w: %v", errDamaged, err)
	}
	for _, a := range list {
		if a == nil || a.User.IsNull() {
			return fmt.Errorf("%w: an account of nobody", errDamaged)
		}
		l.accounts[a.User] = a
	}
	return nil
}

// Charge is one letter that was counted. Exactly one of Accept and Refund follows.
type Charge struct {
	ledger *Ledger
	user   relay.Address
	n      int
	slot   int64
	why    string
	era    int
}

// Why says why the letter must be held; empty lets it go.
func (c *Charge) Why() string { return c.why }

// Count enters a letter of user to n recipients elsewhere, and judges it by limit.
func (l *Ledger) Count(user relay.Address, n int, subject string, limit Limit, now time.Time) *Charge {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.keeper.Changed()
	a := l.accounts[user]
	if a == nil {
		a = &Account{User: user}
		l.accounts[user] = a
	}
	slot := slotOf(now)
	a.prune(slot)
	a.add(slot, n)
	a.Subjects = slices.Insert(a.Subjects, 0, Subject(subject))
	a.Subjects = a.Subjects[:min(samples, len(a.Subjects))]
	why := a.Why
	if why == "" {
		why = a.over(limit, slot)
	}
	return &Charge{l, user, n, slot, why, a.era}
}

// over says which limit the account is over, if any.
func (a *Account) over(limit Limit, slot int64) string {
	for _, span := range []struct {
		name  string
		slots int64
		limit int
	}{{"an hour", hourSlots, limit.Hour}, {"a day", daySlots, limit.Day}} {
		if n := a.sum(slot - span.slots); n > span.limit {
			return fmt.Sprintf("%s wrote to %d recipients elsewhere within %s, and %d is the limit", a.User, n, span.name, span.limit)
		}
	}
	return ""
}

// Refund takes the letter back: it was not accepted after all.
func (c *Charge) Refund() {
	l := c.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	if a := l.accounts[c.user]; a != nil && a.era == c.era {
		a.add(c.slot, -c.n)
		l.keeper.Changed()
	}
}

// Outcome is what an accepted letter asks of the caller.
type Outcome int

// The outcomes. Freed: an operator has released the user since the letter was counted, so that a
// letter held meanwhile must be released too. Tell: it is the first to be held.
const (
	Nothing Outcome = iota
	Freed
	Tell
)

// Accept marks a held letter's user as held, durably. Call it when the letter is durable. After
// Tell, the caller tells the postmaster and then calls Told.
func (c *Charge) Accept(now time.Time) (Outcome, error) {
	if c.why == "" {
		return Nothing, nil
	}
	l := c.ledger
	l.mu.Lock()
	a := l.accounts[c.user]
	if a == nil || a.era != c.era {
		l.mu.Unlock()
		return Freed, nil
	}
	blown := a.Why == ""
	if blown {
		a.Why, a.Held = c.why, now.UTC().Round(time.Second)
	}
	outcome := Nothing
	if !a.Told && !a.telling {
		a.telling, outcome = true, Tell
	}
	l.mu.Unlock()
	if blown {
		return outcome, l.keeper.Save()
	}
	return outcome, nil
}

// Told enters whether the postmaster could be told; nil means that it is durable.
func (l *Ledger) Told(user relay.Address, ok bool) error {
	l.mu.Lock()
	if a := l.accounts[user]; a != nil && a.Why != "" {
		a.telling, a.Told = false, ok
	}
	l.mu.Unlock()
	return l.keeper.Save()
}

// Held are copies of the accounts whose letters are held, by name.
func (l *Ledger) Held() []Account {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []Account
	for _, a := range l.accounts {
		if a.Why != "" {
			held := *a
			held.Subjects = slices.Clone(a.Subjects)
			list = append(list, held)
		}
	}
	slices.SortFunc(list, func(a, b Account) int { return a.Held.Compare(b.Held) })
	return list
}

// Release lets a user's letters go again and counts from zero. It returns whether they were held,
// and with nil once that is durable; the letters held until then are the caller's to release.
func (l *Ledger) Release(user relay.Address) (held bool, err error) {
	l.mu.Lock()
	a := l.accounts[user]
	if a == nil {
		l.mu.Unlock()
		return false, nil
	}
	held = a.Why != ""
	*a = Account{User: user, era: a.era + 1}
	l.mu.Unlock()
	return held, l.keeper.Save()
}

// Run writes the file now and then until ctx ends.
func (l *Ledger) Run(ctx context.Context) { l.keeper.Run(ctx) }

// Close writes what Run has not.
func (l *Ledger) Close() error { return l.keeper.Close() }

// state is the file. Accounts that say nothing any more are left out; they stay in memory, for the
// eras of letters under way.
func (l *Ledger) state() ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := []*Account{}
	for _, a := range l.accounts {
		if len(a.Counts) > 0 || a.Why != "" {
			list = append(list, a)
		}
	}
	slices.SortFunc(list, func(a, b *Account) int {
		if a.User.String() < b.User.String() {
			return -1
		}
		return 1
	})
	return json.MarshalIndent(list, "", "\t")
}

func slotOf(t time.Time) int64 { return t.Unix() / int64(slotLength/time.Second) }

// prune forgets what is older than a day, or from a future that the clock has been set back from.
func (a *Account) prune(now int64) {
	a.Counts = slices.DeleteFunc(a.Counts, func(c Count) bool { return c.Slot < now-daySlots || c.Slot > now })
}

func (a *Account) add(slot int64, n int) {
	for i := range a.Counts {
		if a.Counts[i].Slot == slot {
			a.Counts[i].N = max(0, a.Counts[i].N+n)
			return
		}
	}
	if n > 0 {
		a.Counts = append(a.Counts, Count{slot, n})
	}
}

// sum counts from a slot on.
func (a *Account) sum(from int64) (n int) {
	for _, c := range a.Counts {
		if c.Slot >= from {
			n += c.N
		}
	}
	return n
}
