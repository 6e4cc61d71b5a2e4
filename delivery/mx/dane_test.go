package mx

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"testing"
	"testing/synctest"

	"relayd/relay"
)

// vouched is what DNSSEC says of a network.
type vouched struct {
	*network
	mx      bool // the MX records are signed
	records []relay.TLSA
	base    relay.Domain // empty: the host
	next    relay.Domain // what the domain is an alias of
	err     error
}

func (v *vouched) SecureMX(ctx context.Context, d relay.Domain) ([]relay.MX, relay.Domain, bool, error) {
	list, err := v.MX(ctx, d)
	return list, cmp.Or(v.next, d), v.mx, err
}

func (v *vouched) TLSA(_ context.Context, host relay.Domain, port uint16) ([]relay.TLSA, relay.Domain, error) {
	if port != 25 {
		return nil, "", errors.New("asked for another port")
	}
	if v.base != "" {
		host = v.base
	}
	return v.records, host, v.err
}

// record makes the TLSA record that cert fulfils.
func record(usage, selector, matching uint8, cert *x509.Certificate) relay.TLSA {
	data := cert.Raw
	if selector == 1 {
		data = cert.RawSubjectPublicKeyInfo
	}
	switch matching {
	case 1:
		sum := sha256.Sum256(data)
		data = sum[:]
	case 2:
		sum := sha512.Sum512(data)
		data = sum[:]
	}
	return relay.TLSA{Usage: usage, Selector: selector, Matching: matching, Data: data}
}

