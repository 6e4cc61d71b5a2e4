package listen

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"
)

// Spare is a descriptor kept for the day when there are no others. Giving it up lets one
// connection in, so that its client hears why it cannot stay instead of waiting in the backlog
// until it gives up. It belongs to one accept loop.
type Spare struct{ f *os.File }

// spareWait is how long a connection may take to come out of the backlog.
const spareWait = 10 * time.Millisecond

// NewSpare sets a descriptor aside. Close it.
func NewSpare() *Spare {
	s := &Spare{}
	s.Keep()
	return s
}

// Keep sets a descriptor aside again if the last one is gone: somebody else may have been quicker
// to take what Spend gave up. Call it after each connection that was accepted.
func (s *Spare) Keep() {
	if s.f == nil {
		// Without one we only wait, as we would anyway.
		s.f, _ = os.Open(os.DevNull)
	}
}

// Close gives the descriptor back.
func (s *Spare) Close() {
	if s.f != nil {
		s.f.Close()
		s.f = nil
	}
}

// Spend takes one connection from ln by means of the spare descriptor, when err, which ln.Accept
// returned, says that we are out of them; tell has to close it. Listeners without SetDeadline
// cannot be asked without waiting, so nothing happens for them.
func (s *Spare) Spend(err error, ln net.Listener, tell func(net.Conn)) {
	timed, ok := ln.(interface{ SetDeadline(time.Time) error })
	if !ok || !errors.Is(err, syscall.EMFILE) && !errors.Is(err, syscall.ENFILE) {
		return
	}
	if s.Keep(); s.f == nil {
		return
	}
	s.Close()
	defer s.Keep()
	if timed.SetDeadline(time.Now().Add(spareWait)) != nil {
		return
	}
	defer timed.SetDeadline(time.Time{})
	if c, err := ln.Accept(); err == nil {
		tell(c)
	}
}
