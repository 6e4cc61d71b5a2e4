package listen

import (
	"net"
	"time"
)

// How long, and how much, Linger listens to a client that has been told to go.
const (
	lingerTime  = time.Second
	lingerBytes = 256 << 10
)

// Linger ends our half of the conversation and takes in for a moment what the client is still
// sending, into buf. Call it before Close, once the last words have been written: closing a socket
// with unread octets resets it, and the client would lose them. It wants connections that can be
// closed by half, themselves or those that their NetConn names; for others it does nothing.
func Linger(c net.Conn, buf []byte) {
	if !closeWrite(c) {
		return
	}
	c.SetReadDeadline(time.Now().Add(lingerTime))
	for swallowed := 0; swallowed < lingerBytes; {
		n, err := c.Read(buf)
		if swallowed += n; err != nil {
			return
		}
	}
}

// closeWrite ends our half of the conversation; false where that cannot be done.
func closeWrite(c net.Conn) bool {
	for {
		if half, ok := c.(interface{ CloseWrite() error }); ok {
			return half.CloseWrite() == nil
		}
		wrapped, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return false
		}
		c = wrapped.NetConn()
	}
}
