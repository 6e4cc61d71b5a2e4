package smtpd

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"
)

// spare is a descriptor kept for the day when there are no others. Giving it up lets one
// connection in, so that its client hears a 421 instead of waiting in the backlog until it gives
// up.
type spare struct{ f *os.File }

// spareWait is how long a connection may take to come out of the backlog.
const spareWait = 10 * time.Millisecond

func newSpare() *spare {
	s := &spare{}
	s.renew()
	return s
}

func (s *spare) renew() {
	// Without one we only wait, as we would anyway.
	s.f, _ = os.Open(os.DevNull)
}

func (s *spare) close() {
	if s.f != nil {
		s.f.Close()
		s.f = nil
	}
}

// spend takes one connection from ln by means of the spare descriptor, when err says that we
// are out of them; tell has to close it.
func (s *spare) spend(err error, ln net.Listener, tell func(net.Conn)) {
	timed, ok := ln.(interface{ SetDeadline(time.Time) error })
	if !ok || s.f == nil || !errors.Is(err, syscall.EMFILE) && !errors.Is(err, syscall.ENFILE) {
		return
	}
	s.close()
	defer s.renew()
	timed.SetDeadline(time.Now().Add(spareWait))
	defer timed.SetDeadline(time.Time{})
	if c, err := ln.Accept(); err == nil {
		tell(c)
	}
}
