package tlsrpt

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"net/mail"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"relayd/relay"
	"relayd/relay/relaytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is the DNS and the front door.
type world struct {
	path string

	mu      sync.Mutex
	txt     map[string][]string
	dnsErr  error
	asked   int
	refuse  error
	letters []letter
}

type letter struct {
	env  relay.Envelope
	body string
	at   time.Time
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return &world{path: filepath.Join(t.TempDir(), "tls-reports"), txt: map[string][]string{}}
}

func (w *world) TXT(_ context.Context, name string) ([]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked++
	if w.dnsErr != nil {
		return nil, w.dnsErr
	}
	if records := w.txt[name]; records != nil {
		return records, nil
	}
	return nil, relay.ErrNoRecord
}

func (w *world) Addrs(context.Context, relay.Domain) ([]netip.Addr, error) {
	return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
}
func (w *world) MX(context.Context, relay.Domain) ([]relay.MX, error) { return nil, relay.ErrNoRecord }
func (w *world) PTR(context.Context, netip.Addr) ([]relay.Domain, error) {
	return nil, relay.ErrNoRecord
}

func (w *world) Submit(_ context.Context, env relay.Envelope, body io.Reader) error {
	text, err := io.ReadAll(body)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil || w.refuse != nil {
		return errors.Join(err, w.refuse)
	}
	w.letters = append(w.letters, letter{env, string(text), time.Now()})
	return nil
}

func (w *world) open(change ...func(*Options)) *Store {
	o := Options{Path: w.path, Hostname: "mail.office.example", Resolver: w, Submit: w, AllowLoopback: true}
	for _, f := range change {
		f(&o)
	}
	return Open(o)
}

func (w *world) questions() int {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.asked
}

func (w *world) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dnsErr = err
}

var (
	noPolicy = relay.TLSPolicy{Type: relay.TLSPolicyNone, Domain: "partner.example"}
	stsOf    = relay.TLSPolicy{Type: relay.TLSPolicySTS, Domain: "partner.example", MX: []string{"*.partner.example"},
		Text: []string{"version: STSv1", "mode: enforce", "mx: *.partner.example", "max_age: 604800"}}
	tlsaOf = relay.TLSPolicy{Type: relay.TLSPolicyTLSA, Domain: "mx.host.example", Text: []string{"3 1 1 00ff"}}
	failed = relay.TLSFailure{Result: relay.TLSExpired, Local: netip.MustParseAddr("192.0.2.25"), Host: "mx1.partner.example",
		Remote: netip.MustParseAddr("192.0.2.7"), Reason: "x509: it has expired"}
)

func session(p relay.TLSPolicy, f ...relay.TLSFailure) relay.TLSSession {
	s := relay.TLSSession{Domain: "partner.example", Policy: p}
	if len(f) > 0 {
		s.Failure = f[0]
	}
	return s
}

