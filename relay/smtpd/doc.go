// Package smtpd is the SMTP listener (RFC 5321): it speaks with strangers and hands what they
// bring to a relay.Acceptor, which relay/intake implements.
//
// The engine is emersion/go-smtp. It is not let near the wire: each connection it sees is a
// guard, a net.Conn of ours that stands above the socket and above TLS. The guard hands go-smtp
// exactly one command per Read and hears the whole reply before it looks at the next command.
// So commands, replies, limits and deadlines are checked in one place, and one parser (the
// guard's) decides where a command or a letter ends:
//
//	socket ── TLS ── wire (buffers, deadlines) ── guard (commands, replies) ── go-smtp ── session ── Acceptor
//	                    └──────────────── body (DATA, BDAT) ────────────────────────────────┘
//
// What the guard answers itself never reaches go-smtp. MAIL and RCPT reach it as placeholders,
// because it would unquote the address; the session takes the parsed one from the guard. In DATA
// the session reads the letter straight from the wire, and go-smtp gets only its closing dot. A
// letter sent in BDAT chunks is a DATA command to go-smtp.
//
// A letter ends at CRLF.CRLF or at the last octet of BDAT LAST and nowhere else. A bare CR, a
// bare LF or a NUL never reaches the Acceptor. After a failure inside a letter that leaves the
// two sides out of step the connection is closed for good, so no octet of a letter is ever taken
// for a command.
package smtpd
