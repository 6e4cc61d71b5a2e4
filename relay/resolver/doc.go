// Package resolver asks the DNS for the rest of relayd: it implements relay.Resolver over
// miekg/dns and is the only room that knows an RCODE. relay/smtpd, relay/policy, delivery/mx and
// others ask; recursive servers, from the config or /etc/resolv.conf, answer.
//
// The one thing that matters here is to tell two kinds of failure apart. NXDOMAIN and "no record
// of that type" are answers, final, and wrap relay.ErrNoRecord. SERVFAIL, REFUSED, referrals,
// time-outs and malformed packets mean that nobody answered: every other error, temporary.
// Taking the second for the first would bounce mail because a name server was down.
package resolver
