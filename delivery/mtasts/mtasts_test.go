package mtasts

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"relayd/relay"
	"relayd/relay/relaytest"
)

const good = "version: STSv1\r\nmode: enforce\r\nmx: mx1.partner.example\r\nmx: *.Hosted.example\r\nmax_age: 604800\r\n"

func TestParse(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		good:                                     "enforce [mx1.partner.example *.hosted.example] 168h0m0s",
		strings.ReplaceAll(good, "\r\n", "  \n"): "enforce [mx1.partner.example *.hosted.example] 168h0m0s",
		"mode:testing\nversion:STSv1\nmax_age:9999999999\nmx:a.example\nmode:enforce\ncolour: blue": "testing [a.example] 8766h0m0s",
		"version: STSv1\nmode: none\nmax_age: 0":                                                    "none [] 0s",
		"":                                                                                          "",
		strings.Replace(good, "STSv1", "STSv2", 1):                                                  "",
		strings.Replace(good, "enforce", "Enforce", 1):                                              "",
		strings.Replace(good, "604800", "-1", 1):                                                    "",
		strings.Replace(good, "604800", "+1", 1):                                                    "",
		strings.Replace(good, "604800", "1e3", 1):                                                   "",
		strings.Replace(good, "604800", "00000000001", 1):                                           "",
		strings.Replace(good, "*.Hosted", "**.Hosted", 1):                                           "",
		strings.Replace(good, "*.Hosted.example", "*", 1):                                           "",
		strings.Replace(good, "mx1.partner.example", "[192.0.2.1]", 1):                              "",
		"version: STSv1\nmode: enforce\nmax_age: 60":                                                "",
		"<html>": "",
		good + strings.Repeat("mx: a.example\n", maxMX): "",
	} {
		p, err := parse(text)
		got := ""
		if err == nil {
			got = fmt.Sprintf("%s %v %v", p.Mode, p.MX, p.Age)
		}
		if got != want {
			t.Errorf("%.80q: %q, %v; want %q", text, got, err, want)
		}
	}
}

func TestParseRecord(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"v=STSv1; id=20160831085700Z;": "20160831085700Z", "v=STSv1;id=1": "1", "v=STSv1 ;\tx=y; id=a1 ;": "a1",
		"v=spf1 -all|v=STSv1; id=7;": "7", "v=STSv1; id=1|v=STSv1; id=1": "", "v=STSv10; id=1": "", "v=STSv1; id=": "", "v=STSv1; id=a-b": "",
		"v=STSv1; id=" + strings.Repeat("a", 33): "", "id=1; v=STSv1": "", "v=STSv1": "", "": "", "v=STSv1; id=1|v=STSv1; id=": "",
	} {
		got, ok := parseRecord(strings.Split(text, "|"))
		if !ok {
			got = ""
		}
		if got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestAllows(t *testing.T) {
	t.Parallel()
	p := relay.STSPolicy{MX: []string{"mx.example", "*.hosted.example"}}
	for host, want := range map[relay.Domain]bool{
		"mx.example": true, "a.mx.example": false, "xmx.example": false, "a.hosted.example": true, "hosted.example": false,
		"a.b.hosted.example": false, "": false, "*.hosted.example": true, "[192.0.2.1]": false,
	} {
		if got := p.Allows(host); got != want {
			t.Errorf("%q: %v", host, got)
		}
	}
}

// FuzzParse: what is taken as a policy says the same when it is written again, and is bounded.
func FuzzParse(f *testing.F) {
	f.Add(good)
	f.Add("version:STSv1\nmode:none\nmax_age:1\nmx:\xff")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parse(text)
		if err != nil {
			return
		}
		again := fmt.Sprintf("version: STSv1\nmode: %s\nmax_age: %d\n", p.Mode, p.Age/time.Second)
		for _, mx := range p.MX {
			again += "mx: " + mx + "\n"
		}
		p2, err := parse(again)
		if err != nil || !reflect.DeepEqual(p, p2) || p.Age < 0 || p.Age > maxAge || len(p.MX) > maxMX {
			t.Errorf("%q gives %+v, and that %+v, %v", text, p, p2, err)
		}
		parseRecord([]string{text})
	})
}

// world is the DNS and the web server of partner.example.
type world struct {
	ca   *relaytest.CA
	web  *httptest.Server
	path string

	mu      sync.Mutex
	records []string
	dnsErr  error
	handle  http.HandlerFunc
	asked   atomic.Int32
}

