// Package relaytest is the world outside, for tests: a DNS server fed zone text, a scripted
// remote mail server, a certificate authority, stand-ins for rspamd and clamd, sample letters and a
// load of clients. Everything listens on loopback. Each server has a
// plain constructor (NewDNS, NewMX) beside the one that takes a testing.TB (DNS, MX), for the scripts
// of cmd/relayd, which have none. Nothing of relayd imports this package outside tests.
package relaytest
