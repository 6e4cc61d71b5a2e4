package relay

import "net/netip"

// TLSPolicyType is what a TLSPolicy follows from (RFC 8460 §4.4).
type TLSPolicyType string

// The types, in the words of reports.
const (
	TLSPolicySTS  TLSPolicyType = "sts"
	TLSPolicyTLSA TLSPolicyType = "tlsa"
	TLSPolicyNone TLSPolicyType = "no-policy-found"
)

// TLSPolicy is what a connection was held against.
type TLSPolicy struct {
	Type   TLSPolicyType `json:"policy-type"`
	Text   []string      `json:"policy-string,omitempty"` // a line of the STS policy or a TLSA record each
	Domain Domain        `json:"policy-domain"`           // who publishes it; of TLSA records, their base domain
	MX     []string      `json:"mx-host,omitempty"`       // as the STS policy has them
}

// The results of a session that did not go as its policy wants, or had no TLS (RFC 8460 §4.3).
const (
	TLSNoStartTLS      = "starttls-not-supported"
	TLSWrongHost       = "certificate-host-mismatch"
	TLSExpired         = "certificate-expired"
	TLSNotTrusted      = "certificate-not-trusted"
	TLSInvalid         = "validation-failure"
	TLSBadTLSA         = "tlsa-invalid"
	TLSBadDNSSEC       = "dnssec-invalid"
	TLSNoDANE          = "dane-required"
	TLSSTSFetch        = "sts-policy-fetch-error"
	TLSSTSInvalid      = "sts-policy-invalid"
	TLSSTSUntrustedWeb = "sts-webpki-invalid"
)

// TLSFailure is one way in which sessions failed, and with whom.
type TLSFailure struct {
	Result string     `json:"result-type"`
	Local  netip.Addr `json:"sending-mta-ip,omitzero"` // ours
	Host   string     `json:"receiving-mx-hostname,omitempty"`
	Remote netip.Addr `json:"receiving-ip,omitzero"`
	Reason string     `json:"failure-reason-code,omitempty"` // what went wrong, in plain words; one short line
}

// TLSSession is what one connection to a mail host showed of TLS, or the lack of a connection that a
// policy forbade. delivery/mx tells, delivery/tlsrpt counts.
type TLSSession struct {
	Domain  Domain // the recipients', or that of the smarthost
	Policy  TLSPolicy
	Failure TLSFailure // without a Result: it went well
}
