package mx

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"relayd/relay"
)

// dane says what the TLSA records of t ask for; false where there are none that DNSSEC vouches for,
// all the way from the domain's MX records. An error means that we do not know, and that no mail may
// go there: a bogus answer is what an attack looks like (RFC 7672 §2.1.2).
func (c *Client) dane(ctx context.Context, p plan, t target) (security, bool, error) {
	host := relay.Domain(t.name)
	if c.cfg.Secure == nil || !t.signed || host.IsLiteral() {
		return security{}, false, nil
	}
	records, base, err := c.cfg.Secure.TLSA(ctx, host, t.addr.Port())
	if err != nil {
		return security{}, false, &policyError{source: "dane", text: "its TLSA records cannot be looked up", result: relay.TLSBadDNSSEC, err: err, passing: true}
	}
	if len(records) == 0 {
		return security{}, false, nil
	}
	all := encodeTLSA(records)
	records = slices.DeleteFunc(records, func(r relay.TLSA) bool { return !usable(r) })
	if len(records) == 0 {
		return security{level: levelEncrypt, source: daneUnusable, names: string(base), tlsa: all}, true, nil
	}
	names := []string{string(base), string(host)}
	if t.via == nil {
		names = append(names, string(p.domain), string(t.next)) // RFC 7672 §3.2.2
	}
	return security{levelDANE, "dane", strings.TrimRight(strings.Join(slices.Compact(names), " "), " "), encodeTLSA(records)}, true, nil
}

// usable says whether a record can be fulfilled at all (RFC 7672 §3.1, RFC 6698 §4.1).
func usable(r relay.TLSA) bool {
	size, known := map[uint8]int{1: sha256.Size, 2: sha512.Size}[r.Matching]
	return (r.Usage == 2 || r.Usage == 3) && r.Selector <= 1 && len(r.Data) > 0 &&
		(known && len(r.Data) == size || r.Matching == 0)
}

// encodeTLSA makes records comparable, as zone text has them, in one order.
func encodeTLSA(records []relay.TLSA) string {
	var lines []string
	for _, r := range records {
		lines = append(lines, fmt.Sprintf("%d %d %d %x", r.Usage, r.Selector, r.Matching, r.Data))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func decodeTLSA(text string) (records []relay.TLSA) {
	for line := range strings.SplitSeq(text, "\n") {
		var r relay.TLSA
		var data string
		if _, err := fmt.Sscan(line, &r.Usage, &r.Selector, &r.Matching, &data); err == nil {
			r.Data, _ = hex.DecodeString(data)
			records = append(records, r)
		}
	}
	return records
}

// checkDANE says whether one of the records is fulfilled by the certificates of a connection.
func (n security) checkDANE(certs []*x509.Certificate) error {
	err := errors.New("no TLSA record matches it")
	for _, r := range decodeTLSA(n.tlsa) {
		switch {
		case r.Usage == 2:
			taErr := checkTA(r, certs, strings.Fields(n.names))
			if taErr == nil {
				return nil
			}
			if !errors.Is(taErr, errNoAnchor) {
				err = taErr
			}
		case fulfils(certs[0], r):
			return nil // whatever its names and dates: the record says it all (RFC 7672 §3.1.1)
		}
	}
	return err
}

var errNoAnchor = errors.New("no certificate of the chain is the one of the record")

// checkTA holds the chain against an authority that a record names; the host's own certificate has
// to be for one of the names, and to hold today (RFC 7672 §3.1.2 and §3.2.2).
func checkTA(r relay.TLSA, certs []*x509.Certificate, names []string) error {
	o := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool()}
	found := false
	for _, cert := range certs[1:] {
		o.Intermediates.AddCert(cert)
		if fulfils(cert, r) {
			o.Roots.AddCert(cert)
			found = true
		}
	}
	if r.Selector == 0 && r.Matching == 0 {
		// The record holds the authority's certificate, so that the host need not send it.
		if cert, err := x509.ParseCertificate(r.Data); err == nil {
			o.Roots.AddCert(cert)
			found = true
		}
	}
	if !found {
		return errNoAnchor
	}
	var err error
	for _, o.DNSName = range names {
		if _, err = certs[0].Verify(o); err == nil {
			return nil
		}
	}
	return err
}

// fulfils says whether cert is the one that a record speaks of (RFC 6698 §2.1).
func fulfils(cert *x509.Certificate, r relay.TLSA) bool {
	data := cert.Raw
	if r.Selector == 1 {
		data = cert.RawSubjectPublicKeyInfo
	}
	switch r.Matching {
	case 1:
		sum := sha256.Sum256(data)
		data = sum[:]
	case 2:
		sum := sha512.Sum512(data)
		data = sum[:]
	}
	return bytes.Equal(data, r.Data)
}
