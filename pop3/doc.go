// Package pop3 lets people collect their mail: RFC 1939, with APOP where somebody has a secret for it,
// CAPA and LOGIN-DELAY (RFC 2449), STLS (RFC 2595), AUTH (RFC 5034) with the mechanisms of relay/sasl,
// response codes (RFC 2449, RFC 3206), UTF8 and LANG (RFC 6856). It takes letters from a Maildrop, which
// delivery/maildir implements, and asks a relay.Authenticator who may log in.
//
// Everything a session knows lives in its session value, never in the Server. The maildrop is a
// snapshot taken at login: numbers never move, letters delivered meanwhile belong to the next
// session, and nothing is removed before QUIT; a link that drops removes nothing.
package pop3
