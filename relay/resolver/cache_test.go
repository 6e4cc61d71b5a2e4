package resolver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"relayd/relay"
)

// fake is a resolver whose server answers at once, in a bubble.
func fake(t *testing.T, exchange func(q dns.Question) (*dns.Msg, time.Duration)) (*Resolver, *int) {
	t.Helper()
	r, err := New([]netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	asked := 0
	r.exchange = func(ctx context.Context, _ netip.AddrPort, m *dns.Msg, _ bool) (*dns.Msg, error) {
		mu.Lock()
		asked++
		mu.Unlock()
		reply, delay := exchange(m.Question[0])
		select {
		case <-time.After(delay):
			return reply, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	t.Cleanup(func() { r.Close() })
	return r, &asked
}

func txt(q dns.Question, ttl uint32) *dns.Msg {
	m := new(dns.Msg)
	m.Answer = []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: q.Qclass, Ttl: ttl}, Txt: []string{"x"}}}
	return m
}

func TestTTLs(t *testing.T) {
	for _, c := range []struct {
		name  string
		reply func(q dns.Question) *dns.Msg
		holds time.Duration
	}{
		{"positive", func(q dns.Question) *dns.Msg { return txt(q, 60) }, time.Minute},
		{"positive for a week", func(q dns.Question) *dns.Msg { return txt(q, 604800) }, maxPositive},
		{"TTL 0", func(q dns.Question) *dns.Msg { return txt(q, 0) }, 0},
		{"TTL with the top bit", func(q dns.Question) *dns.Msg { return txt(q, 1<<31) }, 0},
		{"lowest of the chain", func(q dns.Question) *dns.Msg {
			m := txt(dns.Question{Name: "end.", Qtype: q.Qtype, Qclass: q.Qclass}, 600)
			m.Answer = append(m.Answer, &dns.CNAME{Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeCNAME, Ttl: 30}, Target: "end."})
			return m
		}, 30 * time.Second},
		{"negative", func(dns.Question) *dns.Msg { return negative(3600, 90) }, 90 * time.Second},
		{"negative for a day", func(dns.Question) *dns.Msg { return negative(86400, 86400) }, maxNegative},
		{"negative without SOA", func(dns.Question) *dns.Msg { return new(dns.Msg) }, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, asked := fake(t, func(q dns.Question) (*dns.Msg, time.Duration) { return c.reply(q), 0 })
				r.TXT(t.Context(), "x.example")
				if c.holds > 0 {
					time.Sleep(c.holds - 1)
					r.TXT(t.Context(), "x.example")
					if *asked != 1 {
						t.Errorf("forgotten before %v", c.holds)
					}
					time.Sleep(time.Nanosecond)
				}
				r.TXT(t.Context(), "x.example")
				if *asked != 2 {
					t.Errorf("asked %d times, want it forgotten at %v", *asked, c.holds)
				}
			})
		})
	}
}

func negative(ttl, minimum uint32) *dns.Msg {
	m := new(dns.Msg)
	m.Ns = []dns.RR{&dns.SOA{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeSOA, Ttl: ttl}, Minttl: minimum}}
	return m
}

// Everybody who asks the same thing at the same time shares one question, and the first to
// leave does not take the answer from the others.
func TestFlightsAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, asked := fake(t, func(q dns.Question) (*dns.Msg, time.Duration) { return txt(q, 60), 2 * time.Second })
		var wg sync.WaitGroup
		hasty, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		wg.Go(func() {
			if _, err := r.TXT(hasty, "x.example"); !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		})
		synctest.Wait()
		for range 20 {
			wg.Go(func() {
				if _, err := r.TXT(t.Context(), "X.example."); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if *asked != 1 {
			t.Errorf("%d questions, want 1", *asked)
		}
	})
}

// A server that never answers costs a bounded time.
func TestTotalBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := fake(t, func(dns.Question) (*dns.Msg, time.Duration) { return nil, time.Hour })
		start := time.Now()
		_, err := r.MX(t.Context(), "x.example")
		if err == nil || errors.Is(err, relay.ErrNoRecord) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(start); took != 2*defaultTimeout {
			t.Errorf("took %v", took)
		}
	})
}

func TestCacheIsBounded(t *testing.T) {
	t.Parallel()
	c := newCache(100_000)
	now := time.Now()
	for i := range 5000 {
		q := question{fmt.Sprintf("n%d.example.", i), dns.TypeTXT}
		c.put(q, answer{rrs: txt(dns.Question{Name: q.name}, 60).Answer, ttl: time.Minute}, now)
	}
	if c.size > c.limit || len(c.entries) < 200 {
		t.Errorf("%d octets in %d entries", c.size, len(c.entries))
	}
	for q := range c.entries {
		c.remove(q)
	}
	if c.size != 0 {
		t.Errorf("%d octets in an empty cache", c.size)
	}
}

func TestServersFollowResolvConf(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "resolv.conf")
	s := &serverList{file: file, list: fallbackServers()}
	now := time.Now()
	if got, _ := s.get(now); !slices.Equal(got, fallbackServers()) {
		t.Errorf("without a file: %v", got)
	}
	write := func(text string, at time.Time) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, at, at); err != nil {
			t.Fatal(err)
		}
	}
	write("search office.example\nnameserver 192.0.2.53\nnameserver bogus\nnameserver fe80::1%eth0\n", now)
	want := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53"), netip.MustParseAddrPort("[fe80::1%eth0]:53")}
	if got, _ := s.get(now.Add(recheck)); !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	s.prefer(want[1])
	write("nameserver 192.0.2.54\n", now.Add(time.Second))
	if got, _ := s.get(now.Add(recheck + 1)); !slices.Equal(got, want) {
		t.Errorf("looked again too soon: %v", got)
	}
	if got, first := s.get(now.Add(2 * recheck)); got[first] != netip.MustParseAddrPort("192.0.2.54:53") {
		t.Errorf("got %v", got)
	}
	os.Remove(file)
	if got, _ := s.get(now.Add(3 * recheck)); len(got) != 1 {
		t.Errorf("forgot the servers: %v", got)
	}
}

func FuzzUnescape(f *testing.F) {
	f.Add([]byte("v=spf1 \" \\ \x00\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 255 {
			return
		}
		// On the wire and back through miekg/dns the octets must be the same.
		n := len(b) + 1 // RDLENGTH; the owner is the root
		wire := append([]byte{0, 0, 16, 0, 1, 0, 0, 0, 0, byte(n >> 8), byte(n), byte(len(b))}, b...)
		rr, _, err := dns.UnpackRR(wire, 0)
		if err != nil {
			t.Skip(err)
		}
		if got := unescape(rr.(*dns.TXT).Txt[0]); got != string(b) {
			t.Errorf("%q became %q", b, got)
		}
	})
}
