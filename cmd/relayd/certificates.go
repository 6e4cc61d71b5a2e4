package main

import (
	"cmp"
	"path/filepath"
	"slices"

	"relayd/config"
	"relayd/relay/admin"
	"relayd/relay/certs"
)

// certificates is what the config says of them; only the log is missing.
func certificates(cfg *config.Config) certs.Options {
	o := certs.Options{
		Hostname: cfg.Hostname, KeysDir: filepath.Join(cfg.DataDir, "keys"),
		Default: certs.Pair{Cert: cfg.TLSCert, Key: cfg.TLSKey},
	}
	for _, p := range cfg.TLSPairs {
		o.Pairs = append(o.Pairs, certs.Pair(p))
	}
	if cfg.ACME.On {
		o.ACME = &certs.ACME{Directory: cfg.ACME.Directory, Email: cfg.ACME.Email, Names: slices.Concat(cfg.ACME.Names, policyHosts(cfg)),
			HTTP: len(cfg.Listen.HTTP) > 0, TLS: len(cfg.Listen.HTTPS) > 0}
	}
	return o
}

// shownCertificates are ours for people and metrics.
func (h *house) shownCertificates() []admin.Certificate {
	var all []admin.Certificate
	for _, st := range h.certs.Status() {
		c := admin.Certificate{Names: st.Names, From: cmp.Or(st.File, st.From), Expires: st.NotAfter,
			SelfSigned: st.From == certs.FromSelfSigned, Problem: st.Problem}
		if len(st.Names) > 0 {
			c.Name = st.Names[0]
		}
		all = append(all, c)
	}
	return all
}
