package dmarc

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"relayd/relay/durable"
)

// Bounds of what is gathered. What does not fit is not reported; the log says how much that was.
const (
	maxDomains  = 1000
	maxRows     = 1000    // of one report
	maxOctets   = 4 << 20 // of all rows as the file has them: some 10,000
	maxSigns    = 8       // signatures of one letter (RFC 9990 §3.1.3 wants at most 100)
	maxFile     = 16 << 20
	maxReported = 255 // octets of a name in a report
)

// Account is what has been gathered for one domain, the one whose record was found.
type Account struct {
	Published Published `json:"published"` // as it was found last
	RUA       string    `json:"rua"`
	Begin     time.Time `json:"begin"`
	End       time.Time `json:"end,omitzero"` // the first moment after it; zero while letters are still counted
	Rows      []Record  `json:"rows"`
	Missed    int       `json:"missed,omitempty"`  // letters there was no room for
	Reports   int       `json:"reports,omitempty"` // letters, counted or missed, that are reports themselves

	index map[string]int
}

// Letters is how many letters have been counted.
func (a *Account) Letters() (n int) {
	for _, r := range a.Rows {
		n += r.Count
	}
	return n
}

// isEcho says whether nothing has come but reports. Reporting on those would be answered with a report
// on ours, and so on, a letter a day in each direction for ever.
func (a *Account) isEcho() bool { return a.Reports > 0 && a.Reports >= a.Letters()+a.Missed }

// Ledger gathers what reports will say. Its file is rewritten soon after a change, off the path of
// the letters: a crash costs the counts of its last seconds. Safe for many goroutines.
type Ledger struct {
	log    *slog.Logger
	keeper *durable.Keeper

	mu     sync.Mutex
	open   map[string]*Account // by domain
	closed []*Account          // to be sent
	size   int                 // of all rows, in octets of their keys
	cut    time.Time           // nothing begins before it: we were not there, or it has been reported
}

// Open reads the file at path. One that is missing or cannot be read is an empty ledger: no mail
// shall wait for it.
func Open(path string, log *slog.Logger) *Ledger {
	l := &Ledger{log: log.With("room", "dmarc"), open: map[string]*Account{}, cut: time.Now().UTC().Truncate(time.Second)}
	l.keeper = durable.NewKeeper(path, l.state, l.log)
	if err := l.read(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.log.Warn("what was gathered for DMARC reports cannot be read", "file", path, "err", err)
	}
	return l
}

func (l *Ledger) read(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for d := json.NewDecoder(io.LimitReader(f, maxFile)); ; {
		a := &Account{}
		if err := d.Decode(a); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		size := a.size()
		if l.size+size > maxOctets || len(a.Rows) > maxRows || a.Published.Domain == "" || len(l.open)+len(l.closed) >= maxDomains {
			continue
		}
		l.size += size
		if !a.End.IsZero() {
			l.closed = append(l.closed, a)
			continue
		}
		l.open[a.Published.Domain] = a
		a.index = map[string]int{}
		for i, r := range a.Rows {
			a.index[r.key()] = i
		}
	}
}

// key is the same for letters that are counted together: one record for each kind (RFC 9990 §3.1.1.7).
func (r Record) key() string {
	r.Count = 0
	b, _ := json.Marshal(r)
	return string(b)
}

// Note counts a letter. It never waits for the disk.
func (l *Ledger) Note(o Observation, now time.Time) {
	o.shorten()
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.open[o.Published.Domain]
	if a != nil && day(now).After(day(a.Begin)) {
		l.end(a, now)
		a = nil
	}
	if a == nil {
		if len(l.open)+len(l.closed) >= maxDomains {
			return
		}
		a = &Account{Begin: later(day(now), l.cut), index: map[string]int{}}
		l.open[o.Published.Domain] = a
	}
	a.Published, a.RUA = o.Published, o.RUA
	l.size += a.count(o.Record, maxOctets-l.size)
	if o.Report {
		a.Reports++
	}
	l.keeper.Changed()
}