func leaf(t *testing.T, cfg *tls.Config) *x509.Certificate {
	t.Helper()
	cert, err := x509.ParseCertificate(cfg.Certificates[0].Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestDANE(t *testing.T) {
	const host, domain = "mx1.partner.example", "partner.example"
	good, other, expired := certified(t, host, false), certified(t, "mx9.partner.example", false), certified(t, host, true)
	forDomain, alias := certified(t, domain, false), certified(t, "real.partner.example", false)
	alone := &tls.Config{Certificates: []tls.Certificate{good.Certificates[0]}}
	alone.Certificates[0].Certificate = alone.Certificates[0].Certificate[:1]
	ca, self := testCA().Certificate(), leaf(t, selfSigned())
	one := func(r ...relay.TLSA) []relay.TLSA { return r }
	bad := relay.TLSA{Usage: 3, Selector: 1, Matching: 1, Data: make([]byte, 32)}
	pkix := record(1, 1, 1, self)
	for name, tt := range map[string]struct {
		v    vouched
		host *tls.Config
		sts  relay.STSMode
		tls  string
		want string // as wantTLS has it
	}{
		"EE, key, SHA-256":       {vouched{mx: true, records: one(record(3, 1, 1, self))}, selfSigned(), "", "", ", verified (dane)"},
		"EE, key, SHA-512":       {vouched{mx: true, records: one(record(3, 1, 2, self))}, selfSigned(), "", "", ", verified (dane)"},
		"EE, key":                {vouched{mx: true, records: one(record(3, 1, 0, self))}, selfSigned(), "", "", ", verified (dane)"},
		"EE, cert, SHA-256":      {vouched{mx: true, records: one(record(3, 0, 1, self))}, selfSigned(), "", "", ", verified (dane)"},
		"EE, cert, SHA-512":      {vouched{mx: true, records: one(record(3, 0, 2, self))}, selfSigned(), "", "", ", verified (dane)"},
		"EE, cert":               {vouched{mx: true, records: one(record(3, 0, 0, self))}, selfSigned(), "", "", ", verified (dane)"},
		"EE, expired":            {vouched{mx: true, records: one(record(3, 1, 1, leaf(t, expired)))}, expired, "", "", ", verified (dane)"},
		"EE, one of two":         {vouched{mx: true, records: one(bad, record(3, 1, 1, self))}, selfSigned(), "", "", ", verified (dane)"},
		"EE, mismatch":           {vouched{mx: true, records: one(bad)}, good, "", "", "4.7.5"},
		"EE, of the CA":          {vouched{mx: true, records: one(record(3, 0, 1, ca))}, good, "", "", "4.7.5"},
		"EE, no TLS":             {vouched{mx: true, records: one(bad)}, nil, "", "", "4.7.5"},
		"EE, beside unusable":    {vouched{mx: true, records: one(bad, pkix)}, selfSigned(), "", "", "4.7.5"},
		"TA":                     {vouched{mx: true, records: one(record(2, 0, 1, ca))}, good, "", "", ", verified (dane)"},
		"TA, key":                {vouched{mx: true, records: one(record(2, 1, 2, ca))}, good, "", "", ", verified (dane)"},
		"TA, the next hop":       {vouched{mx: true, records: one(record(2, 0, 1, ca))}, forDomain, "", "", ", verified (dane)"},
		"TA, the alias":          {vouched{mx: true, base: "real.partner.example", records: one(record(2, 0, 1, ca))}, alias, "", "", ", verified (dane)"},
		"TA, the domain's alias": {vouched{mx: true, next: "real.partner.example", records: one(record(2, 0, 1, ca))}, alias, "", "", ", verified (dane)"},
		"TA, wrong name":         {vouched{mx: true, records: one(record(2, 0, 1, ca))}, other, "", "", "4.7.5"},
		"TA, expired":            {vouched{mx: true, records: one(record(2, 0, 1, ca))}, expired, "", "", "4.7.5"},
		"TA, not sent":           {vouched{mx: true, records: one(record(2, 0, 1, ca))}, alone, "", "", "4.7.5"},
		"TA, in the record":      {vouched{mx: true, records: one(record(2, 0, 0, ca))}, alone, "", "", ", verified (dane)"},
		"TA, of a stranger":      {vouched{mx: true, records: one(record(2, 0, 1, self))}, good, "", "", "4.7.5"},
		"unusable":               {vouched{mx: true, records: one(pkix)}, selfSigned(), "", "", ", unverified (dane, no usable record)"},
		"unusable, length":       {vouched{mx: true, records: one(relay.TLSA{Usage: 3, Selector: 1, Matching: 1, Data: make([]byte, 31)})}, selfSigned(), "", "", ", unverified (dane, no usable record)"},
		"unusable, no TLS":       {vouched{mx: true, records: one(pkix)}, nil, "", "", "4.7.5"},
		"unusable, but STS":      {vouched{mx: true, records: one(pkix)}, selfSigned(), relay.STSEnforce, "", "4.7.5"},
		"bogus":                  {vouched{mx: true, err: errServfail}, good, "", "", "4.7.5"},
		"bogus, not signed":      {vouched{err: errServfail}, good, "", "", ", verified"},
		"MX not signed":          {vouched{records: one(bad)}, good, "", "", ", verified"},
		"no records":             {vouched{mx: true}, selfSigned(), "", "", ", unverified"},
		"beats STS":              {vouched{mx: true, records: one(record(3, 1, 1, self))}, selfSigned(), relay.STSEnforce, "", ", verified (dane)"},
		"fails though STS":       {vouched{mx: true, records: one(bad)}, good, relay.STSTesting, "", "4.7.5"},
		"no records, STS":        {vouched{mx: true}, good, relay.STSEnforce, "", ", verified (mta-sts)"},
		"route dane":             {vouched{mx: true, records: one(record(3, 1, 1, self))}, selfSigned(), "", TLSDANE, ", verified (dane)"},
		"route dane, none":       {vouched{mx: true}, good, "", TLSDANE, "4.7.5"},
		"route dane, unusable":   {vouched{mx: true, records: one(pkix)}, good, "", TLSDANE, "4.7.5"},
		"route dane, unsigned":   {vouched{records: one(record(3, 1, 1, self))}, selfSigned(), "", TLSDANE, "4.7.5"},
		"route may":              {vouched{mx: true, records: one(bad)}, selfSigned(), "", TLSMay, ", unverified (route)"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, r := encrypting(tt.host)
				v := tt.v
				v.network = n
				got := n.send(t, envelope("bob@partner.example"), hello, trusting(tt.tls), func(c *Config) {
					c.Secure, c.Policies = &v, says{Mode: tt.sts, MX: []string{host}}
				})[0]
				wantTLS(t, got, r, tt.want)
			})
		})
	}
}

// TestDANEVia: the records of a smarthost bind us too, whoever the letter is for.
func TestDANEVia(t *testing.T) {
	self := record(3, 1, 1, leaf(t, selfSigned()))
	for _, tt := range []struct {
		record relay.TLSA
		want   string
	}{{self, ", verified (dane)"}, {relay.TLSA{Usage: 3, Selector: 1, Matching: 1, Data: make([]byte, 32)}, "4.7.5"}} {
		synctest.Test(t, func(t *testing.T) {
			n, r := encrypting(selfSigned())
			got := n.send(t, envelope("bob@partner.example"), hello, func(c *Config) {
				c.Secure = &vouched{network: n, records: []relay.TLSA{tt.record}}
				c.Routes = []Route{{To: "*", Via: "mx1.partner.example"}}
			})[0]
			wantTLS(t, got, r, tt.want)
		})
	}
}
