package pop3

import (
	"sync"
	"time"

	"relayd/relay"
)

// LoginDelay keeps people from emptying their maildrop more often than every so many seconds (RFC
// 2449 §6.5). Servers of the same maildrops share one; nil: everybody may come at any time. It
// forgets at a restart, and it holds one time for each mailbox that somebody logged in to.
type LoginDelay struct {
	least time.Duration

	mu   sync.Mutex
	last map[relay.Address]time.Time
}

// NewLoginDelay makes one of d, nil if that is not positive. CAPA tells it in seconds, rounded up.
func NewLoginDelay(d time.Duration) *LoginDelay {
	if d <= 0 {
		return nil
	}
	return &LoginDelay{least: d, last: map[relay.Address]time.Time{}}
}

// left is how long the owner of mailbox has to wait.
func (l *LoginDelay) left(mailbox relay.Address) time.Duration {
	if l == nil {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	last, ok := l.last[mailbox]
	if !ok {
		return 0
	}
	return max(0, l.least-time.Since(last))
}

// note begins the wait: somebody has logged in.
func (l *LoginDelay) note(mailbox relay.Address) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last[mailbox] = time.Now()
}

// seconds rounds up, so that whoever waits for as long has waited long enough.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }
