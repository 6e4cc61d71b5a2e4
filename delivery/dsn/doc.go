// Package dsn composes the reports that tell a sender what became of a letter (RFC 3464): bytes
// out, nothing else. delivery hands it the results of an attempt and submits what comes out
// through the front door, with a null reverse-path.
//
// A report has three parts (RFC 6522): sentences for people, fields for programs, and the header
// of the letter it is about. Remote replies, addresses and headers are text from strangers, so
// everything is made printable and folded on its way in: none of it can end a line, a part or
// the letter. The report is pure ASCII in lines of at most 998 octets, except that its To field
// is UTF-8 when the sender's address is (RFC 6531).
package dsn