// summary writes counts down for comparison.
func summary(list []Counts) string {
	var lines []string
	for _, c := range list {
		line := c.Day.Format(time.DateOnly) + " " + string(c.Domain)
		for _, p := range c.Policies {
			line += fmt.Sprintf(" %s %d/%d", p.Policy.Type, p.Summary.Good, p.Summary.Bad)
			for _, d := range p.Details {
				line += fmt.Sprintf(" %s*%d", d.Result, d.Count)
			}
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

// TestCount: sessions are counted by day, domain, policy and failure, and the counts outlive a restart.
func TestCount(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // it is midnight of the first of January 2000
		w := newWorld(t)
		s := w.open()
		for range 3 {
			s.Note(session(stsOf))
		}
		s.Note(session(stsOf, failed))
		s.Note(session(stsOf, failed))
		other := failed
		other.Result = relay.TLSWrongHost
		s.Note(session(stsOf, other))
		s.Note(session(noPolicy))
		s.Note(session(tlsaOf))
		time.Sleep(day)
		s.Note(session(noPolicy))
		want := "2000-01-01 mx.host.example tlsa 1/0\n" +
			"2000-01-01 partner.example sts 3/3 certificate-expired*2 certificate-host-mismatch*1 no-policy-found 1/0 tlsa 1/0\n" +
			"2000-01-02 partner.example no-policy-found 1/0"
		if got := summary(s.List()); got != want {
			t.Errorf("counted:\n%s\nwant:\n%s", got, want)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		again := w.open()
		if got := summary(again.List()); got != want || again.size != s.size {
			t.Errorf("after a restart: %d octets, want %d\n%s\nwant:\n%s", again.size, s.size, got, want)
		}
		again.Note(session(noPolicy))
		if got := summary(again.List()[2:]); got != "2000-01-02 partner.example no-policy-found 2/0" {
			t.Errorf("and one more: %s", got)
		}
	})
}

// TestBounded: however many domains, policies and failures there are, the memory is bounded, and so is
// what a damaged file costs.
func TestBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open()
	for i := range 300 {
		f := failed
		f.Reason = fmt.Sprint(i)
		s.Note(session(noPolicy, f))
		p := noPolicy
		p.Domain = relay.Domain(fmt.Sprintf("d%d.example", i))
		s.Note(session(p))
		p = relay.TLSPolicy{Type: relay.TLSPolicyTLSA, Domain: "mx.partner.example", Text: []string{strings.Repeat("f", 100_000), fmt.Sprint(i)}}
		s.Note(session(p))
	}
	c := s.List()
	if len(c) != 2 || len(c[1].Policies) != maxPolicies || len(c[1].Policies[0].Details) != maxDetails || c[1].Policies[0].Summary.Bad != 300 {
		t.Fatalf("%d domains, %d policies, %d details, %+v", len(c), len(c[1].Policies), len(c[1].Policies[0].Details), c[1].Policies[0].Summary)
	}
	for i := range 30_000 {
		s.Note(relay.TLSSession{Domain: relay.Domain(fmt.Sprintf("domain%d.example", i)), Policy: noPolicy})
	}
	if s.size > maxSize || s.size < maxSize-1000 {
		t.Errorf("%d octets, the bound is %d", s.size, maxSize)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(w.path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(file, []byte("\n"))
	damaged := append([]byte("\x00\n{}\n[]\n"), bytes.Join(lines[:len(lines)/2], nil)...)
	if err := os.WriteFile(w.path, append(damaged, lines[len(lines)/2][:40]...), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := len(w.open().List()); got != len(lines)/2 {
		t.Errorf("%d of %d entries are read", got, len(lines)/2)
	}
}

func TestParsePlaces(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"v=TLSRPTv1; rua=mailto:tls@partner.example":                               "tls@partner.example",
		"v=TLSRPTv1;rua=mailto:a@b.example,https://c.example:8443/tls?x=1;":        "a@b.example https://c.example:8443/tls?x=1",
		"v=TLSRPTv1 ; x=y; rua = mailto:a%2Bb@c.example , mailto:%7e@d.example":    "a+b@c.example ~@d.example",
		"v=spf1 -all|v=TLSRPTv1; rua=mailto:a@b.example":                           "a@b.example",
		"v=TLSRPTv1; rua=mailto:a@b.example|v=TLSRPTv1; rua=mailto:a@b.example":    "",
		"v=TLSRPTv10; rua=mailto:a@b.example":                                      "",
		"v=TLSRPTv1; rua=http://c.example/, mailto:postmaster, ftp://x, https:///": "",
		"v=TLSRPTv1; rua=https://me:secret@c.example/":                             "",
		"v=TLSRPTv1; rua=mailto:a@b%0d%0aX:.example":                               "",
		"v=TLSRPTv1; rua=mailto:a%0d%0aX: y@b.example":                             "",
		"v=TLSRPTv1": "",
		"":           "",
		"v=TLSRPTv1; rua=" + strings.Repeat("mailto:a@b.example,", maxPlaces+1):        strings.TrimSpace(strings.Repeat("a@b.example ", maxPlaces)),
		"v=TLSRPTv1; rua=mailto:a@b.example; rua=mailto:c@d.example":                   "a@b.example",
		"v=TLSRPTv1; rua=mailto:\"x y\"@b.example,mailto:%22x%20y%22@b.example; y=z;;": `"x y"@b.example "x y"@b.example`,
	} {
		var got []string
		for _, p := range parsePlaces(strings.Split(text, "|")) {
			if p.url != nil {
				got = append(got, p.url.String())
			} else {
				got = append(got, p.to.String())
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// unpack reads a report out of a letter.
func unpack(t *testing.T, text string) (header mail.Header, human, file string, report string) {
	t.Helper()
	m, err := mail.ReadMessage(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/report" || params["report-type"] != "tlsrpt" {
		t.Fatalf("%s %v, %v", kind, params, err)
	}
	parts := multipart.NewReader(m.Body, params["boundary"])
	p, err := parts.NextPart()
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(p)
	if err != nil || !strings.HasPrefix(p.Header.Get("Content-Type"), "text/plain") {
		t.Fatalf("%v, %v", p.Header, err)
	}
	p, err = parts.NextPart()
	if err != nil || p.Header.Get("Content-Type") != "application/tlsrpt+gzip" {
		t.Fatalf("%v, %v", p, err)
	}
	z, err := gzip.NewReader(base64.NewDecoder(base64.StdEncoding, p))
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parts.NextPart(); err != io.EOF {
		t.Errorf("there is more: %v", err)
	}
	return m.Header, string(plain), p.FileName(), string(data)
}

const wantReport = `{"organization-name":"mail.office.example","date-range":{"start-datetime":"2000-01-01T00:00:00Z","end-datetime":"2000-01-01T23:59:59Z"},` +
	`"contact-info":"postmaster@mail.office.example","report-id":"946684800-946771199.partner.example@mail.office.example","policies":[` +
	`{"policy":{"policy-type":"sts","policy-string":["version: STSv1","mode: enforce","mx: *.partner.example","max_age: 604800"],"policy-domain":"partner.example","mx-host":["*.partner.example"]},` +
	`"summary":{"total-successful-session-count":1,"total-failure-session-count":2},"failure-details":[{"result-type":"certificate-expired","sending-mta-ip":"192.0.2.25",` +
	`"receiving-mx-hostname":"mx1.partner.example","receiving-ip":"192.0.2.7","failure-reason-code":"x509: it has expired","failed-session-count":2}]},` +
	`{"policy":{"policy-type":"no-policy-found","policy-domain":"partner.example"},"summary":{"total-successful-session-count":1,"total-failure-session-count":0}}]}` + "\n"

// TestDaily: the day after, at a moment of the domain's own within four hours, the report goes out, once,
// as RFC 8460 has it; a domain that wants none costs a question.
func TestDaily(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.txt["_smtp._tls.partner.example"] = []string{"v=TLSRPTv1; rua=mailto:tls@reports.example"}
		s := w.open()
		ctx, cancel := context.WithCancel(t.Context())
		go s.Run(ctx)
		s.Note(session(stsOf))
		s.Note(session(stsOf, failed))
		s.Note(session(stsOf, failed))
		s.Note(session(noPolicy))
		s.Note(relay.TLSSession{Domain: "silent.example", Policy: noPolicy})
		time.Sleep(3*day - time.Second)
		cancel()
		synctest.Wait()
		if len(w.letters) != 1 || w.asked != 2 || len(s.List()) != 0 {
			t.Fatalf("%d letters, %d questions, left: %s", len(w.letters), w.asked, summary(s.List()))
		}
		l := w.letters[0]
		midnight := time.Date(2000, 1, 2, 0, 0, 0, 0, time.UTC)
		if wait := l.at.Sub(midnight); wait < 0 || wait >= spread || wait == 0 {
			t.Errorf("sent %v after midnight", wait)
		}
		if l.env.From != (relay.Address{}) || len(l.env.Rcpts) != 1 || l.env.Rcpts[0].Addr.String() != "tls@reports.example" || l.env.Size != int64(len(l.body)) {
			t.Errorf("envelope %+v", l.env)
		}
		checkLetter(t, l.body)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if file, err := os.ReadFile(w.path); err != nil || len(file) != 0 {
			t.Errorf("the file: %q, %v", file, err)
		}
	})
}

func checkLetter(t *testing.T, text string) {
	t.Helper()
	header, human, file, report := unpack(t, text)
	for name, want := range map[string]string{
		"Subject":           "Report Domain: partner.example Submitter: mail.office.example Report-ID: <946684800-946771199.partner.example@mail.office.example>",
		"TLS-Report-Domain": "partner.example", "TLS-Report-Submitter": "mail.office.example", "TLS-Required": "No",
		"From": `"relayd" <postmaster@mail.office.example>`, "To": "tls@reports.example", "Auto-Submitted": "auto-generated",
	} {
		if got := header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if file != "mail.office.example!partner.example!946684800!946771199.json.gz" {
		t.Errorf("file %q", file)
	}
	if report != wantReport {
		t.Errorf("the report:\n%s\nwant:\n%s", report, wantReport)
	}
	if !strings.Contains(human, "went as they should: 2\r\n") || !strings.Contains(human, "failed:              2\r\n") {
		t.Errorf("for people:\n%s", human)
	}
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		if len(lines.Text()) > 200 || strings.Contains(strings.TrimSuffix(lines.Text(), "\r"), "\r") {
			t.Errorf("a line: %q", lines.Text())
		}
	}
	if strings.Count(text, "\n") != strings.Count(text, "\r\n") {
		t.Error("there are bare line feeds")
	}
}

// TestRetry: what cannot be sent is tried every hour, also by the next relayd, and given up after a day;
// what arrived at one of two places does not go there again.
func TestRetry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.txt["_smtp._tls.partner.example"] = []string{"v=TLSRPTv1; rua=mailto:tls@reports.example,https://no.example/"}
		noDial := func(o *Options) {
			o.Dial = func(context.Context, netip.AddrPort) (net.Conn, error) { return nil, errors.New("not here") }
		}
		s := w.open(noDial)
		s.Note(session(stsOf))
		ctx, cancel := context.WithCancel(t.Context())
		go s.Run(ctx)
		time.Sleep(day + spread + time.Minute)
		cancel()
		synctest.Wait()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if list := s.List(); len(w.letters) != 1 || len(list) != 1 || len(list[0].Sent) != 1 {
			t.Fatalf("%d letters, %+v", len(w.letters), list)
		}
		w.fail(errors.New("SERVFAIL"))
		again := w.open(noDial)
		ctx, cancel = context.WithCancel(t.Context())
		go again.Run(ctx)
		asked := w.questions()
		time.Sleep(day)
		if n := w.questions() - asked; n < 20 || n > 25 || len(again.List()) != 1 {
			t.Errorf("asked %d times in a day, left: %s", n, summary(again.List()))
		}
		time.Sleep(2 * time.Hour)
		cancel()
		synctest.Wait()
		if len(w.letters) != 1 || len(again.List()) != 0 {
			t.Errorf("%d letters, left: %s", len(w.letters), summary(again.List()))
		}
	})
}

// TestSendNow: the operator need not wait; what is counted meanwhile stays for the next report.
func TestSendNow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.txt["_smtp._tls.partner.example"] = []string{"v=TLSRPTv1; rua=mailto:tls@reports.example"}
		s := w.open()
		s.Note(session(stsOf))
		s.Note(session(stsOf, failed))
		time.Sleep(time.Hour)
		c, _ := s.get(time.Now(), "partner.example")
		s.Note(session(stsOf, failed))
		s.Note(session(noPolicy))
		s.settle(c, true, time.Now())
		if got := summary(s.List()); got != "2000-01-01 partner.example sts 0/1 certificate-expired*1 no-policy-found 1/0" {
			t.Errorf("left: %s", got)
		}
		if got := s.Send(t.Context(), "other.example"); len(got) != 0 {
			t.Errorf("sent %+v", got)
		}
		got := s.Send(t.Context(), "")
		if len(got) != 1 || got[0].To != "mailto:tls@reports.example" || got[0].Err != "" || len(s.List()) != 0 || s.size != 0 {
			t.Errorf("sent %+v, left %d octets: %s", got, s.size, summary(s.List()))
		}
		var r report
		_, _, _, text := unpack(t, w.letters[0].body)
		if err := json.Unmarshal([]byte(text), &r); err != nil || r.Range.End.Format(time.TimeOnly) != "01:00:00" {
			t.Errorf("%+v, %v", r, err)
		}
	})
}

