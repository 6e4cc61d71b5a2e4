package dmarc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"mime/multipart"
	"net/mail"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"relayd/relay"
)

// fakeDNS answers TXT; what begins with "!" could not be asked.
type fakeDNS map[string]string

func (f fakeDNS) TXT(_ context.Context, name string) ([]string, error) {
	text, ok := f[name]
	switch {
	case !ok:
		return nil, relay.ErrNoRecord
	case strings.HasPrefix(text, "!"):
		return nil, errors.New("servfail")
	}
	return strings.Split(text, "|"), nil
}
func (fakeDNS) MX(context.Context, relay.Domain) ([]relay.MX, error) { return nil, relay.ErrNoRecord }
func (fakeDNS) Addrs(context.Context, relay.Domain) ([]netip.Addr, error) {
	return nil, relay.ErrNoRecord
}
func (fakeDNS) PTR(context.Context, netip.Addr) ([]relay.Domain, error) {
	return nil, relay.ErrNoRecord
}

// changing is a DNS whose answers change while it is asked.
type changing struct {
	fakeDNS
	now atomic.Pointer[fakeDNS]
}

func (c *changing) TXT(ctx context.Context, name string) ([]string, error) {
	return c.now.Load().TXT(ctx, name)
}

// lastTwo is the Organizational Domain where all names are registered below a suffix of one label.
func lastTwo(_ context.Context, name string) (string, error) {
	if strings.Contains(name, "broken") {
		return "", errors.New("servfail")
	}
	labels := strings.Split(name, ".")
	return strings.Join(labels[max(0, len(labels)-2):], "."), nil
}

// outbox keeps what is submitted.
type outbox struct {
	mu      sync.Mutex
	letters []string
	to      []string
	envs    []relay.Envelope
	err     error
}

func (o *outbox) Submit(_ context.Context, env relay.Envelope, body io.Reader) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	text, err := io.ReadAll(body)
	if err != nil || o.err != nil {
		return errors.Join(err, o.err)
	}
	o.letters, o.to, o.envs = append(o.letters, string(text)), append(o.to, env.Rcpts[0].Addr.String()), append(o.envs, env)
	return nil
}

func (o *outbox) rcpts() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.to)
}

func observation(domain, from, source string, pass bool) Observation {
	o := Observation{Published: Published{Domain: domain, Discovery: "treewalk", P: "reject", SP: "reject", NP: "reject", FO: "0", ADKIM: "r", ASPF: "r", Testing: "n"},
		RUA: "mailto:rua@" + domain}
	o.Source, o.HeaderFrom, o.EnvelopeFrom = source, from, from
	o.Disposition, o.DKIM, o.SPF = "reject", "fail", "fail"
	o.AuthSPF = []AuthSPF{{Domain: from, Scope: "mfrom", Result: "fail"}}
	if pass {
		o.Disposition, o.SPF, o.AuthSPF[0].Result = "pass", "pass", "pass"
	}
	return o
}

func newSender(t *testing.T, dns relay.Resolver) (*Sender, *outbox) {
	t.Helper()
	out := &outbox{}
	l := Open(filepath.Join(t.TempDir(), "reports"), slog.New(slog.DiscardHandler))
	t.Cleanup(func() { l.Close() })
	return &Sender{
		Ledger: l, Hostname: "mail.office.example", From: relay.Address{Local: "postmaster", Domain: "office.example"}, Generator: "relayd test",
		DNS: dns, Organization: lastTwo, Submit: out, Enabled: func() bool { return true },
	}, out
}

