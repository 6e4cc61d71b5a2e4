// Package policy answers who sent a letter. On the way out it signs what our own people and we
// write (DKIM, RFC 6376 and 8463): cmd/relayd hands its Keys to relay/intake, which has a letter
// signed before it is staged. It knows keys, records and header text; it never speaks SMTP.
//
// The rule of the way out: a letter leaves, signed or not. A signature that nobody can check does
// more harm than none, so a key signs only while its record is seen in the DNS, and whatever goes
// wrong with a signature costs the letter that signature and nothing else.
package policy
