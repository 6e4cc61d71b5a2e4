// Package quota is the fuse for a stolen password: it counts the recipients elsewhere that each
// login writes to, by the hour and by the day. A login that goes over its limit is not refused,
// which would only tell the thief; its letters are accepted and held until an operator decides.
//
// relay/intake counts a letter before it is staged, through cmd/relayd, which also tells the
// postmaster and frees held letters. A Ledger survives restarts in one small file: what was
// counted in the seconds before a crash may be lost, a hold never is, once it is marked.
package quota
