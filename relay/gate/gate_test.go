package gate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"relayd/relay"
)

// fakeDNS answers from a map of "A name", "TXT name", "PTR address" and "host name". What is not there
// does not exist; "broken" cannot be asked, and "silent" lets one wait for ever.
type fakeDNS struct {
	mu      sync.Mutex
	records map[string]string
	asked   int
}

func (f *fakeDNS) set(key, value string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.records[key] = value
}

func (f *fakeDNS) get(ctx context.Context, key string) (string, error) {
	f.mu.Lock()
	f.asked++
	value, ok := f.records[key]
	if !ok {
		value, ok = f.records["*"]
	}
	f.mu.Unlock()
	switch {
	case !ok:
		return "", fmt.Errorf("%s: %w", key, relay.ErrNoRecord)
	case value == "broken":
		return "", errors.New("SERVFAIL")
	case value == "silent":
		<-ctx.Done()
		return "", ctx.Err()
	}
	return value, nil
}

func (f *fakeDNS) addrs(ctx context.Context, key string) ([]netip.Addr, error) {
	value, err := f.get(ctx, key)
	if err != nil {
		return nil, err
	}
	return []netip.Addr{netip.MustParseAddr(value)}, nil
}

func (f *fakeDNS) A(ctx context.Context, name string) ([]netip.Addr, error) {
	return f.addrs(ctx, "A "+name)
}

func (f *fakeDNS) Addrs(ctx context.Context, host relay.Domain) ([]netip.Addr, error) {
	return f.addrs(ctx, "host "+string(host))
}

func (f *fakeDNS) TXT(ctx context.Context, name string) ([]string, error) {
	value, err := f.get(ctx, "TXT "+name)
	return []string{value}, err
}

func (f *fakeDNS) PTR(ctx context.Context, addr netip.Addr) ([]relay.Domain, error) {
	value, err := f.get(ctx, "PTR "+addr.String())
	return []relay.Domain{relay.Domain(value)}, err
}

func (f *fakeDNS) MX(context.Context, relay.Domain) ([]relay.MX, error) {
	return nil, errors.New("nobody asks for MX")
}

// list makes a zone alive, and has it list these clients.
func (f *fakeDNS) list(zone relay.Domain, clients ...netip.Addr) {
	for _, c := range append(clients, listed) {
		f.set("A "+reversed(c, zone), "127.0.0.2")
	}
}

var (
	quiet  = slog.New(slog.DiscardHandler)
	one    = netip.MustParseAddr("192.0.2.7")
	two    = netip.MustParseAddr("2001:db8::7")
	us     = netip.MustParseAddrPort("198.51.100.25:25")
	writer = relay.Address{Local: "x", Domain: "there.example"}
	reader = relay.Address{Local: "ann", Domain: "office.example"}
)

func testRules(lists ...List) Rules {
	return Rules{
		Mode: Enforce, NoReverse: 1, BadHelo: 1, ForgedHelo: 2, Junk: 5, Reject: 10, Lists: lists, Postmaster: "postmaster@office.example",
		Ours: func(d relay.Domain) bool { return d == "mail.office.example" },
	}
}

// house is a gate that runs in a bubble.
type house struct {
	*Gate
	t    *testing.T
	dns  *fakeDNS
	path string
}

// open makes a gate whose Run runs until the test ends.
func open(t *testing.T, path string, r Rules) *house {
	dns := &fakeDNS{records: map[string]string{}}
	h := &house{t: t, dns: dns, path: path, Gate: Open(Options{Path: path, DNS: dns, Log: quiet,
		Wrote: func(d relay.Domain) bool { return d == "written.example" || d == "mail.office.example" }})}
	h.Set(r)
	return h
}

func (h *house) run() (stop func()) {
	ctx, cancel := context.WithCancel(h.t.Context())
	done := make(chan struct{})
	go func() { defer close(done); h.Run(ctx) }()
	synctest.Wait()
	return func() {
		cancel()
		<-done
		if err := h.Close(); err != nil {
			h.t.Error(err)
		}
	}
}

func origin(client netip.Addr, helo string) relay.Origin {
	return relay.Origin{Client: netip.AddrPortFrom(client, 4000), Server: us, Helo: helo, Service: "smtp"}
}