// TestDestinations: RFC 9990 §4.
func TestDestinations(t *testing.T) {
	t.Parallel()
	s, _ := newSender(t, fakeDNS{
		"bank.example._report._dmarc.reports.test":      "v=DMARC1",
		"bank.example._report._dmarc.two.test":          "v=spf1 -all|v=DMARC1; p=none",
		"bank.example._report._dmarc.other.test":        "v=spf1 -all",
		"bank.example._report._dmarc.late.test":         "p=none; v=DMARC1",
		"bank.example._report._dmarc.override.test":     "v=DMARC1; rua=mailto:x@override.test",
		"bank.example._report._dmarc.elsewhere.test":    "v=DMARC1; rua=mailto:x@victim.test",
		"bank.example._report._dmarc.servfail.test":     "!",
		"sub.bank.example._report._dmarc.reports.test":  "v=DMARC1;",
		"bank.example._report._dmarc.mx.reports.test":   "v=DMARC1;",
		"bank.example._report._dmarc.unrelated.example": "v=DMARC2",
	})
	for _, c := range []struct{ domain, rua, want string }{
		{"bank.example", "mailto:Rua@bank.example", "Rua@bank.example"},
		{"bank.example", "mailto:a@bank.example!10m, mailto:b@mail.bank.example", "a@bank.example b@mail.bank.example"},
		{"sub.bank.example", "mailto:a@bank.example", "a@bank.example"},
		{"bank.example", "MAILTO:a%2Bb@bank.example?subject=x", "a+b@bank.example"},
		{"bank.example", "https://bank.example/,mailto:,mailto:nobody,mailto:a@[192.0.2.1],mailto:a b@bank.example,mailto:%zz@bank.example", ""},
		{"bank.example", "mailto:a@bank.example,mailto:a@bank.example", "a@bank.example"},
		{"bank.example", "mailto:a@reports.test", "a@reports.test"},
		{"bank.example", "mailto:a@mx.reports.test", "a@mx.reports.test"},
		{"sub.bank.example", "mailto:a@reports.test,mailto:b@two.test", "a@reports.test"},
		{"bank.example", "mailto:a@two.test", "a@two.test"},
		{"bank.example", "mailto:a@nothing.test,mailto:a@other.test,mailto:a@late.test,mailto:a@unrelated.example", ""},
		{"bank.example", "mailto:a@override.test", "x@override.test"},
		{"bank.example", "mailto:a@elsewhere.test", ""},
		{"bank.example", "mailto:a@servfail.test,mailto:a@bank.example", "error"},
		{"bank.example", "mailto:a@broken.test", "error"},
		{"bank.example", "mailto:1@bank.example,mailto:2@bank.example,mailto:3@bank.example,mailto:4@bank.example,mailto:5@bank.example,mailto:6@bank.example",
			"1@bank.example 2@bank.example 3@bank.example 4@bank.example 5@bank.example"},
		{strings.Repeat("a.", 115) + "example", "mailto:a@reports.test", ""},
	} {
		got, err := s.destinations(t.Context(), &Account{Published: Published{Domain: c.domain}, RUA: c.rua})
		var names []string
		for _, a := range got {
			names = append(names, a.String())
		}
		text := strings.Join(names, " ")
		if err != nil {
			text = "error"
		}
		if text != c.want {
			t.Errorf("%s, %s: %q, want %q", c.domain, c.rua, text, c.want)
		}
	}
}

