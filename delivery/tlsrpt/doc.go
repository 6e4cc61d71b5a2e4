// Package tlsrpt tells domains how TLS with their mail hosts went (RFC 8460). delivery/mx tells Note of
// every session; the counts of each day (UTC) lie in one file of JSON lines and outlive a restart. After
// the day a report goes to every domain that asks for one at _smtp._tls: by mail, through the front door
// like any letter of ours and signed there, or by HTTPS.
//
// A domain that does not ask costs a question to the DNS a day. What cannot be sent is tried for a day
// and then forgotten: a report is a courtesy, and nothing that we owe anybody.
package tlsrpt
