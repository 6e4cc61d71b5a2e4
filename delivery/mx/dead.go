package mx

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"
)

// When a host counts as dead, and for how long it is left alone.
const (
	deadAfter   = 3                // connections in a row that came to nothing
	deadFirst   = 30 * time.Second // the first pause, which doubles
	deadLongest = 10 * time.Minute // less than what a letter waits between its later attempts
	maxDead     = 10_000
)

// dead knows the addresses where nobody answers. A thousand letters, to one domain or to a thousand
// that share a host, do not dial it a thousand times: after a few, one call in each pause finds out
// for all, and the others are told what it came to.
type dead struct {
	mu sync.Mutex
	of map[netip.AddrPort]*deadHost
}

type deadHost struct {
	fails int
	pause time.Duration
	until time.Time
	err   error // of the newest connection
}

func newDead() *dead { return &dead{of: make(map[netip.AddrPort]*deadHost)} }

// check is asked before a connection: an error says not to make it now. nil for a dead host makes the
// caller the one who finds out; the others wait for its note, or as long as a connection may take.
func (d *dead) check(addr netip.AddrPort, takes time.Duration) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	h := d.of[addr]
	if h == nil || h.fails < deadAfter {
		return nil
	}
	now := time.Now()
	if wait := h.until.Sub(now); wait > 0 {
		return lost(phaseConnect, fmt.Errorf("not called again for %v: %w", wait.Round(time.Second), h.err))
	}
	h.until = now.Add(takes)
	return nil
}

// note takes in what a connection came to. Words of the host, even rude ones, are a sign of life.
func (d *dead) note(ctx context.Context, addr netip.AddrPort, err error) {
	loss, ok := errors.AsType[*lossError](err)
	silent := ok && loss.reply.Code == 0 && (loss.phase == phaseConnect || loss.phase == phaseGreeting)
	if err != nil && (ctx.Err() != nil || noNetwork(err)) {
		return // says nothing about the host
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !silent {
		delete(d.of, addr)
		return
	}
	h := d.of[addr]
	if h == nil {
		d.makeRoom()
		h = &deadHost{}
		d.of[addr] = h
	}
	now := time.Now()
	h.err = loss.err
	if h.fails++; h.fails >= deadAfter {
		h.pause = min(max(2*h.pause, deadFirst), deadLongest)
		h.until = now.Add(h.pause)
	}
}

// Revive forgets which hosts did not answer: it was our own line that was down.
func (c *Client) Revive() {
	c.dead.mu.Lock()
	defer c.dead.mu.Unlock()
	clear(c.dead.of)
}

// makeRoom forgets those whose pause is over, and all when that is not enough. Callers hold mu.
func (d *dead) makeRoom() {
	if len(d.of) < maxDead {
		return
	}
	for addr, h := range d.of {
		if time.Now().After(h.until) {
			delete(d.of, addr)
		}
	}
	if len(d.of) >= maxDead {
		clear(d.of)
	}
}
