// Package relay holds the words every room of relayd speaks: Address, Envelope, Reply,
// Failure, Result, and the small interfaces through which neighbours meet. It does no I/O
// and knows only the standard library and golang.org/x/net/idna, so anybody may import it
// without drawing anything else in.
//
// A value of these types is already valid: text from outside becomes a Domain, an Address or
// an ID once, at the border, through the Parse functions, and is not checked again further in.
package relay