// write brings a letter as far as it gets and returns the code of the refusal, or 250, and the verdict.
func (h *house) write(client netip.Addr, from relay.Address, proven bool) (int, Verdict) {
	h.t.Helper()
	ctx := h.t.Context()
	env := relay.Envelope{From: from, Origin: origin(client, "mx.there.example"), Rcpts: []relay.Recipient{{Addr: reader, Mailbox: reader}}}
	l, err := h.Begin(env.Origin)
	if err == nil {
		err = l.Rcpt(ctx, reader)
	}
	var v Verdict
	if err == nil {
		v, err = l.Receive(ctx, env, proven)
	}
	if err != nil {
		f, ok := errors.AsType[*relay.Failure](err)
		if !ok {
			h.t.Fatal(err)
		}
		return f.Reply.Code, v
	}
	env.Junk = v.Junk
	l.Accepted(env)
	return 250, v
}

func (h *house) ignored() []string {
	var all []string
	for _, l := range h.Report().Lists {
		all = append(all, l.Ignored)
	}
	return all
}

// A list is asked only while it is in order, whatever it says; it is looked at again soon.
func TestListsAreTestedForLife(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "gate")
	synctest.Test(t, func(t *testing.T) {
		h := open(t, path, testRules(List{Zone: "list.example", Weight: 10}))
		h.dns.list("list.example", one, two)
		defer h.run()()
		for _, client := range []netip.Addr{one, two} {
			if code, _ := h.write(client, writer, false); code != 550 {
				t.Errorf("%s is listed: %d", client, code)
			}
		}
		// Its domain is sold, and the new owner answers everything.
		h.dns.set("*", "192.0.2.99")
		time.Sleep(testEvery + retestEvery)
		synctest.Wait()
		if got := h.ignored()[0]; got != "it lists everything: even 127.0.0.1, which no list has" {
			t.Errorf("state: %q", got)
		}
		if code, v := h.write(one, writer, false); code != 250 || v.Junk {
			t.Errorf("by a list that answers everything: %d %+v", code, v)
		}
		// Somebody mends it.
		h.dns.mu.Lock()
		delete(h.dns.records, "*")
		h.dns.mu.Unlock()
		time.Sleep(rememberFor + retestEvery)
		synctest.Wait()
		if code, _ := h.write(one, writer, false); code != 550 || h.ignored()[0] != "" {
			t.Errorf("mended: %d %q", code, h.ignored()[0])
		}
	})
}

// What a list may answer at its two points, and what it is said to be then.
func TestJudgeTest(t *testing.T) {
	t.Parallel()
	addr := func(s string) []netip.Addr { return []netip.Addr{netip.MustParseAddr(s)} }
	none, trouble := fmt.Errorf("NXDOMAIN: %w", relay.ErrNoRecord), errors.New("SERVFAIL")
	for _, c := range []struct {
		yes    []netip.Addr
		yesErr error
		no     []netip.Addr
		noErr  error
		want   string
	}{
		{addr("127.0.0.2"), nil, nil, none, ""},
		{addr("127.0.10.0"), nil, nil, none, ""},
		{addr("127.0.0.2"), nil, addr("127.0.0.2"), nil, "lists everything"},
		{addr("127.255.255.254"), nil, nil, none, "refuses to serve"},
		{addr("127.255.255.252"), nil, addr("127.255.255.252"), nil, "refuses to serve"},
		{addr("192.0.2.1"), nil, addr("192.0.2.1"), nil, "no answer of a list"},
		{nil, none, nil, none, "is empty"},
		{nil, none, nil, trouble, "is empty"},
		{nil, trouble, nil, none, "does not answer"},
		{addr("127.0.0.2"), nil, nil, trouble, "does not answer"},
	} {
		if got := judgeTest(c.yes, c.yesErr, c.no, c.noErr); !strings.Contains(got, c.want) || (got == "") != (c.want == "") {
			t.Errorf("%v %v, %v %v: %q, want %q", c.yes, c.yesErr, c.no, c.noErr, got, c.want)
		}
	}
}

