// Package intake is the front door. relay/smtpd hands it every letter from a client and delivery
// hands it our own reports; it decides for each recipient whether the letter is for a mailbox
// here, for somebody elsewhere, or refused, and it is the single place that decides "250".
//
// Accept, in order: the letter is staged with every stager it needs (the maildirs, the queue)
// while it is being received; when all of it has come, the maildirs commit, then the queue.
// Each commit is durable when it returns. Any failure takes back what was committed and the
// client hears a temporary refusal, so that it keeps the letter: a duplicate is possible, a
// loss is not (RFC 5321 §6.1).
package intake