// TestDaily: what came on one day leaves in the hour after midnight, once, whatever becomes of it.
func TestDaily(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dns := &changing{}
		dns.now.Store(&fakeDNS{"late.example._report._dmarc.reports.test": "!", "nobody.example._report._dmarc.x.test": "v=spf1 -all"})
		s, out := newSender(t, dns)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan struct{})
		go func() { defer close(done); s.Run(ctx) }()
		synctest.Wait()
		midnight := day(time.Now()).AddDate(0, 0, 1)
		s.Ledger.Note(observation("bank.example", "bank.example", "192.0.2.1", false), time.Now())
		s.Ledger.Note(observation("bank.example", "www.bank.example", "192.0.2.1", false), time.Now())
		s.Ledger.Note(observation("bank.example", "bank.example", "192.0.2.1", false), time.Now())
		late := observation("late.example", "late.example", "192.0.2.2", true)
		late.RUA = "mailto:a@reports.test"
		s.Ledger.Note(late, time.Now())
		nobody := observation("nobody.example", "nobody.example", "192.0.2.2", true)
		nobody.RUA = "mailto:a@x.test"
		s.Ledger.Note(nobody, time.Now())
		time.Sleep(time.Until(midnight) - time.Second)
		synctest.Wait()
		if len(out.rcpts()) != 0 {
			t.Errorf("before midnight: %v", out.rcpts())
		}
		time.Sleep(time.Second + spread)
		synctest.Wait()
		if diff := cmp.Diff([]string{"rua@bank.example"}, out.rcpts()); diff != "" {
			t.Error(diff)
		}
		// A letter of the new day is for the next report.
		s.Ledger.Note(observation("bank.example", "bank.example", "192.0.2.1", false), time.Now())
		dns.now.Store(&fakeDNS{"late.example._report._dmarc.reports.test": "v=DMARC1"})
		time.Sleep(retry + time.Second)
		synctest.Wait()
		if diff := cmp.Diff([]string{"rua@bank.example", "a@reports.test"}, out.rcpts()); diff != "" {
			t.Error(diff)
		}
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if diff := cmp.Diff([]string{"rua@bank.example", "a@reports.test", "rua@bank.example"}, out.rcpts()); diff != "" {
			t.Error(diff)
		}
		cancel()
		<-done
		first, second := only(t, out.letters[0]), only(t, out.letters[2])
		if begin, end := first.Period(); end.Add(time.Second) != midnight || begin.Before(midnight.AddDate(0, 0, -1)) {
			t.Errorf("the first report is of %v to %v", begin, end)
		}
		if begin, end := second.Period(); begin != midnight || end != midnight.Add(24*time.Hour-time.Second) {
			t.Errorf("the second report is of %v to %v", begin, end)
		}
		if len(first.Records) != 2 || first.Records[0].Count != 2 || first.Records[1].HeaderFrom != "www.bank.example" || len(second.Records) != 1 {
			t.Errorf("they say %+v and %+v", first.Records, second.Records)
		}
		if len(s.Ledger.Pending()) != 0 {
			t.Errorf("left: %+v", s.Ledger.Pending())
		}
	})
}

func only(t *testing.T, letter string) Report {
	t.Helper()
	got, err := Read(strings.NewReader(letter))
	if err != nil || len(got) != 1 {
		t.Fatal(len(got), err)
	}
	return got[0]
}

// TestGivenUp: a report that the front door or the DNS keeps back is tried again for two days; one
// that is refused for good, or that nobody wants sent any more, is not.
func TestGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, out := newSender(t, fakeDNS{})
		note := func() { s.Ledger.Note(observation("bank.example", "bank.example", "192.0.2.1", false), time.Now()) }
		time.Sleep(time.Second)
		note()
		time.Sleep(time.Second)
		out.err = errors.New("the disk is full")
		if left := s.Send(t.Context(), time.Now()); left != 1 || len(s.Ledger.Due()) != 1 {
			t.Errorf("%d left", left)
		}
		time.Sleep(tooOld + time.Hour)
		if left := s.Send(t.Context(), time.Now()); left != 0 || len(s.Ledger.Due()) != 0 {
			t.Errorf("%d left after two days", left)
		}
		note()
		time.Sleep(time.Second)
		out.err = relay.Refuse("test", 550, "5.1.1", "no such user")
		if left := s.Send(t.Context(), time.Now()); left != 0 || len(s.Ledger.Due()) != 0 {
			t.Errorf("%d left that is refused", left)
		}
		out.err = nil
		note()
		time.Sleep(time.Second)
		s.Enabled = func() bool { return false }
		if left := s.Send(t.Context(), time.Now()); left != 0 || len(out.letters) != 0 {
			t.Errorf("%d left, %d sent", left, len(out.letters))
		}
	})
}

