// Package maildir keeps local mail in maildirs that Dovecot, mutt and pop3 read alike. relay/intake
// hands letters in through Stage; pop3 takes them out through Maildrop.
//
// A letter is one file of mode 0600 in tmp/ of its first mailbox. Commit gives it its final name
// in new/ of every mailbox, by rename and hard links, and then asks relay/durable for one flush
// that carries data and names together; only then may anybody say 250. The name is
//
//	<unix seconds>.R<id>.<hostname>,S=<octets on disk>,W=<octets with CRLF>
//
// so that a maildrop of 10,000 letters opens without reading or even touching one of them. Line
// ends on disk are LF, as every other reader of maildirs expects.
//
// Crash reasoning. A killed process leaves litter in tmp/ only, which the sweep removes after 36
// hours, or whole letters in new/ that were not promised: a duplicate when the sender tries
// again. A power cut during the flush may leave a name in new/ with less data behind it than its
// S= says. Such a letter was never promised; the first start after a boot moves it aside, before
// anybody lists the mailbox.
//
// A mailbox on another file system than the root (a mount or a symbolic link of the operator's)
// is flushed on its own, because the shared flush covers the root's file system only.
package maildir
