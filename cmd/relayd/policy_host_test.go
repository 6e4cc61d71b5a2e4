package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"relayd/relay/relaytest"
)

const policyHostConfig = `
hostname = "mail.office.test"
data_dir = "data"
[listen]
smtp = "127.0.0.1:0"
http = "127.0.0.1:0"
https = "127.0.0.1:0"
[domains."office.test"]
mta_sts = "enforce"
mta_sts_mx = ["backup.test"]
[domains."other.test"]
[tls]
cert = "mail.pem"
key = "mail.pem"
[[tls.pair]]
cert = "sts.pem"
key = "sts.pem"
[dns]
servers = [%q]
`

// Whoever sends us mail finds our MTA-STS policy as RFC 8461 has it, over HTTPS with a certificate for
// its host and nowhere else, and relayctl dns agrees with what is served.
func TestPolicyHost(t *testing.T) {
	t.Parallel()
	dir, ca := t.TempDir(), newTestCA(t)
	ca.write(t, filepath.Join(dir, "mail.pem"), 90*24*time.Hour, "mail.office.test")
	ca.write(t, filepath.Join(dir, "sts.pem"), 90*24*time.Hour, "mta-sts.office.test")
	const zone = "office.test. MX 10 mail.office.test.\noffice.test. MX 20 backup.test.\nmail.office.test. A 192.0.2.25\nmta-sts.office.test. A 192.0.2.25\n"
	dns := relaytest.ServeDNS(t, zone)
	config := filepath.Join(dir, "relayd.toml")
	if err := os.WriteFile(config, fmt.Appendf(nil, policyHostConfig, dns.Addr()), 0o600); err != nil {
		t.Fatal(err)
	}
	d := launched(t, dir, config)
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	for url, want := range map[string]string{
		"https://mta-sts.office.test/.well-known/mta-sts.txt": "200 version: STSv1\r\nmode: enforce\r\nmx: mail.office.test\r\nmx: backup.test\r\nmax_age: 604800\r\n",
		"https://mail.office.test/.well-known/mta-sts.txt":    "404 404 page not found\n",
		"http://mta-sts.office.test/.well-known/mta-sts.txt":  "404 404 page not found\n",
	} {
		if got := fetched(t, d, roots, url); got != want {
			t.Errorf("%s: %q", url, got)
		}
	}
	seen := func() string {
		out, err := exec.CommandContext(t.Context(), program(t, "relayctl"), "--config", config, "dns", "office.test").CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	out := seen()
	wantAll(t, out, `^fault   TXT    _mta-sts\.office\.test: we serve a policy`, `^ok      A/AAAA mta-sts\.office\.test: `)
	record := regexp.MustCompile(`want   "(v=STSv1; id=[0-9a-f]{20})"`).FindStringSubmatch(out)
	if record == nil {
		t.Fatal(out)
	}
	if err := dns.SetZone(zone + fmt.Sprintf("_mta-sts.office.test. TXT %q\n", record[1])); err != nil {
		t.Fatal(err)
	}
	wantAll(t, seen(), `^ok      TXT    _mta-sts\.office\.test: `)
}

// fetched is the status and the text at a URL, asked for at the daemon's own doors.
func fetched(t *testing.T, d *server, roots *x509.CertPool, url string) string {
	t.Helper()
	client := &http.Client{Timeout: patience, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			service := "https"
			if strings.HasSuffix(address, ":80") {
				service = "http"
			}
			return (&net.Dialer{}).DialContext(ctx, network, d.addrs[service])
		},
	}}
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d %s", resp.StatusCode, text)
}
