// Package known remembers the domains this office has written to, so that a slip of the pen in an
// address can be answered with what was probably meant. cmd/relayd notes every domain that took a
// letter, and relay/intake asks when it refuses one that does not exist. A second Memory holds the
// mail hosts that had TLS, for delivery/mx to notice a downgrade.
//
// Nothing depends on the memory: it lies in one small file of lines "2026-11-21 partner.example",
// written now and then, and a crash may cost its last seconds.
package known