// TestLetter: RFC 9990 §3.5.2, to the octet where it says so.
func TestLetter(t *testing.T) {
	t.Parallel()
	s, out := newSender(t, fakeDNS{})
	a := &Account{RUA: "mailto:rua@bank.example", Begin: time.Unix(1763596800, 0), End: time.Unix(1763683200, 0)}
	o := observation("bank.example", "bank.example", "192.0.2.1", false)
	a.Published = o.Published
	for i := range 50 {
		o.Record.Source, o.Record.Count = fmt.Sprintf("192.0.2.%d", i), i+1
		a.Rows = append(a.Rows, o.Record)
	}
	if err := s.sendOne(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	env, text := out.envs[0], out.letters[0]
	if env.From.String() != "postmaster@office.example" || env.Rcpts[0].Notify != relay.NotifyNever || env.Size != int64(len(text)) {
		t.Errorf("%+v", env)
	}
	for line := range strings.SplitSeq(text, "\r\n") {
		if len(line) > 998 || strings.ContainsAny(line, "\r\n") {
			t.Errorf("a line %q", line)
		}
	}
	m, err := mail.ReadMessage(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	id := reportID("mail.office.example", a)
	if got, want := m.Header.Get("Subject"), "Report Domain: bank.example Submitter: mail.office.example Report-ID: <"+id+">"; got != want {
		t.Errorf("Subject: %s, want %s", got, want)
	}
	_, params, _ := mime.ParseMediaType(m.Header.Get("Content-Type"))
	r := multipart.NewReader(m.Body, params["boundary"])
	r.NextPart()
	p, err := r.NextPart()
	if err != nil {
		t.Fatal(err)
	}
	if got := p.FileName(); got != "mail.office.example!bank.example!1763596800!1763683199!"+id+".xml.gz" || p.Header.Get("Content-Type") != "application/gzip" ||
		!regexp.MustCompile(`^[A-Za-z0-9]+$`).MatchString(id) {
		t.Errorf("attached as %s, %s", got, p.Header.Get("Content-Type"))
	}
	got := only(t, text)
	if diff := cmp.Diff(a.Rows, got.Records); diff != "" {
		t.Error(diff)
	}
	if got.Metadata.ReportID != id || got.Metadata.OrgName != "office.example" || got.Metadata.End != 1763683199 {
		t.Errorf("%+v", got.Metadata)
	}
}

// TestLedgerOutlivesItself: what was gathered is there after a crash that lost nothing written, and
// counting goes on in the same rows.
func TestLedgerOutlivesItself(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "reports")
	log := slog.New(slog.DiscardHandler)
	now := time.Now()
	l := Open(path, log)
	l.cut = time.Time{} // as if it had been open for long
	l.Note(observation("bank.example", "bank.example", "192.0.2.1", false), now)
	l.Note(observation("club.example", "club.example", "192.0.2.1", true), now.AddDate(0, 0, -1))
	l.Cut(day(now))
	if err := l.keeper.Save(); err != nil {
		t.Fatal(err)
	}
	l = Open(path, log)
	l.Note(observation("bank.example", "bank.example", "192.0.2.1", false), now)
	l.Note(observation("bank.example", "bank.example", "192.0.2.2", false), now)
	all := l.Pending()
	if len(all) != 2 || all[0].Letters() != 3 || len(all[0].Rows) != 2 || all[1].Letters() != 1 || all[1].End.IsZero() {
		t.Fatalf("%+v", all)
	}
	if due := l.Due(); len(due) != 1 || due[0].Published.Domain != "club.example" {
		t.Fatalf("%+v", due)
	}
	if err := l.Settle(l.Due()[0]); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil || bytes.Contains(text, []byte("club.example")) || !bytes.Contains(text, []byte("192.0.2.2")) {
		t.Errorf("%s, %v", text, err)
	}
	if err := os.WriteFile(path, append(text, "{half"...), 0o600); err != nil {
		t.Fatal(err)
	}
	if all := Open(path, log).Pending(); len(all) != 1 {
		t.Errorf("behind the damage: %+v", all)
	}
}

// TestLedgerBounds: however many names and addresses strangers have, memory and file are bounded, and
// what is known is still counted.
func TestLedgerBounds(t *testing.T) {
	t.Parallel()
	l := Open(filepath.Join(t.TempDir(), "reports"), slog.New(slog.DiscardHandler))
	now := time.Now()
	for i := range maxRows + 10 {
		l.Note(observation("bank.example", "bank.example", fmt.Sprintf("192.0.%d.%d", i/256, i%256), false), now)
	}
	for i := range 2 * maxDomains {
		o := observation(fmt.Sprintf("d%d.example", i%(maxDomains+50)), strings.Repeat("x", 500), fmt.Sprintf("2001:db8::%x", i), false)
		o.RUA = strings.Repeat("r", maxRUA+1)
		for range 100 {
			o.AuthDKIM = append(o.AuthDKIM, AuthDKIM{Domain: strings.Repeat("d", 500)})
		}
		l.Note(o, now)
	}
	l.Note(observation("bank.example", "bank.example", "192.0.0.0", false), now)
	all := l.Pending()
	i := slices.IndexFunc(all, func(a Account) bool { return a.Published.Domain == "bank.example" })
	if len(all) != maxDomains || l.size > maxOctets || len(all[i].Rows) != maxRows || all[i].Missed != 10 || all[i].Rows[0].Count != 2 {
		t.Errorf("%d domains, %d octets, bank.example has %d and misses %d", len(all), l.size, len(all[i].Rows), all[i].Missed)
	}
	text, err := l.state()
	if err != nil || len(text) > maxFile {
		t.Errorf("a file of %d octets, %v", len(text), err)
	}
}

// FuzzRUA: whatever a record names, what comes of it are a few addresses that can be written to, and
// every one of them stands in the record.
func FuzzRUA(f *testing.F) {
	for _, s := range []string{"mailto:a@b.c", "mailto:a%40b@c.d!10m,MAILTO:x@y.z?subject=s", "https://x/,mailto:", "mailto:\"a b\"@c.d,mailto:a@[192.0.2.1]"} {
		f.Add(s, "v=DMARC1; rua="+s)
	}
	f.Fuzz(func(t *testing.T, rua, record string) {
		all := mailboxes(rua)
		if len(all) > maxDestinations {
			t.Errorf("%q is %d addresses", rua, len(all))
		}
		for i, a := range all {
			back, err := relay.ParseAddress(a.String(), false)
			if err != nil || back != a || a.Domain.IsLiteral() || slices.Contains(all[:i], a) {
				t.Errorf("%q: %v, %v", rua, a, err)
			}
		}
		if where, ok := permission(record); !ok && where != "" || ok && !strings.Contains(record, "DMARC1") {
			t.Errorf("%q: %q, %v", record, where, ok)
		}
	})
}

// TestEcho: where nothing came but reports, proven to be the domain's, no report is sent on them: the
// other side would report on ours, and so on for ever. With anything else among them one is sent.
func TestEcho(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		reports, others int
		want            int
	}{{3, 0, 0}, {3, 1, 1}, {0, 1, 1}} {
		s, out := newSender(t, fakeDNS{})
		now := time.Now()
		o := observation("bank.example", "bank.example", "192.0.2.1", true)
		for range c.others {
			s.Ledger.Note(o, now)
		}
		o.Report = true
		for range c.reports {
			s.Ledger.Note(o, now)
		}
		if left := s.Send(t.Context(), now.Add(2*time.Second)); left != 0 || len(out.rcpts()) != c.want || len(s.Ledger.Pending()) != 0 {
			t.Errorf("%d reports and %d others: %d left, sent to %v", c.reports, c.others, left, out.rcpts())
		}
	}
}
