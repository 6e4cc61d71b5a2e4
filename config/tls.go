package config

import (
	"net/url"
	"strings"

	"relayd/relay"
)

func (r *reader) tls(s section, c *Config, folder string) {
	certs := map[string]bool{}
	var main TLSPair
	if r.pair(s, &main, folder, certs, "name both files, or neither for a self-signed certificate") {
		c.TLSCert, c.TLSKey = main.Cert, main.Key
	}
	r.pairs(s, c, folder, certs)
	r.acme(s, c)
}

// pair reads cert and key of one table; certs are those of the tables before it. It says whether
// the table has both.
func (r *reader) pair(s section, p *TLSPair, folder string, certs map[string]bool, hint string) bool {
	cert := r.path(s, "cert", &p.Cert, folder)
	key := r.path(s, "key", &p.Key, folder)
	if cert != key && (s.t.get("cert") == nil || s.t.get("key") == nil) {
		given, missing := "cert", "key"
		if key {
			given, missing = missing, given
		}
		r.complain(s.t.get(given).at, wrong(hint, "%s is given without %s", given, missing))
	}
	if cert && certs[p.Cert] {
		r.complain(s.t.get("cert").val.at, wrong("one pair may be for several names", "the certificate %q is given twice", clip(s.t.get("cert").val.text)))
	}
	certs[p.Cert] = certs[p.Cert] || cert
	return cert && key
}

// pairs reads the [[tls.pair]] tables.
func (r *reader) pairs(s section, c *Config, folder string, certs map[string]bool) {
	tables(s, "pair", c, func(t section, c *Config) {
		var p TLSPair
		switch {
		case r.pair(t, &p, folder, certs, "a pair is two files; both names may be the same"):
			c.TLSPairs = append(c.TLSPairs, p)
		case c != nil && t.t.get("cert") == nil && t.t.get("key") == nil:
			r.complain(t.t.at, wrong(`add cert = "/etc/relayd/other.pem" and key = "/etc/relayd/other-key.pem"`, "this pair names no files"))
		}
	})
}

func (r *reader) acme(s section, c *Config) {
	at, _ := one(s, "acme", &c.ACME.On, readBool)
	one(s, "acme_directory", &c.ACME.Directory, readDirectory)
	email, hasEmail := one(s, "acme_email", &c.ACME.Email, readEmail)
	more, hasNames := many(s, "acme_names", readPublicName)
	c.ACME.Names = whats(more)
	doors := len(c.Listen.HTTP)+len(c.Listen.HTTPS) > 0
	switch {
	case !c.ACME.On && (hasEmail || hasNames && len(more) > 0):
		if !hasEmail {
			email = more[0].at
		}
		r.warn(email, "add acme = true, which agrees to the terms of the authority", "no authority is asked for certificates, as acme is not true")
	case c.ACME.On && !doors:
		r.complain(at, wrong(`add to [listen] http = ":80" or https = ":443", where no other program listens`,
			"acme needs a door where the authority can knock, and [listen] has neither http nor https"))
	}
	if c.ACME.On && c.Hostname != "" && !strings.Contains(string(c.Hostname), ".") {
		r.complain(at, wrong("give the whole name as hostname", "no authority gives a certificate to the bare name %q", c.Hostname))
	}
	if !c.ACME.On && doors {
		r.warn(at, "add acme = true to [tls]", "the listeners http and https only answer an authority that is asked for certificates, and none is")
	}
}

// readDirectory reads the URL of an ACME directory. Without https anybody on the way could say
// which certificate is ours.
func readDirectory(v *value) (string, *problem) {
	s, err := readString(v)
	if err != nil {
		return "", err
	}
	u, bad := url.Parse(s)
	if bad != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil {
		return "", wrong(`write one such as "https://acme-v02.api.letsencrypt.org/directory"`, "%q is not the https URL of a certificate authority", clip(s))
	}
	return s, nil
}

// readEmail reads a mail address for a program that knows only the plain form.
func readEmail(v *value) (string, *problem) {
	s, err := readString(v)
	if err != nil {
		return "", err
	}
	a, bad := relay.ParseAddress(s, false)
	if bad != nil || a.Domain.IsLiteral() || strings.ContainsAny(a.Local, `"?&%,<> `) {
		return "", wrong(`write one such as "postmaster@office.example"`, "%q is not an address the authority could write to", clip(s))
	}
	return a.String(), nil
}

// readPublicName reads a name that an authority can give a certificate to over HTTP.
func readPublicName(v *value) (relay.Domain, *problem) {
	d, err := readDomain(v)
	switch {
	case err != nil && strings.HasPrefix(v.text, "*."):
		return "", wrong("name every host, or get it by another program and name its files in [[tls.pair]]",
			"%q would need a challenge over DNS, which relayd does not speak", clip(v.text))
	case err == nil && !strings.Contains(string(d), "."):
		return "", wrong("give the whole name", "no authority gives a certificate to the bare name %q", d)
	}
	return d, err
}
