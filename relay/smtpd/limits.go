package smtpd

import (
	"cmp"
	"time"
)

// Limits bounds what one client, and all of them together, may cost. Zero means the default; a
// limit below zero is off where that is said, and otherwise counts as the default.
type Limits struct {
	CommandLine   int   // octets of one command with its CRLF; 2048 (RFC 5321 §4.5.3.1.4: 512 and what extensions add), at most 16384
	MessageSize   int64 // octets of one letter, dots unstuffed; 50,000,000
	Recipients    int   // of one letter; 1000 (RFC 5321 §4.5.3.1.8: at least 100)
	Errors        int   // wrong commands since the last letter that was accepted, then 421; 20
	BadRecipients int   // recipients refused for good since then, then 421; 100
	Chatter       int   // commands since then that brought no letter on, then 421; 1000
	AuthFailures  int   // failed logins in one session, then 421; 3

	Connections           int // of all clients on all servers that share the Gate; 1000
	ConnectionsPerAddress int // of one IPv4 address or one IPv6 /64; 50

	CommandTimeout     time.Duration // from our reply to the end of the next command, and for a client to take a reply; 5 min (RFC 5321 §4.5.3.2.7)
	DataTimeout        time.Duration // between two octets of a letter, and what a slow one has in hand; 5 min
	TransactionTimeout time.Duration // from MAIL to the end of the letter; 2 h
	SessionTimeout     time.Duration // from the greeting to the end; 4 h
	MinRate            int64         // octets a second a letter keeps up on average, once DataTimeout is used up; 500, off below zero
}

const (
	// authLine is what RFC 4954 §4.3 allows for AUTH and for an answer to its challenges.
	authLine = 12288
	// maxCommandLine keeps a command within one pooled buffer.
	maxCommandLine = 16384
	// swallowFactor times the message size is how much of a refused letter we take in to keep in
	// step. A client that hears 552 gives up; one that is cut off tries again for days.
	swallowFactor = 10
	// maxSwallowedLine ends a session whose command line never does.
	maxSwallowedLine = 1 << 20
)

func (l Limits) withDefaults() Limits {
	return Limits{
		CommandLine:   min(orDefault(l.CommandLine, 2048), maxCommandLine),
		MessageSize:   orDefault(l.MessageSize, 50_000_000),
		Recipients:    orDefault(l.Recipients, 1000),
		Errors:        orDefault(l.Errors, 20),
		BadRecipients: orDefault(l.BadRecipients, 100),
		Chatter:       orDefault(l.Chatter, 1000),
		AuthFailures:  orDefault(l.AuthFailures, 3),

		Connections:           orDefault(l.Connections, 1000),
		ConnectionsPerAddress: orDefault(l.ConnectionsPerAddress, 50),

		CommandTimeout:     orDefault(l.CommandTimeout, 5*time.Minute),
		DataTimeout:        orDefault(l.DataTimeout, 5*time.Minute),
		TransactionTimeout: orDefault(l.TransactionTimeout, 2*time.Hour),
		SessionTimeout:     orDefault(l.SessionTimeout, 4*time.Hour),
		MinRate:            cmp.Or(l.MinRate, 500),
	}
}

func orDefault[T int | int64 | time.Duration](v, def T) T {
	if v <= 0 {
		return def
	}
	return v
}