// TestHTTPS: a report by HTTPS is a POST to a web server that proves its name; anything but 2xx is tried
// again.
func TestHTTPS(t *testing.T) {
	t.Parallel()
	ca, err := relaytest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		cert, host string
		code       int
		change     func(*Options)
		want       bool
	}{
		"good":       {"reports.example", "reports.example", 201, nil, true},
		"refused":    {"reports.example", "reports.example", 503, nil, false},
		"redirected": {"reports.example", "reports.example", 307, nil, false},
		"other name": {"other.example", "reports.example", 200, nil, false},
		"loopback":   {"reports.example", "reports.example", 200, func(o *Options) { o.AllowLoopback = false }, false},
		"by address": {"127.0.0.1", "127.0.0.1", 200, func(o *Options) { o.AllowLoopback = false }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []byte
			web := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if r.Method != "POST" || r.URL.String() != "/tls?a=b" || r.Header.Get("Content-Type") != "application/tlsrpt+gzip" {
					t.Errorf("%s %s %v", r.Method, r.URL, r.Header)
				}
				got, _ = io.ReadAll(r.Body)
				rw.Header().Set("Location", "/elsewhere")
				rw.WriteHeader(tt.code)
			}))
			cert, err := ca.Issue(tt.cert, false)
			if err != nil {
				t.Fatal(err)
			}
			web.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
			web.Config.ErrorLog = log.New(io.Discard, "", 0)
			web.StartTLS()
			defer web.Close()
			w := newWorld(t)
			_, port, _ := net.SplitHostPort(web.Listener.Addr().String())
			w.txt["_smtp._tls.partner.example"] = []string{"v=TLSRPTv1; rua=https://" + tt.host + ":" + port + "/tls?a=b"}
			s := w.open(func(o *Options) {
				o.Roots = ca.Pool()
				if tt.change != nil {
					tt.change(o)
				}
			})
			s.Note(session(stsOf))
			sent := s.Send(t.Context(), "")
			if len(sent) != 1 || (sent[0].Err == "") != tt.want || (len(s.List()) == 0) != tt.want {
				t.Errorf("%+v, left: %s", sent, summary(s.List()))
			}
			if !tt.want {
				return
			}
			z, err := gzip.NewReader(bytes.NewReader(got))
			if err != nil {
				t.Fatal(err)
			}
			var r report
			if err := json.NewDecoder(z).Decode(&r); err != nil || len(r.Policies) != 1 {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
}
