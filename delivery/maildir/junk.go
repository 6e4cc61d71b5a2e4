package maildir

import "relayd/relay"

// junkDir is the Maildir++ folder that letters with Envelope.Junk go into: an IMAP server on the same
// maildirs shows it as Junk, POP3 does not know folders.
const junkDir = ".Junk"

// WithJunk has Maildrop show the letters in Junk too, beside the others, for those mailboxes that
// shows says.
func WithJunk(shows func(mailbox relay.Address) bool) Option {
	return func(s *Store) { s.showsJunk = shows }
}

// subs are the directories whose letters the session sees.
func (d *Drop) subs() []string {
	if d.junk {
		return []string{"new", "cur", junkDir + "/new", junkDir + "/cur"}
	}
	return []string{"new", "cur"}
}
