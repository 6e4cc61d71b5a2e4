// Package gate weighs strangers before their letters are read, the cheap checks before the expensive
// ones: how many come from a network, whether a client waits for its turn to speak, what it calls
// itself, whether its name leads back to it, what lists of the DNS say of it (RFC 5782), and, where
// that is wanted, whether it tries again (greylisting, RFC 6647).
//
// relay/smtpd tells a Gate of each connection (Visit), and what the client does that no mail server
// does (Breach); relay/intake asks what becomes of a letter (Begin). What follows from which finding
// stands in decide.go alone. Look-ups begin with the connection and run beside it; whoever asks waits
// only for what could change the outcome, and never for long. What could not be asked is held against
// nobody, and a list that is not in order is ignored.
//
// Clients in Rules.Pass and those at 127.0.0.1 and ::1 pass by; callers leave out trusted networks and
// people who have logged in.
package gate