// Whatever is the matter with the DNS, nobody is refused for it, nobody waits long, and who cannot
// matter is not waited for at all.
func TestTroubleWithTheDNS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, trouble := range []string{"broken", "silent"} {
		synctest.Test(t, func(t *testing.T) {
			h := open(t, filepath.Join(dir, trouble), testRules(List{Zone: "list.example", Weight: 10}))
			h.dns.list("list.example", one)
			defer h.run()()
			h.dns.set("*", trouble)
			h.dns.set("A "+reversed(one, "list.example"), trouble)
			client := netip.MustParseAddr("192.0.2.100")
			for i := range 10 {
				start := time.Now()
				code, v := h.write(client, writer, false)
				took := time.Since(start)
				if code != 250 || v.Junk || v.Note != "" {
					t.Errorf("%s: %d %+v", trouble, code, v)
				}
				if took > questionTimeout {
					t.Errorf("%s: letter %d waited %v", trouble, i, took)
				}
				client = client.Next()
			}
			// After three in vain the list counts as dead.
			if got := h.ignored()[0]; got != "it does not answer" {
				t.Errorf("%s: the list %q", trouble, got)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		h := open(t, filepath.Join(dir, "default"), testRules())
		defer h.run()()
		h.dns.set("*", "silent")
		start := time.Now()
		if code, _ := h.write(one, writer, false); code != 250 || time.Since(start) != 0 {
			t.Errorf("without a list: %d after %v", code, time.Since(start))
		}
	})
}

// The look-ups begin with the connection and are remembered.
func TestLookUpsAreRemembered(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "gate")
	synctest.Test(t, func(t *testing.T) {
		h := open(t, path, testRules(List{Zone: "list.example", Weight: 4}, List{Zone: "list.example", Weight: 1, Answers: []netip.Prefix{netip.MustParsePrefix("127.0.0.3/32")}}))
		h.dns.list("list.example")
		h.dns.set("PTR "+one.String(), "mx.there.example")
		h.dns.set("host mx.there.example", one.String())
		defer h.run()()
		h.Visit(one)
		synctest.Wait()
		asked := h.dns.asked
		for range 3 {
			h.Visit(one)
			if code, v := h.write(one, writer, false); code != 250 || v.Note != "" {
				t.Errorf("%d %+v", code, v)
			}
		}
		if h.dns.asked != asked {
			t.Errorf("%d questions more for a client that is known", h.dns.asked-asked)
		}
		time.Sleep(rememberFor)
		h.dns.list("list.example", one)
		if _, v := h.write(one, writer, false); v.Note != "4 (list.example +4)" {
			t.Errorf("later: %q", v.Note)
		}
		// New rules want new answers.
		h.Set(testRules(List{Zone: "list.example", Weight: 5}))
		synctest.Wait()
		if _, v := h.write(one, writer, false); v.Note != "5 (list.example +5)" || !v.Junk {
			t.Errorf("by new rules: %+v", v)
		}
	})
}

// A list that answers with an error is ignored from then on; what could not be asked is asked again
// soon.
func TestListsFailLater(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "gate")
	synctest.Test(t, func(t *testing.T) {
		h := open(t, path, testRules(List{Zone: "a.example", Weight: 10}, List{Zone: "b.example", Weight: 10}))
		h.dns.list("a.example")
		h.dns.list("b.example", two)
		h.dns.set("A "+reversed(one, "a.example"), "127.255.255.254")
		h.dns.set("A "+reversed(two, "a.example"), "127.0.0.2")
		h.dns.set("A "+reversed(one, "b.example"), "broken")
		defer h.run()()
		if code, v := h.write(one, writer, false); code != 250 || v.Note != "1 (reverse +1)" {
			t.Errorf("%d %+v", code, v)
		}
		if got := h.ignored(); !strings.Contains(got[0], "127.255.255.254") || got[1] != "" {
			t.Errorf("ignored: %q", got)
		}
		if _, v := h.write(two, writer, false); v.Note != "" { // refused: by b alone
			t.Errorf("%+v", v)
		}
		h.dns.list("b.example", one)
		time.Sleep(retryAfter)
		if code, _ := h.write(one, writer, false); code != 550 {
			t.Errorf("asked again: %d", code)
		}
	})
}

// The name of a client: none, one that leads back, one that does not, and trouble.
func TestReverse(t *testing.T) {
	t.Parallel()
	r := testRules()
	for _, c := range []struct {
		records       map[string]string
		bad, answered bool
	}{
		{map[string]string{}, true, true},
		{map[string]string{"PTR 192.0.2.7": "mx.example", "host mx.example": "192.0.2.7"}, false, true},
		{map[string]string{"PTR 192.0.2.7": "mx.example", "host mx.example": "192.0.2.8"}, true, true},
		{map[string]string{"PTR 192.0.2.7": "mx.example"}, true, true},
		{map[string]string{"PTR 192.0.2.7": "broken"}, false, false},
		{map[string]string{"PTR 192.0.2.7": "mx.example", "host mx.example": "broken"}, false, false},
	} {
		_, bad, answered := r.judgeReverse(t.Context(), &fakeDNS{records: c.records}, one)
		if bad != c.bad || answered != c.answered {
			t.Errorf("%v: bad %v, answered %v", c.records, bad, answered)
		}
	}
}