func newWorld(t *testing.T) *world {
	t.Helper()
	ca, err := relaytest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{ca: ca, path: filepath.Join(t.TempDir(), "mta-sts"), records: []string{"v=STSv1; id=1;"}, handle: text(good)}
	w.web = httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.asked.Add(1)
		w.mu.Lock()
		handle := w.handle
		w.mu.Unlock()
		if r.URL.Path != "/.well-known/mta-sts.txt" || r.Host != "mta-sts.partner.example" || r.Method != "GET" {
			t.Errorf("asked %s %s of %s", r.Method, r.URL, r.Host)
		}
		handle(rw, r)
	}))
	w.web.Config.ErrorLog = log.New(io.Discard, "", 0)
	w.certify(t, "mta-sts.partner.example", false)
	w.web.StartTLS()
	t.Cleanup(w.web.Close)
	return w
}

func (w *world) certify(t *testing.T, name string, expired bool) {
	t.Helper()
	cert, err := w.ca.Issue(name, expired)
	if err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.web.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
}

func (w *world) set(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func text(s string) http.HandlerFunc {
	return func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
		rw.Write([]byte(s))
	}
}

func (w *world) open(t *testing.T, change ...func(*Options)) *Store {
	t.Helper()
	o := Options{Path: w.path, Resolver: w, Roots: w.ca.Pool(), AllowLoopback: true,
		Dial: func(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
			if addr.String() != "127.0.0.1:443" {
				return nil, fmt.Errorf("dialled %s", addr)
			}
			return new(net.Dialer).DialContext(ctx, "tcp", w.web.Listener.Addr().String())
		}}
	for _, f := range change {
		f(&o)
	}
	s := Open(o)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (w *world) TXT(_ context.Context, name string) ([]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if name != "_mta-sts.partner.example" {
		return nil, relay.ErrNoRecord
	}
	return w.records, w.dnsErr
}

func (w *world) Addrs(context.Context, relay.Domain) ([]netip.Addr, error) {
	return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
}
func (w *world) MX(context.Context, relay.Domain) ([]relay.MX, error) { return nil, relay.ErrNoRecord }
func (w *world) PTR(context.Context, netip.Addr) ([]relay.Domain, error) {
	return nil, relay.ErrNoRecord
}

const partner = "partner.example"

func TestFetch(t *testing.T) {
	t.Parallel()
	status := func(code int) http.HandlerFunc {
		return func(rw http.ResponseWriter, r *http.Request) { rw.WriteHeader(code); text(good)(rw, r) }
	}
	for name, tt := range map[string]struct {
		handle http.HandlerFunc
		change func(*Options)
		want   relay.STSMode
	}{
		"good":      {text(good), nil, relay.STSEnforce},
		"not found": {status(404), nil, ""},
		"201":       {status(201), nil, ""},
		"redirect": {func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, "/.well-known/mta-sts.txt", http.StatusFound)
		}, nil, ""},
		"html": {func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", "text/html")
			rw.Write([]byte(good))
		}, nil, ""},
		"just fits": {text(good + strings.Repeat("\n", maxBody-len(good))), nil, relay.STSEnforce},
		"too long":  {text(good + strings.Repeat("\n", maxBody-len(good)+1)), nil, ""},
		"a long head": {func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("X", strings.Repeat("x", 48<<10))
			text(good)(rw, r)
		}, nil, ""},
		"nonsense":    {text("hello"), nil, ""},
		"other roots": {text(good), func(o *Options) { ca, _ := relaytest.NewCA(); o.Roots = ca.Pool() }, ""},
		"loopback":    {text(good), func(o *Options) { o.AllowLoopback = false }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.set(func() { w.handle = tt.handle })
			problem := map[string]string{"good": "", "just fits": "", "nonsense": relay.TLSSTSInvalid, "other roots": relay.TLSSTSUntrustedWeb}[name]
			if problem == "" && tt.want == "" {
				problem = relay.TLSSTSFetch
			}
			s := w.open(t, func(o *Options) {
				if tt.change != nil {
					tt.change(o)
				}
			})
			for range 3 {
				if got := s.Find(t.Context(), partner); got.Mode != tt.want || got.Problem != problem {
					t.Errorf("%+v, want %q and %q", got, tt.want, problem)
				}
			}
			// Neither a policy nor a failure is asked for again at once.
			if n := w.asked.Load(); n > 1 {
				t.Errorf("asked %d times", n)
			}
		})
	}
}

// TestCertificate: a policy host must prove its name.
func TestCertificate(t *testing.T) {
	t.Parallel()
	for name, expired := range map[string]bool{"partner.example": false, "mta-sts.other.example": false, "mta-sts.partner.example": true} {
		w := newWorld(t)
		w.web.TLS.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
			cert, err := w.ca.Issue(name, expired)
			return &tls.Config{Certificates: []tls.Certificate{cert}}, err
		}
		if got := w.open(t).Find(t.Context(), partner); got.Mode != "" || got.Problem != relay.TLSSTSUntrustedWeb || w.asked.Load() != 0 {
			t.Errorf("%s, expired %v: %+v after %d questions", name, expired, got, w.asked.Load())
		}
	}
}

