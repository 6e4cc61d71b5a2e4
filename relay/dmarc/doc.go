// Package dmarc knows the aggregate reports of DMARC (RFC 9990): what a domain wants to hear of who
// sends as it. relay/policy makes an Observation of every stranger's letter whose domain asks for
// reports, relay/intake adds what became of the letter and hands it to a Ledger, and the Sender
// sends each domain its report once a day through the front door, as any letter of our own.
// What others report of our domains is read by Read, for relayctl.
//
// The rule: strangers decide how many domains there are, how often they write and what a report
// of theirs holds, so everything is bounded, and a letter never waits for its report.
package dmarc
