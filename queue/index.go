package queue

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"relayd/relay"
)

// index is what the queue keeps in memory: for every item when it is due, for every domain who is
// first. About 200 octets an item. It is never saved: Open builds it from the records.
//
// Waiting is counted in nanoseconds of the monotonic clock since the queue was opened, so that a
// wall clock that jumps makes nothing due and nothing late.
type index struct {
	letters map[relay.ID]*letter
	dests   map[relay.Domain]*dest
	due     ranking[*dest]
	items   int
	held    int
	taken   int
	octets  int64
}

// letter is one body and the items that still need it.
type letter struct {
	id      relay.ID
	size    int64
	entries []*entry // sorted by domain
	one     [1]*entry
}

// dest is one domain and those of its items that wait.
type dest struct {
	domain  relay.Domain
	waiting ranking[*entry]
	items   int // waiting, held and taken
	at      int32
	aside   bool // Take is looking at it: it is out of index.due until Take puts it back
}

// entry is one item.
type entry struct {
	letter    *letter
	dest      *dest
	due       int64 // when it competes to be taken; while taken, when it counts as forgotten
	next      int64 // when it is due by its record, or by begun
	at        int32
	held      bool
	taken     bool
	gone      bool
	scheduled bool          // next was set by an operator
	fresh     bool          // came after Open, and has never been taken
	ahead     time.Duration // clock.ahead when it came; it never changes
	begun     int64         // by the first attempt, while its record knows nothing of it: nanoseconds since 1970; or 0
}

func (e *entry) key() Key { return Key{e.letter.id, e.dest.domain} }

func (e *entry) place() *int32 { return &e.at }
func (e *entry) before(o *entry) bool {
	return cmp.Or(cmp.Compare(e.due, o.due), cmp.Compare(e.letter.id, o.letter.id)) < 0
}

func (d *dest) place() *int32 { return &d.at }
func (d *dest) before(o *dest) bool {
	return d.waiting.list[0].before(o.waiting.list[0])
}

func newIndex(letters int) *index {
	return &index{letters: make(map[relay.ID]*letter, letters), dests: map[relay.Domain]*dest{}}
}

// key is ParseKey; domains that the index knows need not be looked at again.
func (x *index) key(raw []byte) (Key, error) {
	id, domain, _ := bytes.Cut(raw, []byte("/"))
	if d := x.dests[relay.Domain(domain)]; d != nil {
		got, err := relay.ParseID(string(id))
		return Key{got, d.domain}, err
	}
	return ParseKey(string(raw))
}

// add enters an item that is not in the index yet.
func (x *index) add(k Key, h header, next int64) *entry {
	l := x.letters[k.ID]
	if l == nil {
		l = &letter{id: k.ID, size: h.size}
		l.entries = l.one[:0] // most letters go to one domain
		x.letters[k.ID] = l
		x.octets += h.size
	}
	d := x.dests[k.Domain]
	if d == nil {
		d = &dest{domain: k.Domain, at: out}
		x.dests[k.Domain] = d
	}
	e := &entry{letter: l, dest: d, due: next, next: next, at: out, held: h.held, scheduled: h.scheduled}
	at, _ := l.find(k.Domain)
	l.entries = slices.Insert(l.entries, at, e)
	d.items++
	x.items++
	if h.held {
		x.held++
	}
	x.place(e)
	return e
}

func (l *letter) find(d relay.Domain) (int, bool) {
	return slices.BinarySearchFunc(l.entries, d, func(e *entry, d relay.Domain) int {
		return cmp.Compare(e.dest.domain, d)
	})
}

func (x *index) get(k Key) *entry {
	if l := x.letters[k.ID]; l != nil {
		if at, ok := l.find(k.Domain); ok {
			return l.entries[at]
		}
	}
	return nil
}

// remove forgets an item and says whether it was the last of its letter.
func (x *index) remove(k Key) (last bool) {
	e := x.get(k)
	if e == nil {
		return false
	}
	x.mark(e, false, false)
	e.gone = true
	x.place(e)
	d, l := e.dest, e.letter
	if d.items--; d.items == 0 && !d.aside {
		delete(x.dests, d.domain)
	}
	x.items--
	at, _ := l.find(k.Domain)
	l.entries = slices.Delete(l.entries, at, at+1)
	if len(l.entries) > 0 {
		return false
	}
	delete(x.letters, k.ID)
	x.octets -= l.size
	return true
}

// mark sets the two states that keep counts.
func (x *index) mark(e *entry, held, taken bool) {
	count := func(n *int, was, is bool) {
		switch {
		case is && !was:
			*n++
		case was && !is:
			*n--
		}
	}
	count(&x.held, e.held, held)
	count(&x.taken, e.taken, taken)
	e.held, e.taken = held, taken
}

// place puts e where its fields say it belongs, after any of them changed.
func (x *index) place(e *entry) {
	if e.gone || e.held && !e.taken {
		e.dest.waiting.remove(e)
	} else {
		e.dest.waiting.put(e)
	}
	x.placeDest(e.dest)
}

func (x *index) placeDest(d *dest) {
	if _, ok := d.waiting.first(); ok && !d.aside {
		x.due.put(d)
	} else {
		x.due.remove(d)
	}
}

// setAside takes the domain that is due first out of the ranking for a Take, if it is due.
func (x *index) setAside(now int64) (*dest, bool) {
	d, ok := x.due.first()
	if !ok || !d.isDue(now) {
		return nil, false
	}
	d.aside = true
	x.due.remove(d)
	return d, true
}

func (x *index) putBack(d *dest) {
	d.aside = false
	x.placeDest(d)
	if d.items == 0 {
		delete(x.dests, d.domain)
	}
}

func (d *dest) isDue(now int64) bool {
	e, ok := d.waiting.first()
	return ok && e.due <= now
}

// pick takes the first due item of d, which is aside, for an attempt that may last until lease.
func (x *index) pick(d *dest, now, lease int64) (*entry, bool) {
	if !d.isDue(now) {
		return nil, false
	}
	e := d.waiting.list[0]
	x.mark(e, e.held, true)
	e.due = lease
	x.place(e)
	return e, true
}

// giveBack ends an attempt: e is due again by its record.
func (x *index) giveBack(e *entry) {
	x.mark(e, e.held, false)
	e.due = e.next
	x.place(e)
}

// firstDue is when the next item is due.
func (x *index) firstDue() (int64, bool) {
	d, ok := x.due.first()
	if !ok {
		return 0, false
	}
	return d.waiting.list[0].due, true
}

// clock turns times into the index's nanoseconds and back.
type clock struct{ base, wall time.Time }

func newClock(now time.Time) clock { return clock{now, now.Round(0)} }

func (c clock) at(now time.Time) int64      { return int64(now.Sub(c.base)) }
func (c clock) time(at int64) time.Time     { return c.base.Add(time.Duration(at)) }
func (c clock) in(wait time.Duration) int64 { return c.at(time.Now()) + int64(wait) }

// MaxScheduled is how far ahead an operator may set the next attempt.
const MaxScheduled = 30 * 24 * time.Hour

// longest bounds the wait of an item whose schedule waits for longest at most.
func (h header) longest(longest time.Duration) time.Duration {
	if h.scheduled {
		return max(longest, MaxScheduled)
	}
	return longest
}

// wait is how long from now an item waits whose record says next. The clock may have been set
// since the record was written: nobody waits longer than the schedule ever asks.
func wait(next, now time.Time, longest time.Duration) time.Duration {
	return min(max(next.Sub(now.Round(0)), 0), longest)
}
