package relay

import "errors"

// Message is one letter of a maildrop as a reader sees it: delivery/maildir lists it, pop3 shows
// it (RFC 1939 §7, §11).
type Message struct {
	ID   ID     // the ID under which we accepted it; empty for letters other programs delivered
	UID  string // unique and stable for ever: 1 to 70 characters from 0x21 to 0x7E
	Size int64  // octets with CRLF line ends, as RETR sends it, without dot-stuffing
}

// What may be wrong with a maildrop or with a letter in it.
var (
	ErrInUse = errors.New("the maildrop is open in another session")
	ErrGone  = errors.New("the message has been removed by another program")
)
