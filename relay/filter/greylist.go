package filter

import (
	"crypto/sha256"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// greylist remembers whom rspamd's action "greylist" has sent away, so that they are let in when they
// come back: rspamd itself remembers only where it has a database, and otherwise would say the same
// for ever. What is forgotten, at a restart too, is asked to wait once more.
type greylist struct {
	mu   sync.Mutex
	sent map[[16]byte]time.Time // when each was sent away first
}

const (
	greyWait  = time.Minute    // coming back sooner is no sign of a mail server
	greyKeep  = 36 * time.Hour // coming back later is a new letter
	greyCount = 20_000
)

func newGreylist() *greylist { return &greylist{sent: map[[16]byte]time.Time{}} }

// seen says whether this letter's network, sender and recipients were sent away long enough ago.
func (g *greylist) seen(l *Letter, now time.Time) bool {
	client := l.Env.Origin.Client.Addr().Unmap()
	bits := 64
	if client.Is4() {
		bits = 24
	}
	network, _ := client.Prefix(bits)
	if !client.IsValid() {
		network = netip.Prefix{}
	}
	sum := sha256.Sum256([]byte(network.String() + "\x00" + l.Env.From.String() + "\x00" + strings.Join(l.rcpts(), "\x00")))
	key := [16]byte(sum[:16])
	g.mu.Lock()
	defer g.mu.Unlock()
	if first, ok := g.sent[key]; ok && now.Sub(first) < greyKeep {
		return now.Sub(first) >= greyWait
	}
	g.makeRoom(now)
	g.sent[key] = now
	return false
}

// makeRoom forgets what is old, and if that is not enough, anything. Called with mu held.
func (g *greylist) makeRoom(now time.Time) {
	if len(g.sent) < greyCount {
		return
	}
	for key, first := range g.sent {
		if now.Sub(first) >= greyKeep {
			delete(g.sent, key)
		}
	}
	for key := range g.sent {
		if len(g.sent) < greyCount*9/10 {
			return
		}
		delete(g.sent, key)
	}
}
