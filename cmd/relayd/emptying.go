package main

import (
	"bytes"
	"context"
	"fmt"
	"mime"
	"strings"
	"time"

	"relayd/delivery/maildir"
	"relayd/relay"
)

// warnOfEmptying writes to the postmaster of the mailbox's domain that a second client empties it.
func (h *house) warnOfEmptying(ctx context.Context, e maildir.Emptying) error {
	h.log.Warn("a client empties a mailbox that another one reads", "room", "maildir",
		"user", e.Mailbox, "client", e.Client, "other", e.Other, "count", e.Letters)
	now := time.Now()
	to := relay.Address{Local: relay.Postmaster.Local, Domain: e.Mailbox.Domain}
	env := relay.Envelope{ID: relay.NewID(now), Accepted: now, Rcpts: []relay.Recipient{{Addr: to}}, UTF8: !e.Mailbox.IsASCII()}
	return h.intake.Submit(ctx, env, bytes.NewReader(emptyingLetter(env, h.config().Hostname, e)))
}

func emptyingLetter(env relay.Envelope, hostname relay.Domain, e maildir.Emptying) []byte {
	var b strings.Builder
	user := e.Mailbox.String()
	fmt.Fprintf(&b, "From: \"relayd\" <postmaster@%s>\nTo: %s\n", hostname, env.Rcpts[0].Addr)
	fmt.Fprintf(&b, "Subject: %s\n", mime.QEncoding.Encode("utf-8", "Two programs collect the mail of "+user))
	fmt.Fprintf(&b, "Date: %s\nMessage-ID: <%s.emptying@%s>\n", env.Accepted.Format(time.RFC1123Z), env.ID, hostname)
	b.WriteString("Auto-Submitted: auto-generated\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n")
	b.WriteString("Content-Transfer-Encoding: 8bit\n\n")
	fmt.Fprintf(&b, "This is the mail server %s.\n\n", hostname)
	fmt.Fprintf(&b, "The mail program at %s has collected the mail of %s and\nremoved it from the server, ", e.Client, user)
	fmt.Fprintf(&b, "%d of the messages after the program at\n%s had read them and left them here, the last on\n%s. ",
		e.Letters, e.Other, e.Last.UTC().Format("2 January 2006 at 15:04 MST"))
	b.WriteString("If both belong to one person, set the first to\n\"leave messages on server\", or messages will be missing from the other.\n" +
		"If nobody knows the first, change the password.\n\n")
	fmt.Fprintf(&b, "Who took what:       relayctl mail fetches %s\n", user)
	if e.Kept > 0 {
		fmt.Fprintf(&b, "What was removed:    relayctl mail ls --removed --client %s %s\n", e.Client, user)
		fmt.Fprintf(&b, "Bring all that back: relayctl mail undelete --client %s %s\n\n", e.Client, user)
		fmt.Fprintf(&b, "Removed messages are kept for %s.\n", daysOf(e.Kept))
	}
	b.WriteString("You are told of these two once in 30 days.\n")
	return []byte(strings.ReplaceAll(b.String(), "\n", "\r\n"))
}

func daysOf(d time.Duration) string {
	if days := d / (24 * time.Hour); days >= 2 {
		return fmt.Sprintf("%d days", days)
	}
	return fmt.Sprintf("%d hours", d/time.Hour)
}
