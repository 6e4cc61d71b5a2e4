// Package queue keeps foreign mail we have promised to deliver and have not yet. Mail arrives
// from relay/intake through Stage and leaves through delivery, which calls Take and Settle; the
// operator sees it through List and steers it with Retry, Hold, Release and Drop. Schedule is the
// time policy, one pure function.
//
// A letter is one file in bodies/, named by its ID, and one record for each domain it must go to
// in relayd.db (bbolt). For its first second the file, which carries the envelope, is the promise,
// and most letters never need more (young.go); from then on the records are, and the file alone is
// nothing. Files of settled letters wait in spare/ for the next (spare.go).
//
// # Crash reasoning
//
// Commit writes and flushes the body with its trailer, then returns, then comes the 250. A letter
// that is held, or not due yet, or one of too many gets its records first, in one bbolt
// transaction. Wherever a kill -9 or a power cut falls:
//
//   - before the end of the flush: a body without a whole trailer, of which nobody was promised
//     anything; the next Open removes it. It removes only files that were there before it and
//     have no record then. One whose trailer is whole and whose text is not goes to corrupt/.
//   - after the flush: a whole body. The next Open writes the records it lacks. The sender may
//     not have heard the 250 and send again: a duplicate, never a loss.
//   - after the records: they are durable, for all of the letter in one transaction, and the body
//     was durable before them.
//   - in Take: Attempts and Next are durable before anybody dials; a first attempt needs no such
//     record (first.go). After a crash the item waits out its pause; the attempt may have
//     delivered: a duplicate.
//   - in Settle or Drop: the transaction that removes the last record comes before the unlink of
//     the body. Between them the body looks like a young letter, and the next Open takes it in
//     again: a duplicate. Drop flushes the unlink before it returns, and what is dropped of a letter
//     that stays is taken out of its trailer (narrow.go).
//   - after Close: an end in order leaves no young letter, and says so (first.go). A body without
//     a record is then removed, whole or not.
//
// Everybody who writes (commits, Take, Settle, the operator) shares transactions through one
// durable.Group: two syncs of the database carry all who came while the last two ran. A Settle
// waits a few milliseconds for a commit that is made anyway. Bodies
// share their flush through the durable.Flusher. bbolt runs with all its syncs. Its free list is
// not stored but found again by Open, which reads all pages anyway to look for damage.
//
// # Damage
//
// Every record has a checksum and the size and checksum of its body. Open checks all records and
// that each has a body; Body checks the body before a single octet of it is sent, because reading
// 20,000 bodies at every start would cost more than it finds. What fails is set aside, the record
// to a bucket and body or database to the folder corrupt/, with an error in the log, and the rest
// keeps flowing. Every body file ends in a trailer with its envelope and checksums. From it a
// damaged record is made anew, and the whole database when its pages do not hold together, or it
// is lost; what had been delivered to some recipients then goes to them again. The sender of a
// damaged body is told by whoever makes the next attempt. Open makes an empty database only where
// there are no bodies.
//
// Inspect finds all of this without changing anything, with a daemon and without; Repair mends what
// need not wait for the next Open. Every test's queue is inspected at its end.
//
// # Dialogues
//
// What was said at attempts that failed lies in transcripts/, a file for each item, bounded, written
// without waiting for the disk (transcript.go). Nothing else depends on them.
//
// # Clocks
//
// Waiting is measured by the monotonic clock. The wall clock counts when a record is written, and
// when Open reads it: nothing then waits longer than Schedule.Longest. A clock set back therefore
// freezes nothing and one set forward makes nothing due, and while we run it makes no letter older
// (walltime.go); List tells all times by the wall clock as it goes then. Age alone never gives a letter
// up: see Schedule.Next.
package queue