// end closes an account at the end of its day or, before that, now. Called with mu held.
func (l *Ledger) end(a *Account, now time.Time) {
	delete(l.open, a.Published.Domain)
	a.End, a.index = now, nil
	if next := day(a.Begin).AddDate(0, 0, 1); next.Before(now) {
		a.End = next
	}
	l.closed = append(l.closed, a)
}

// count adds a letter to its row, and says by how much that has grown the rows; room is by how much
// they may grow.
func (a *Account) count(r Record, room int) int {
	key := r.key()
	i, known := a.index[key]
	switch {
	case known:
		a.Rows[i].Count++
		return 0
	case room < len(key) || len(a.Rows) >= maxRows:
		a.Missed++
		return 0
	}
	r.Count = 1
	a.index[key] = len(a.Rows)
	a.Rows = append(a.Rows, r)
	return len(key)
}

// size is what the rows take of maxOctets.
func (a *Account) size() (n int) {
	for _, r := range a.Rows {
		n += len(r.key())
	}
	return n
}

// shorten keeps strangers' names from filling the ledger.
func (o *Observation) shorten() {
	o.AuthDKIM = slices.Clone(o.AuthDKIM[:min(len(o.AuthDKIM), maxSigns)])
	o.AuthSPF = slices.Clone(o.AuthSPF[:min(len(o.AuthSPF), 1)])
	cut := func(all ...*string) {
		for _, s := range all {
			*s = (*s)[:min(len(*s), maxReported)]
		}
	}
	cut(&o.EnvelopeFrom, &o.HeaderFrom, &o.Published.FO)
	for i := range o.AuthDKIM {
		cut(&o.AuthDKIM[i].Domain, &o.AuthDKIM[i].Selector, &o.AuthDKIM[i].Human)
	}
	for i := range o.AuthSPF {
		cut(&o.AuthSPF[i].Domain)
	}
	if len(o.RUA) > maxRUA {
		o.RUA = ""
	}
}

// maxRUA bounds the addresses a record names, in octets.
const maxRUA = 2000

func day(t time.Time) time.Time { return t.UTC().Truncate(24 * time.Hour) }

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Cut ends every account that began before end: a report of it is due.
func (l *Ledger) Cut(end time.Time) {
	end = end.UTC().Truncate(time.Second)
	l.mu.Lock()
	for _, a := range l.open {
		if a.Begin.Before(end) {
			l.end(a, end)
		}
	}
	l.cut = later(l.cut, end)
	l.mu.Unlock()
	l.keeper.Changed()
}

// Due are the accounts whose reports are to be sent, the oldest first.
func (l *Ledger) Due() []*Account {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.closed)
}

// Settle forgets an account. nil means that this is durable.
func (l *Ledger) Settle(a *Account) error {
	l.mu.Lock()
	l.closed = slices.DeleteFunc(l.closed, func(have *Account) bool { return have == a })
	l.size -= a.size()
	l.mu.Unlock()
	return l.keeper.Save()
}

// Pending is a look at what has been gathered, by domain.
func (l *Ledger) Pending() []Account {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []Account
	for _, a := range l.closed {
		all = append(all, *a)
	}
	for _, a := range l.open {
		shown := *a
		shown.Rows = slices.Clone(a.Rows)
		all = append(all, shown)
	}
	slices.SortFunc(all, func(a, b Account) int {
		return cmp.Or(cmp.Compare(a.Published.Domain, b.Published.Domain), a.Begin.Compare(b.Begin))
	})
	return all
}

// state is the file: an account a line.
func (l *Ledger) state() ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	for _, a := range l.closed {
		if err := e.Encode(a); err != nil {
			return nil, err
		}
	}
	for _, a := range l.open {
		if err := e.Encode(a); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}

// Close writes what Run has not.
func (l *Ledger) Close() error { return l.keeper.Close() }
