package dsn_test

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"io"
	"maps"
	"mime"
	"mime/multipart"
	"net/mail"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"relayd/delivery/dsn"
	"relayd/relay"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var (
	accepted = time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	ann      = relay.Address{Local: "ann", Domain: "office.example"}
)

func addr(t testing.TB, s string) relay.Address {
	t.Helper()
	a, err := relay.ParseAddress(s, true)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func failed(rcpt relay.Address, code int, status relay.Status, text, host string) relay.Result {
	return relay.Result{
		Rcpt: rcpt, Outcome: relay.Failed, Host: host, At: accepted.Add(2 * time.Second),
		Reply: relay.Reply{Code: code, Status: status, Text: text},
	}
}

func report(kind dsn.Kind, results ...relay.Result) dsn.Report {
	return dsn.Report{
		Kind: kind, ID: "01kfz00000aaaaaa", Now: accepted.Add(3 * time.Second), ReportingMTA: "mail.office.example",
		Envelope: relay.Envelope{ID: "01kfy00000bbbbbb", From: ann, Accepted: accepted},
		Results:  results,
		OriginalHeader: []byte("Received: from desk\r\n\tby mail.office.example\r\nFrom: ann@office.example\r\n" +
			"To: bob@partner.example\r\nSubject: =?utf-8?q?Angebot_f=C3=BCr?= Sie\r\nMessage-ID: <42@office.example>\r\n\r\nthe text stays out\r\n"),
	}
}

func compose(t testing.TB, r dsn.Report) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := dsn.Compose(&b, r); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

const mx1 = "mx1.partner.example[192.0.2.7]:25"

func TestGolden(t *testing.T) {
	t.Parallel()
	bob, carol := addr(t, "bob@partner.example"), addr(t, "carol@partner.example")
	unknown := report(dsn.Failed, failed(bob, 550, relay.Status{5, 1, 1}, "no such user here", mx1))

	several := report(dsn.Failed,
		failed(bob, 552, relay.Status{5, 2, 2}, "mailbox full\nand the quota is 10 MB", mx1),
		failed(carol, 554, relay.Status{}, "Transaction failed: "+strings.Repeat("see https://partner.example/why ", 8), mx1),
		failed(addr(t, "dave@nowhere.example"), 556, relay.Status{5, 1, 10}, "the domain takes no mail", ""))
	several.Envelope.Rcpts = []relay.Recipient{{Addr: bob, Orig: "sales@office.example"}, {Addr: carol, Orig: "<Carol@Partner.Example>"}}

	expired := report(dsn.Failed, failed(bob, 451, relay.Status{4, 7, 1}, "greylisted, come back", mx1))
	expired.Results[0].At = accepted.Add(5*24*time.Hour + time.Minute)
	expired.Now = expired.Results[0].At

	delayed := report(dsn.Delayed, relay.Result{Rcpt: bob, Outcome: relay.Deferred, At: accepted.Add(4 * time.Hour),
		Reply: relay.Reply{Text: "dial tcp 192.0.2.7:25: connection refused"}, Host: mx1})
	delayed.Next, delayed.Until = accepted.Add(8*time.Hour), accepted.Add(5*24*time.Hour)

	hostile := report(dsn.Failed, failed(addr(t, `"b\ ob> <x"@partner.example`), 550, relay.Status{5, 7, 1},
		"no\r\n\r\n--report=_01kfz00000aaaaaa\r\nFinal-Recipient: rfc822; victim@x\r\n\x00\x1b[31m\u202e\xff", "evil\r\nX: y[1.2.3.4]"))
	hostile.OriginalHeader = []byte("Subject: x\r\n\r\x01y\nMessage-ID: <a b>\r\nX-8: \xff\xfe\r\nX-Long: " + strings.Repeat("z", 2000))

	international := report(dsn.Failed, failed(addr(t, "böb+x@partner.example"), 550, relay.Status{5, 6, 7}, "schade, kein Ümlaut", mx1))
	international.Envelope.From = addr(t, "änn@office.example")
	international.OriginalHeader = []byte("Subject: Grüße\r\nMessage-ID: <ä@x>\r\n")

	delivered := report(dsn.Delivered, relay.Result{Rcpt: bob, Outcome: relay.Delivered, At: accepted,
		Reply: relay.Reply{Code: 250, Status: relay.Status{2, 0, 0}, Text: "queued"}, Host: mx1})
	relayed := delivered
	relayed.Kind = dsn.Relayed
	afterAll := delivered
	afterAll.Kind = dsn.AfterAll

	stead := report(dsn.Failed, failed(bob, 552, relay.Status{5, 2, 2}, "mailbox full", mx1))
	stead.Envelope.From = addr(t, "stranger@elsewhere.example")
	stead.Envelope.Rcpts = []relay.Recipient{{Addr: bob, Orig: "sales@office.example"}}
	stead.Stead = addr(t, "postmaster@office.example")
	steadDE := stead
	steadDE.Language = "de"

	foreign := map[string]dsn.Report{}
	for _, lang := range dsn.Languages[1:] {
		for name, r := range map[string]dsn.Report{"failed": several, "delayed": delayed, "expired": expired, "after_all": afterAll} {
			r.Language = lang
			foreign[name+"_"+lang] = r
		}
	}
	all := map[string]dsn.Report{
		"unknown": unknown, "several": several, "expired": expired, "delayed": delayed,
		"hostile": hostile, "international": international, "delivered": delivered, "relayed": relayed, "after_all": afterAll, "stead": stead, "stead_de": steadDE,
	}
	maps.Copy(all, foreign)
	for name, r := range all {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := compose(t, r)
			checkLetter(t, r, got)
			golden := filepath.Join("testdata", name+".eml")
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), string(got)); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
		})
	}
}

