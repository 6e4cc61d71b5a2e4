package mx

import (
	"sync"
	"time"
)

// Bounds of the sessions that wait for the next letter, and of those that say goodbye.
const (
	maxIdle       = 64
	maxIdlePerKey = 20
	maxQuitting   = 64
)

// idle keeps sessions open for a short time after a success, so that a burst of letters to one
// host does not pay for a connection each.
type idle struct {
	keep time.Duration // below zero: never

	mu       sync.Mutex
	waiting  map[target][]*idler
	count    int
	quitting int
	closed   bool
	work     sync.WaitGroup // the goroutines that say QUIT
}

type idler struct {
	s     *session
	timer *time.Timer
}

func newIdle(keep time.Duration) *idle {
	return &idle{keep: keep, waiting: make(map[target][]*idler)}
}

// take hands out the session that waited for the shortest time, or nil.
func (d *idle) take(t target) *session {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := d.waiting[t]
	if len(list) == 0 {
		return nil
	}
	i := list[len(list)-1]
	d.remove(t, i)
	return i.s
}

// put keeps a session, or ends it when there are enough.
func (d *idle) put(s *session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := s.target
	if d.closed || d.keep < 0 || d.count >= maxIdle || len(d.waiting[t]) >= maxIdlePerKey {
		d.quit(s)
		return
	}
	i := &idler{s: s}
	d.waiting[t] = append(d.waiting[t], i)
	d.count++
	i.timer = time.AfterFunc(d.keep, func() { d.expire(t, i) })
}

func (d *idle) expire(t target, i *idler) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.remove(t, i) {
		d.quit(i.s)
	}
}

// remove says whether i was still waiting. Callers hold mu.
func (d *idle) remove(t target, i *idler) bool {
	list := d.waiting[t]
	for n, other := range list {
		if other == i {
			i.timer.Stop()
			d.count--
			if d.waiting[t] = append(list[:n], list[n+1:]...); len(d.waiting[t]) == 0 {
				delete(d.waiting, t)
			}
			return true
		}
	}
	return false
}

// quit ends a session beside everything else: its remote may be slow to say 221, and no letter
// should wait for that. Callers hold mu.
func (d *idle) quit(s *session) {
	if d.closed || d.quitting >= maxQuitting {
		s.abort()
		return
	}
	d.quitting++
	d.work.Go(func() {
		s.quit()
		d.mu.Lock()
		d.quitting--
		d.mu.Unlock()
	})
}

func (d *idle) close() {
	d.mu.Lock()
	for t, list := range d.waiting {
		for len(list) > 0 {
			i := list[0]
			d.remove(t, i)
			d.quit(i.s)
			list = d.waiting[t]
		}
	}
	d.closed = true
	d.mu.Unlock()
	d.work.Wait()
}

// end gives the session back after an attempt: to wait, to say QUIT, or to be closed.
func (s *session) end(d *idle) {
	s.transcript = nil
	switch held := s.detach(); {
	case !held || s.broken:
		s.abort()
	case s.open || s.spent() || !s.clean():
		d.mu.Lock()
		d.quit(s)
		d.mu.Unlock()
	default:
		d.put(s)
	}
}