func TestHelo(t *testing.T) {
	t.Parallel()
	r := testRules()
	for helo, want := range map[string]string{
		"mx.there.example": "", "MX.There.Example.": "", "[192.0.2.7]": "", "[IPv6:2001:db8::7]": "helo",
		"192.0.2.7": "helo", "2001:db8::7": "helo", "[192.0.2.8]": "helo", "localhost": "helo", "friend": "helo", "localhost.localdomain": "helo",
		"192.0.2.300": "helo", "a..b": "helo", "?": "helo", "": "helo", "[": "helo", "[]": "helo",
		"mail.office.example": "forged-helo", "MAIL.OFFICE.EXAMPLE.": "forged-helo", "[198.51.100.25]": "forged-helo", "198.51.100.25": "forged-helo",
	} {
		if p, bad := r.judgeHelo(helo, one, us.Addr()); p.Name != want && bad || bad != (want != "") {
			t.Errorf("HELO %s: %+v, want %q", helo, p, want)
		}
	}
	r.BadHelo = 0
	if _, bad := r.judgeHelo("friend", one, us.Addr()); bad {
		t.Error("held against somebody with a weight of 0")
	}
}

func TestReversed(t *testing.T) {
	t.Parallel()
	// The examples of RFC 5782 §2.1 and §2.4.
	for addr, want := range map[string]string{
		"192.0.2.99":                "99.2.0.192.bad.example.com",
		"2001:db8:1:2:3:4:567:89ab": "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.bad.example.com",
	} {
		if got := reversed(netip.MustParseAddr(addr), "bad.example.com"); got != want {
			t.Errorf("%s: %s", addr, got)
		}
	}
}

// Greylisting from the first try to the day everything is forgotten.
func TestGreylist(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "gate")
	synctest.Test(t, func(t *testing.T) {
		r := testRules()
		r.Greylist = 5 * time.Minute
		h := open(t, path, r)
		stop := h.run()
		try := func(want int, client string, from relay.Address, proven bool) {
			t.Helper()
			if code, _ := h.write(netip.MustParseAddr(client), from, proven); code != want {
				t.Errorf("%s from %s: %d, want %d", from, client, code, want)
			}
		}
		try(451, "192.0.2.7", writer, false)
		time.Sleep(4 * time.Minute)
		try(451, "192.0.2.7", writer, false)
		// Another sender, and another network, have waits of their own.
		try(451, "192.0.2.7", relay.Address{Local: "y", Domain: writer.Domain}, false)
		try(451, "192.0.3.7", writer, false)
		time.Sleep(time.Minute)
		// The file has all of it; a second gate goes on where the first one was.
		stop()
		h = open(t, path, r)
		stop = h.run()
		try(250, "192.0.2.200", writer, false) // a neighbour of the first machine
		try(250, "192.0.2.7", relay.Address{Local: "y", Domain: writer.Domain}, false)
		try(451, "192.0.3.7", writer, false)
		// Nobody waits who proves the author, or whom we have written to; our own name is no reference.
		try(250, "192.0.4.7", writer, true)
		try(250, "192.0.5.7", relay.Address{Local: "z", Domain: "written.example"}, false)
		try(451, "192.0.6.7", relay.Address{Local: "z", Domain: "mail.office.example"}, false)
		// A report has no sender.
		try(451, "192.0.7.7", relay.Address{}, false)
		time.Sleep(5 * time.Minute)
		try(250, "192.0.7.7", relay.Address{}, false)
		// A second try after days is a first one, and who has not written for weeks is unknown.
		time.Sleep(waitFor)
		try(451, "192.0.3.7", writer, false)
		time.Sleep(goodFor - waitFor - 24*time.Hour)
		try(250, "192.0.2.7", writer, false)
		time.Sleep(goodFor + 24*time.Hour)
		try(451, "192.0.2.7", writer, false)
		stop()
		if data, err := os.ReadFile(path); err != nil || strings.Count(string(data), "\n") != 1 {
			t.Errorf("what has run out is still there: %q %v", data, err)
		}
	})
}

