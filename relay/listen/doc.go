// Package listen holds what any listener owes its clients when things go badly: a word to those
// who come when descriptors have run out, and the last word to those whom it hangs up on.
// relay/smtpd and pop3 use it.
package listen
