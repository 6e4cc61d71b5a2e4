package certs_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeAuthority is the least that RFC 8555 asks of an authority: it believes every signature,
// offers both challenges, and knocks with knock. `make interop` has a real one.
type fakeAuthority struct {
	*httptest.Server
	t      *testing.T
	ca     *x509.Certificate
	key    *ecdsa.PrivateKey
	life   time.Duration
	refuse string                               // the account, with this detail
	knock  func(kind, name, token string) error // sees whether a challenge is answered
	mu     sync.Mutex
	orders []*fakeOrder
	paths  []string
}

type fakeOrder struct {
	name, status, problem string
	cert                  []byte
}

func newAuthority(t *testing.T) *fakeAuthority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Fake Authority"}, IsCA: true,
		BasicConstraintsValid: true, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeAuthority{t: t, ca: ca, key: key, life: time.Hour}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

// asked are the paths that were asked for.
func (f *fakeAuthority) asked() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.paths, " ")
}

func (f *fakeAuthority) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.paths = append(f.paths, r.URL.Path)
	var jws struct{ Payload string }
	data, _ := io.ReadAll(r.Body)
	json.Unmarshal(data, &jws)
	payload, _ := base64.RawURLEncoding.DecodeString(jws.Payload)
	w.Header().Set("Replay-Nonce", "nonce")
	w.Header().Set("Content-Type", "application/json")
	n := 0
	what, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	fmt.Sscanf(r.URL.Path, "/"+what+"/%d", &n)
	switch what {
	case "dir":
		fmt.Fprintf(w, `{"newNonce": %q, "newAccount": %q, "newOrder": %q}`, f.URL+"/nonce", f.URL+"/account", f.URL+"/order")
	case "nonce":
	case "account":
		f.account(w)
	case "order":
		f.order(w, payload)
	case "finalize":
		f.issue(w, n, payload)
	case "cert":
		w.Header().Set("Content-Type", "application/pem-certificate-chain")
		w.Write(f.orders[n].cert)
	case "challenge":
		f.validate(w, n, r.URL.Path)
	default:
		f.show(w, what, n)
	}
}

func (f *fakeAuthority) account(w http.ResponseWriter) {
	if f.refuse != "" {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, `{"type": "urn:ietf:params:acme:error:unauthorized", "detail": %q}`, f.refuse)
		return
	}
	w.Header().Set("Location", f.URL+"/account/1")
	w.WriteHeader(http.StatusCreated)
	io.WriteString(w, `{"status": "valid"}`)
}

func (f *fakeAuthority) order(w http.ResponseWriter, payload []byte) {
	var o struct{ Identifiers []struct{ Value string } }
	json.Unmarshal(payload, &o)
	f.orders = append(f.orders, &fakeOrder{name: o.Identifiers[0].Value, status: "pending"})
	w.Header().Set("Location", fmt.Sprintf("%s/orders/%d", f.URL, len(f.orders)-1))
	w.WriteHeader(http.StatusCreated)
	f.show(w, "orders", len(f.orders)-1)
}

// show writes an order or its authorization.
func (f *fakeAuthority) show(w http.ResponseWriter, what string, n int) {
	o := f.orders[n]
	if what == "orders" {
		fmt.Fprintf(w, `{"status": %q, "authorizations": ["%s/authz/%d"], "finalize": "%[2]s/finalize/%[3]d"`, o.status, f.URL, n)
		if o.cert != nil {
			fmt.Fprintf(w, `, "certificate": "%s/cert/%d"`, f.URL, n)
		}
		io.WriteString(w, "}")
		return
	}
	status := map[string]string{"pending": "pending", "invalid": "invalid"}[o.status]
	if status == "" {
		status = "valid"
	}
	fmt.Fprintf(w, `{"status": %q, "identifier": {"type": "dns", "value": %q}, "challenges": [`, status, o.name)
	for i, kind := range []string{"tls-alpn-01", "http-01"} {
		if i > 0 {
			io.WriteString(w, ", ")
		}
		fmt.Fprintf(w, `{"type": %q, "url": "%s/challenge/%d/%[1]s", "token": "token-%[3]d", "status": "pending"`, kind, f.URL, n)
		if strings.HasPrefix(o.problem, kind+" ") {
			fmt.Fprintf(w, `, "error": {"type": "urn:ietf:params:acme:error:connection", "detail": %q}`, o.problem)
		}
		io.WriteString(w, "}")
	}
	io.WriteString(w, "]}")
}

func (f *fakeAuthority) validate(w http.ResponseWriter, n int, path string) {
	kind := path[strings.LastIndexByte(path, '/')+1:]
	o := f.orders[n]
	o.status = "ready"
	if err := f.knock(kind, o.name, fmt.Sprintf("token-%d", n)); err != nil {
		o.status, o.problem = "invalid", kind+" "+err.Error()
	}
	fmt.Fprintf(w, `{"type": %q, "url": "%s%s", "token": "token-%d", "status": "processing"}`, kind, f.URL, path, n)
}

func (f *fakeAuthority) issue(w http.ResponseWriter, n int, payload []byte) {
	var p struct{ CSR string }
	json.Unmarshal(payload, &p)
	der, _ := base64.RawURLEncoding.DecodeString(p.CSR)
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		f.t.Errorf("a wrong request: %v", err)
		return
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: csr.DNSNames,
		NotBefore: time.Now().Add(-time.Second), NotAfter: time.Now().Add(f.life)}
	leaf, err := x509.CreateCertificate(rand.Reader, template, f.ca, csr.PublicKey, f.key)
	if err != nil {
		f.t.Error(err)
		return
	}
	o := f.orders[n]
	o.status, o.cert = "valid", append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf}),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.ca.Raw})...)
	w.Header().Set("Location", fmt.Sprintf("%s/orders/%d", f.URL, n))
	f.show(w, "orders", n)
}