// The greeting waits for whoever is unknown, and for nobody who has written a letter.
func TestGreetWait(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "gate")
	synctest.Test(t, func(t *testing.T) {
		r := testRules(List{Zone: "list.example", Weight: 5})
		r.GreetWait, r.Pass = time.Second, []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}
		h := open(t, path, r)
		junk := netip.MustParseAddr("192.0.2.66")
		h.dns.list("list.example", junk)
		defer h.run()()
		want := func(client string, want time.Duration) {
			t.Helper()
			if wait, refusal := h.Visit(netip.MustParseAddr(client)); wait != want || refusal != nil {
				t.Errorf("%s: %v %v", client, wait, refusal)
			}
		}
		want("192.0.2.7", time.Second)
		want("203.0.113.5", 0)
		want("127.0.0.1", 0)
		want("::1", 0)
		want("127.0.0.2", time.Second)
		h.write(one, writer, false)
		h.write(two, writer, false)
		h.write(junk, writer, false)
		want("192.0.2.7", 0)
		want("2001:db8::99", 0) // the same /64
		want("192.0.2.8", time.Second)
		want("192.0.2.66", time.Second) // Junk speaks for nobody
		l, err := h.Begin(origin(netip.MustParseAddr("192.0.2.8"), "mx.there.example"))
		if err != nil || l.Rcpt(t.Context(), reader) != nil {
			t.Fatal(err)
		}
		l.Accepted(relay.Envelope{From: writer, Rcpts: []relay.Recipient{{Addr: reader, Junk: true}}})
		want("192.0.2.8", time.Second)
	})
}

// Bounds hold within their time, for a network and not for the next.
func TestRates(t *testing.T) {
	t.Parallel()
	r := newRates(time.Hour)
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	take := func(want bool, client string, after time.Duration) {
		t.Helper()
		if got := r.take(network(netip.MustParseAddr(client)), 2, now.Add(after)); got != want {
			t.Errorf("%s after %v: %v", client, after, got)
		}
	}
	take(true, "192.0.2.1", 0)
	take(true, "192.0.2.2", time.Minute)
	take(false, "192.0.2.3", 59*time.Minute)
	take(true, "192.0.3.3", 59*time.Minute)
	take(true, "192.0.2.3", time.Hour)
	take(true, "2001:db8::1", 0)
	take(true, "2001:db8::2", 0)
	take(false, "2001:db8::3", 0)
	take(true, "2001:db8:0:1::3", 0)
	take(true, "192.0.2.3", -time.Minute) // the clock was set back
}

// Whoever comes, and however many of them, what is remembered is bounded, and so is the file.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "gate")
	r := testRules()
	r.Connections, r.Letters, r.Greylist, r.GreetWait = 1, 1, time.Minute, time.Second
	h := open(t, path, r)
	h.clients.most, h.opened.most, h.begun.most, h.memory.most = 500, 500, 500, 500
	client := netip.MustParseAddr("1.0.0.1")
	now := time.Now()
	for i := range 5000 {
		o := client.As4()
		o[1], o[2] = byte(i>>8), byte(i)
		c := netip.AddrFrom4(o)
		h.Visit(c)
		from := relay.Address{Local: "x", Domain: relay.Domain(fmt.Sprintf("d%d.example", i))}
		h.write(c, from, false)
		h.memory.setGood(now, clientKey(c), senderKey(c, from))
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	good, wait := h.memory.sizes()
	for what, n := range map[string]int{"good": good, "wait": wait, "connections": len(h.opened.seen), "letters": len(h.begun.seen)} {
		if n != 500 {
			t.Errorf("%d of %s, want 500", n, what)
		}
	}
	if n := len(h.clients.known); n > 500 || n < 100 {
		t.Errorf("%d clients, want at most 500", n)
	}
	info, err := os.Stat(path)
	if err != nil || info.Size() > 1000*maxLine || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v %v", info, err)
	}
	// What is read is bounded as well, and what makes no sense in it is left out.
	lines := []string{"good", "good 2026-11-21", "good 2026-11-21 00", "bad 2026-11-21 " + strings.Repeat("0", 32), "\xff\x00", "wait yesterday " + strings.Repeat("0", 32)}
	for i := range 1000 {
		lines = append(lines, fmt.Sprintf("good 2026-11-21 %032x", i), fmt.Sprintf("wait 2026-11-21T00:00:00Z %032x", i))
	}
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	m := newMemory()
	m.most = 500
	if err := m.read(path); err != nil || len(m.good) != 500 || len(m.wait) != 500 {
		t.Errorf("read %d and %d, %v", len(m.good), len(m.wait), err)
	}
}

