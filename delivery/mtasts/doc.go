// Package mtasts finds what a domain says about TLS to its mail hosts (RFC 8461): a TXT record
// that there is a policy, the policy over HTTPS, and a memory of it. delivery/mx asks before it
// connects.
//
// The memory is what protects: who can silence the DNS or the web server of a domain does not
// make its policy go away before its max_age ends. It lies in one file of JSON lines, and outlives
// a restart. A policy that was never seen and cannot be fetched is none.
package mtasts