// TestMemory: a policy outlives a restart and whoever silences DNS and web server; a new id or
// the second half of its life fetch it again; it ends with max_age.
func TestMemory(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open(t)
	want := relay.STSPolicy{Mode: relay.STSEnforce, MX: []string{"mx1.partner.example", "*.hosted.example"}, Age: 7 * 24 * time.Hour}
	check := func(what string, policy relay.STSPolicy, asked int32) {
		t.Helper()
		if got := s.Find(t.Context(), partner); !reflect.DeepEqual(got, policy) || w.asked.Load() != asked {
			t.Errorf("%s: %+v after %d questions, want %+v after %d", what, got, w.asked.Load(), policy, asked)
		}
	}
	age := func(by time.Duration) {
		s.mu.Lock()
		defer s.mu.Unlock()
		e := s.entries[partner]
		e.fetched = time.Now().Add(-by)
		s.entries[partner] = e
	}
	check("first", want, 1)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if file, _ := os.ReadFile(w.path); !strings.HasPrefix(string(file), `{"domain":"partner.example","id":"1","mode":"enforce","mx":["mx1.partner.example","*.hosted.example"],"fetched":"`) {
		t.Errorf("the file: %q", file)
	}
	s = w.open(t)
	check("after a restart", want, 1)
	w.set(func() { w.dnsErr = errors.New("SERVFAIL") })
	check("without DNS", want, 1)
	w.set(func() { w.records, w.dnsErr = nil, relay.ErrNoRecord })
	check("record gone", want, 1)
	w.set(func() { w.records, w.dnsErr, w.handle = []string{"v=STSv1; id=2;"}, nil, http.NotFound })
	want.Problem = relay.TLSSTSFetch
	check("new, but not there", want, 2)
	check("not asked again at once", want, 2)
	w.set(func() {
		w.records = []string{"v=STSv1; id=3;"}
		w.handle = text(strings.Replace(good, "enforce", "testing", 1))
	})
	want.Mode, want.Problem = relay.STSTesting, ""
	check("a new one", want, 3)
	age(7*24*time.Hour/2 - time.Hour)
	check("young", want, 3)
	age(7*24*time.Hour/2 + time.Hour)
	check("old", want, 4)
	w.set(func() { w.handle = http.NotFound })
	age(6 * 24 * time.Hour)
	want.Problem = relay.TLSSTSFetch
	check("old, and not there", want, 5)
	age(7 * 24 * time.Hour)
	check("ended", relay.STSPolicy{Problem: relay.TLSSTSFetch}, 5)
}

// TestShared: many who want a policy at the same time cost one question.
func TestShared(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open(t)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if got := s.Find(t.Context(), partner); got.Mode != relay.STSEnforce {
				t.Errorf("%+v", got)
			}
		})
	}
	wg.Wait()
	if n := w.asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

// TestBounded: the memory keeps what holds longest, and a damaged file costs its damaged lines.
func TestBounded(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "mta-sts")
	now := time.Now().UTC().Format(time.RFC3339)
	keep := `{"domain":"kept.example","id":"1","mode":"enforce","mx":["a.example"],"fetched":"` + now + `","max_age":86400}` + "\n"
	ended := `{"domain":"ended.example","id":"1","mode":"enforce","mx":["a.example"],"fetched":"2020-01-01T00:00:00Z","max_age":86400}` + "\n"
	if err := os.WriteFile(path, []byte("\x00\n{}\n"+ended+keep+`{"domain":"half`), 0o600); err != nil {
		t.Fatal(err)
	}
	s := Open(Options{Path: path, Resolver: &world{dnsErr: relay.ErrNoRecord}})
	defer s.Close()
	if got := s.Find(t.Context(), "kept.example"); got.Mode != relay.STSEnforce || len(s.entries) != 1 {
		t.Errorf("%+v of %d", got, len(s.entries))
	}
	for i := range maxEntries {
		s.put(relay.Domain(fmt.Sprintf("d%d.example", i)), entry{policy{relay.STSPolicy{Age: 48 * time.Hour}}, "1", time.Now()})
		s.fail(relay.Domain(fmt.Sprintf("d%d.example", i)), "1", errors.New("no"))
	}
	s.fail("another.example", "1", errors.New("no"))
	if _, there := s.entries["kept.example"]; there || len(s.entries) != maxEntries || len(s.failures) > maxEntries {
		t.Errorf("%d policies, %d failures", len(s.entries), len(s.failures))
	}
}