// Of all rules, the sentence says which it is, whom to ask, and fits into a reply.
func TestWords(t *testing.T) {
	t.Parallel()
	r := testRules()
	r.Connections, r.Letters = 100, 1000
	r.Postmaster = "postmaster@" + strings.Repeat("a", 60) + ".example"
	long := Point{Name: "x", Weight: 10, Words: "it is listed by " + strings.Repeat("long.", 40) + "example" + strings.Repeat("y", maxReason)}
	replies := []relay.Reply{r.refusal(two, []Point{long, long, long}), r.refusal(one, []Point{{"helo", 10, "its HELO is bad"}, {"good", -5, "secret"}}), r.notYet(5 * time.Minute)}
	for _, rule := range AllRules() {
		replies = append(replies, r.reply(rule, two))
	}
	for _, reply := range replies {
		if len(reply.Text) > maxWords || reply.Code/100 != reply.Status[0] || strings.Contains(reply.Text, "secret") || !strings.Contains(reply.Text, "postmaster") {
			t.Errorf("%d octets: %v", len(reply.Text), reply)
		}
	}
	for d, want := range map[time.Duration]string{0: "1 second", time.Second: "1 second", time.Minute: "60 seconds", 121 * time.Second: "3 minutes", 5 * time.Minute: "5 minutes"} {
		if got := roughly(d); got != want {
			t.Errorf("%v: %s", d, got)
		}
	}
}

// Off and Observe: nobody is refused, and Observe counts.
func TestModes(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "gate")
	synctest.Test(t, func(t *testing.T) {
		r := testRules(List{Zone: "list.example", Weight: 10})
		r.Mode, r.Connections, r.Letters, r.Greylist = Observe, 1, 1, time.Hour
		h := open(t, path, r)
		h.dns.list("list.example", one)
		defer h.run()()
		for range 3 {
			if _, refusal := h.Visit(one); refusal != nil {
				t.Error(refusal)
			}
			if code, v := h.write(one, writer, false); code != 250 || v.Junk || v.Note == "" {
				t.Errorf("%d %+v", code, v)
			}
		}
		if h.Breach(one, "early") != nil || h.Breach(one, "nonsense") != nil || h.Breach(one, "http") == nil {
			t.Error("wrong words for a breach")
		}
		got := map[Rule]Count{}
		for _, c := range h.Report().Rules {
			got[c.Rule] = c
		}
		for rule, want := range map[Rule]int64{RuleConnections: 2, RuleLetters: 2, RuleScore: 3, RuleGreylist: 3, RuleEarly: 1, RuleHTTP: 0} {
			if got[rule].Observed != want {
				t.Errorf("%s observed %d times, want %d", rule, got[rule].Observed, want)
			}
		}
		if got[RuleHTTP].Refused != 1 {
			t.Error("HTTP is refused in every mode")
		}
		r.Mode = Off
		h.Set(r)
		asked := h.dns.asked
		if code, v := h.write(one, writer, false); code != 250 || v.Note != "" || h.dns.asked != asked {
			t.Errorf("off: %d %+v", code, v)
		}
	})
}

// The postmaster hears everybody, and a letter to somebody else beside is refused only there.
func TestPostmasterHearsEverybody(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "gate")
	synctest.Test(t, func(t *testing.T) {
		r := testRules(List{Zone: "list.example", Weight: 10})
		r.Greylist = time.Hour
		h := open(t, path, r)
		h.dns.list("list.example", one)
		defer h.run()()
		l, err := h.Begin(origin(one, "x"))
		if err != nil {
			t.Fatal(err)
		}
		boss := relay.Address{Local: "PostMaster", Domain: reader.Domain}
		if err := l.Rcpt(t.Context(), reader); err == nil {
			t.Error("ann heard of it")
		}
		if err := l.Rcpt(t.Context(), boss); err != nil {
			t.Error(err)
		}
		if v, err := l.Receive(t.Context(), relay.Envelope{From: writer, Rcpts: []relay.Recipient{{Addr: boss}}}, false); err != nil || v.Junk || v.Note == "" {
			t.Errorf("%+v %v", v, err)
		}
	})
}