// checkLetter holds what must be true of any report.
func checkLetter(t testing.TB, r dsn.Report, letter []byte) {
	t.Helper()
	for line := range bytes.Lines(letter) {
		content, ok := bytes.CutSuffix(line, []byte("\r\n"))
		if !ok || bytes.ContainsAny(content, "\r\n\x00") || len(content) > 998 {
			t.Fatalf("bad line of %d octets: %q", len(content), content)
		}
		for _, c := range content {
			if c >= utf8.RuneSelf && !bytes.HasPrefix(content, []byte("To: ")) {
				t.Fatalf("not ASCII: %q", content)
			}
		}
	}
	m, err := mail.ReadMessage(bytes.NewReader(letter))
	if err != nil {
		t.Fatal(err)
	}
	if to, err := m.Header.AddressList("To"); err != nil || len(to) != 1 {
		t.Errorf("To %q: %v", m.Header.Get("To"), err)
	}
	if len(m.Header) > 11 || m.Header.Get("Auto-Submitted") != "auto-replied" {
		t.Errorf("header %v", m.Header)
	}
	_, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || params["report-type"] != "delivery-status" {
		t.Fatalf("%v, %v", params, err)
	}
	checkParts(t, r, multipart.NewReader(m.Body, params["boundary"]))
}

func checkParts(t testing.TB, r dsn.Report, parts *multipart.Reader) {
	t.Helper()
	var types []string
	for {
		// NextPart undoes quoted-printable itself.
		p, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(p)
		if err != nil {
			t.Fatal(err)
		}
		mediaType, _, err := mime.ParseMediaType(p.Header.Get("Content-Type"))
		if err != nil {
			t.Fatal(err)
		}
		types = append(types, mediaType)
		if mediaType == "message/delivery-status" || mediaType == "message/global-delivery-status" {
			checkStatus(t, r, content)
		}
		if mediaType == "text/plain" && !utf8.Valid(content) {
			t.Errorf("not UTF-8: %q", content)
		}
	}
	if len(types) < 2 || len(types) > 3 || types[0] != "text/plain" || types[1] != r.StatusType() {
		t.Errorf("parts %q", types)
	}
}

func checkStatus(t testing.TB, r dsn.Report, content []byte) {
	t.Helper()
	groups := textproto.NewReader(bufio.NewReader(bytes.NewReader(append(content, "\r\n"...))))
	for i := -1; i < len(r.Results); i++ {
		h, err := groups.ReadMIMEHeader()
		if err != nil {
			t.Fatalf("group %d: %v in\n%s", i, err, content)
		}
		if i < 0 {
			if h.Get("Reporting-Mta") != "dns; "+string(r.ReportingMTA) {
				t.Errorf("group of the message: %v", h)
			}
			continue
		}
		for _, name := range []string{"Final-Recipient", "Action", "Status"} {
			if len(h.Values(name)) != 1 {
				t.Errorf("group %d: %s %q", i, name, h.Values(name))
			}
		}
		if len(h) > 8 {
			t.Errorf("group %d has foreign fields: %v", i, h)
		}
	}
	if h, err := groups.ReadMIMEHeader(); len(h) > 0 || !errors.Is(err, io.EOF) {
		t.Errorf("one group too many: %v, %v", h, err)
	}
}

func TestRefuses(t *testing.T) {
	t.Parallel()
	r := report(dsn.Failed)
	if err := dsn.Compose(io.Discard, r); err == nil {
		t.Error("composed a report about nobody")
	}
	r.Envelope.From = relay.Address{}
	if err := dsn.Compose(io.Discard, r); !errors.Is(err, dsn.ErrNullSender) {
		t.Errorf("null sender: %v", err)
	}
}