// Everybody passes by a letter that is nil.
func TestNoLetter(t *testing.T) {
	t.Parallel()
	var l *Letter
	v, err := l.Receive(t.Context(), relay.Envelope{}, false)
	if err != nil || v != (Verdict{}) || l.Rcpt(t.Context(), reader) != nil {
		t.Error(v, err)
	}
	l.Accepted(relay.Envelope{})
}

// A line of the file comes back as it was written, and others are told from it.
func FuzzParseLine(f *testing.F) {
	f.Add("good 2026-11-21 00112233445566778899aabbccddeeff")
	f.Add("wait 2026-11-21T12:00:00Z 00112233445566778899aabbccddeeff")
	f.Add("wait 2026-11-21T12:00:00+25:00 00")
	f.Fuzz(func(t *testing.T, line string) {
		kind, at, k, ok := parseLine(line)
		if !ok {
			return
		}
		m := newMemory()
		all := map[string]map[key]int64{"good": m.good, "wait": m.wait}[kind]
		all[k] = at
		state := strings.TrimSuffix(string(m.state(time.Unix(at, 0))), "\n")
		if kind2, at2, k2, ok := parseLine(state); !ok || kind2 != kind || at2 != at || k2 != k {
			t.Errorf("%q became %q", line, state)
		}
	})
}

// What a client says and what a list says of it never make more of a reply than one line of text.
func FuzzWords(f *testing.F) {
	f.Add("mail.office.example", "see https://list.example/")
	f.Add("[192.0.2.7]", "\r\n250 ok")
	f.Add("[IPv6:2001:db8::7", strings.Repeat("é", 200))
	f.Fuzz(func(t *testing.T, helo, reason string) {
		r := testRules()
		var points []Point
		if p, bad := r.judgeHelo(helo, one, us.Addr()); bad {
			points = append(points, p)
		}
		dns := &fakeDNS{records: map[string]string{"TXT " + reversed(one, "list.example"): reason}}
		got := []netip.Addr{listed}
		r.Lists = []List{{Zone: "list.example", Weight: 10}}
		points = append(points, r.judgeLists(t.Context(), dns, newZone("list.example"), got, one)...)
		text := r.refusal(one, points).Text
		if len(text) > maxWords || strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c > '~' }) {
			t.Errorf("%q", text)
		}
	})
}

// An answer counts only within the ranges of its list, and never where it is an error.
func FuzzAnswers(f *testing.F) {
	f.Add(uint32(0x7f000002), uint32(0x7f000000), 28)
	f.Add(uint32(0x7ffffffe), uint32(0x7f000000), 8)
	f.Fuzz(func(t *testing.T, answer, network uint32, bits int) {
		four := func(n uint32) netip.Addr {
			return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
		}
		a := four(answer)
		l := List{}
		if (List{}).counts(a) != (answer>>24 == 127 && answer>>8 != 0x7fffff) {
			t.Errorf("%s", a)
		}
		if p, err := four(network).Prefix(bits); err == nil {
			l.Answers = []netip.Prefix{p}
			if l.counts(a) && (!p.Contains(a) || !(List{}).counts(a)) {
				t.Errorf("%s in %s", a, p)
			}
		}
	})
}

func BenchmarkLetter(b *testing.B) {
	h := Open(Options{Path: filepath.Join(b.TempDir(), "gate"), DNS: &fakeDNS{records: map[string]string{}}, Log: quiet})
	defer h.Close()
	r := testRules()
	r.GreetWait, r.Connections, r.Letters = time.Second, 1<<40, 1<<40
	h.Set(r)
	env := relay.Envelope{From: writer, Rcpts: []relay.Recipient{{Addr: reader}}}
	for _, client := range []string{"127.0.0.1", "192.0.2.7"} {
		env.Origin = origin(netip.MustParseAddr(client), "mx.there.example")
		b.Run(client, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				h.Visit(env.Origin.Client.Addr())
				l, err := h.Begin(env.Origin)
				if err != nil {
					b.Fatal(err)
				}
				l.Rcpt(b.Context(), reader)
				if _, err := l.Receive(b.Context(), env, false); err != nil {
					b.Fatal(err)
				}
				l.Accepted(env)
			}
		})
	}
}