// People read times in the zone of the server, whatever zone they were stored in.
func TestTimesAreLocal(t *testing.T) {
	t.Parallel()
	r := report(dsn.Failed, failed(ann, 550, relay.Status{5, 1, 1}, "no", mx1))
	r.Now = r.Now.In(time.FixedZone("CET", 3600))
	got := string(compose(t, r))
	for _, want := range []string{"10:00 CET", "Arrival-Date: Sat, 21 Nov 2026 10:00:00 +0100", "Last-Attempt-Date: Sat, 21 Nov 2026 10:00:02 +0100"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
	if strings.Contains(got, "UTC") || r.Results[0].At.Location() != time.UTC {
		t.Error("a time was left behind, or the caller's changed")
	}
}

// The original header is bounded, and the text of the letter never goes out.
func TestOriginalIsBounded(t *testing.T) {
	t.Parallel()
	r := report(dsn.Failed, failed(ann, 550, relay.Status{5, 1, 1}, "no", mx1))
	r.OriginalHeader = []byte(strings.Repeat("X-Many: 1\r\n", 100_000))
	got := compose(t, r)
	checkLetter(t, r, got)
	if len(got) > 40<<10 {
		t.Errorf("%d octets", len(got))
	}
	r.OriginalHeader = nil
	checkLetter(t, r, compose(t, r))
	r.OriginalHeader = []byte("X-Long: " + strings.Repeat("z", 1000) + "\r\n")
	checkLetter(t, r, compose(t, r))
	r.Results[0].Reply.Text = strings.Repeat("z", 3000)
	checkLetter(t, r, compose(t, r))
}

func FuzzCompose(f *testing.F) {
	f.Add("ann@office.example", "bob@partner.example", "sales", 550, "no such user", mx1, []byte("Subject: x\r\n\r\n"), 0)
	f.Add(`"a\" <b"@x.example`, `"  \\ "@x.example`, "<>\r\n", 0, "\r\n.\r\n--report=_01kfz00000aaaaaa--\r\n", "[", []byte("\rMessage-ID:<\x00>\n"), 1)
	f.Add("postmaster", "ä@x", "ü ü", 421, strings.Repeat("x ", 5000), strings.Repeat("y", 3000), bytes.Repeat([]byte("é"), 2000), 2)
	f.Fuzz(func(t *testing.T, from, to, orig string, code int, text, host string, header []byte, kind int) {
		sender, err := relay.ParsePath("<"+from+">", true)
		if err != nil || sender.IsNull() {
			return
		}
		rcpt, err := relay.ParsePath("<"+to+">", true)
		if err != nil {
			return
		}
		r := report([]dsn.Kind{dsn.Failed, dsn.Delayed, dsn.Delivered, dsn.Relayed, dsn.AfterAll}[uint(kind)%5],
			failed(rcpt, code, relay.Status{5, code & 7, code & 3}, text, host), failed(ann, 0, relay.Status{}, text, ""))
		r.Envelope.From = sender
		r.Envelope.Rcpts = []relay.Recipient{{Addr: rcpt, Orig: orig}}
		r.OriginalHeader, r.Language = header, dsn.Languages[uint(kind)%4]
		checkLetter(t, r, compose(t, r))
	})
}

// The whole letter goes back where it can travel as it is, and its header otherwise.
func TestWhole(t *testing.T) {
	t.Parallel()
	const plain, eight, long = "Subject: x\r\n\r\nthe text\r\n", "Subject: x\r\n\r\ngr\u00fc\u00dfe\r\n", "Subject: gr\u00fc\u00dfe\r\n\r\nthe text\r\n"
	for name, c := range map[string]struct {
		kind     dsn.Kind
		letter   string
		eightBit bool
		want     string
		text     bool
	}{
		"plain":                {dsn.Failed, plain, false, "message/rfc822\r\nContent-Description: The message\r\nContent-Transfer-Encoding: 7bit", true},
		"8-bit":                {dsn.Failed, eight, true, "message/rfc822\r\nContent-Description: The message\r\nContent-Transfer-Encoding: 8bit", true},
		"8-bit, 7-bit way":     {dsn.Failed, eight, false, "text/rfc822-headers", false},
		"international":        {dsn.Failed, long, true, "message/global\r\n", true},
		"a bare LF":            {dsn.Failed, plain + "a\nb\r\n", true, "text/rfc822-headers", false},
		"no report of failure": {dsn.Delayed, plain, true, "text/rfc822-headers", false},
	} {
		r := report(c.kind, failed(ann, 550, relay.Status{5, 1, 1}, "no", mx1))
		r.OriginalHeader, r.Whole, r.EightBit = []byte(c.letter), true, c.eightBit
		got := string(compose(t, r))
		_, text, _ := strings.Cut(strings.TrimSuffix(c.letter, "\r\n"), "\r\n\r\n")
		if !strings.Contains(got, "Content-Type: "+c.want) || strings.Contains(got, text) != c.text {
			t.Errorf("%s:\n%s", name, got)
		}
		header, _, _ := strings.Cut(got, "\r\n\r\n")
		if (strings.Contains(got, "Encoding: 8bit\r\n\r\n")) != strings.Contains(header, "Content-Transfer-Encoding: 8bit") {
			t.Errorf("%s: the letter does not say what its part is:\n%s", name, header)
		}
	}
}
