package filter

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"relayd/relay"
	"relayd/relay/relaytest"
)

func TestRspamdAnswers(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct {
		action Action
		reply  string
		word   string
		fields string // what is added and, in front of a "-", removed
	}{
		`{"action":"no action","score":1,"required_score":15}`: {Pass, "", "no-action/1.00", "X-Spam-Score: 1.00|X-Spam-Status: No, score=1.00 required=15.00\r\n\ttests=[]"},
		`{"action":"reject","score":20.05,"required_score":15}`: {Reject, "550 5.7.1 the message looks like spam", "reject/20.05",
			"X-Spam: Yes|X-Spam-Score: 20.05|X-Spam-Status: Yes, score=20.05 required=15.00\r\n\ttests=[]"},
		`{"action":"reject","messages":{"smtp_message":"Gtube\npattern"}}`: {Reject, "550 5.7.1 Gtube pattern", "reject/0.00",
			"X-Spam: Yes|X-Spam-Score: 0.00|X-Spam-Status: Yes, score=0.00 required=0.00\r\n\ttests=[]"},
		`{"action":"soft reject","messages":{"smtp_message":"Ratelimit"}}`: {Defer, "451 4.7.1 Ratelimit", "soft-reject/0.00",
			"X-Spam-Score: 0.00|X-Spam-Status: No, score=0.00 required=0.00\r\n\ttests=[]"},
		`{"action":"add header","milter":{"add_headers":{"x-spam":"Yes","X-Spam-Status":{"value":"Yes","order":0},"X-Spam-Score":["1",{"value":"2"}]}}}`: {Junk, "", "add-header/0.00",
			"X-Spam-Score: 1|X-Spam-Score: 2|X-Spam-Status: Yes|x-spam: Yes"},
		`{"action":"rewrite subject","subject":"[SPAM] x","symbols":{"A":{"score":1},"B":{"score":-3}}}`: {Junk, "", "rewrite-subject/0.00",
			"X-Spam: Yes|X-Spam-Score: 0.00|X-Spam-Status: Yes, score=0.00 required=0.00\r\n\ttests=[B(-3.00), A(1.00)]"},
		`{"action":"quarantine"}`: {Quarantine, "", "quarantine/0.00", "X-Spam: Yes|X-Spam-Score: 0.00|X-Spam-Status: Yes, score=0.00 required=0.00\r\n\ttests=[]"},
		`{"action":"discard"}`:    {Quarantine, "", "discard/0.00", "X-Spam: Yes|X-Spam-Score: 0.00|X-Spam-Status: Yes, score=0.00 required=0.00\r\n\ttests=[]"},
		`{"is_skipped":true,"action":"reject","score":15}`: {Reject, "550 5.7.1 the message looks like spam", "reject/15.00",
			"X-Spam: Yes|X-Spam-Score: 15.00|X-Spam-Status: Yes, score=15.00 required=0.00\r\n\ttests=[]"},
		`{"is_skipped":true}`: {Pass, "", "skipped/0.00", ""},
		`{"action":"my own","milter":{"add_headers":{"X-A":"b\nc","Bad Name":"x","Received":"x"},"remove_headers":{"X-B":0,"X-C":2,"X-D":-1,"Delivered-To":0}}}`: {Pass, "", "my-own/0.00",
			"-X-B 0|-X-C 2|X-A: b\r\n\tc|X-Spam-Score: 0.00|X-Spam-Status: No, score=0.00 required=0.00\r\n\ttests=[]"},
		`{"score":1}`:       {fields: "fails"},
		``:                  {fields: "fails"},
		`[]`:                {fields: "fails"},
		`{"action":"reject`: {fields: "fails"},
	} {
		r, err := readRspamd([]byte(text))
		if (err != nil) != (want.fields == "fails") {
			t.Errorf("%s: %v", text, err)
		}
		if err != nil {
			continue
		}
		v := r.verdict()
		if v.Action != want.action || v.Word != want.word || v.Reply.String() != want.reply {
			t.Errorf("%s: %+v", text, v)
		}
		if diff := cmp.Diff(want.fields, shown(v.Edits)); diff != "" {
			t.Errorf("%s: -want +got\n%s", text, diff)
		}
	}
}

// TestRspamd: the envelope is told, and the letter as it came.
func TestRspamd(t *testing.T) {
	t.Parallel()
	r, err := relaytest.NewRspamd("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	m := newMember(t, Config{Kind: Rspamd, Address: r.Addr()})
	l := letter("A: b\r\n", "\r\n"+strings.Repeat("x", 200_000))
	l.Env.Origin.Name, l.Env.Origin.Helo, l.Env.Origin.TLS = "mx.partner.test", "helo\r\nX: y", "TLS1.3 TLS_AES_128_GCM_SHA256"
	v, err := m.check(t.Context(), &l)
	if err != nil || v.Action != Pass || !v.Scored {
		t.Fatalf("%+v, %v", v, err)
	}
	got := r.Asked()[0]
	if got.Size != l.Size || !strings.HasPrefix(got.Text, "A: b\r\n\r\nxxx") {
		t.Errorf("%d octets of %d: %q", got.Size, l.Size, got.Text[:20])
	}
	want := http.Header{
		"Ip": {"192.0.2.7"}, "Helo": {"helo??X: y"}, "Hostname": {"mx.partner.test"}, "From": {"writer@partner.test"},
		"Rcpt": {"sales@office.test", "dora@office.test"}, "Queue-Id": {"01m7zjfc5rhgwddb"}, "Mta-Name": {"mail.office.test"},
		"Tls-Version": {"TLS1.3"}, "Tls-Cipher": {"TLS_AES_128_GCM_SHA256"}, "User-Agent": {"relayd"},
	}
	got.Header.Del("Content-Length")
	got.Header.Del("Connection")
	if diff := cmp.Diff(want, got.Header); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	// What it does not understand, or is too much of, is a failure; what is too large for it is none.
	for _, c := range []struct {
		code int
		body string
		word string
	}{{500, "", "failed"}, {200, "<html>", "failed"}, {200, `{"action":"no action","x":"` + strings.Repeat("x", 2<<20) + `"}`, "failed"}, {413, "", "too-large"}} {
		m.succeeded()
		r.SetReply(c.code, c.body)
		if v, err := m.check(t.Context(), &l); err != nil || v.Action != Pass || v.Word != c.word {
			t.Errorf("%d %.20q: %+v, %v", c.code, c.body, v, err)
		}
	}
}

// TestGreylist: a network is sent away once, not at its second knock if that comes late enough.
func TestGreylist(t *testing.T) {
	t.Parallel()
	g := newGreylist()
	now := time.Now()
	l := letter("", "")
	near, other := l, l
	near.Env.Origin.Client = netip.MustParseAddrPort("192.0.2.200:1")
	other.Env.From.Local = "other"
	for i, c := range []struct {
		l     Letter
		after time.Duration
		want  bool
	}{
		{l, 0, false}, {l, 30 * time.Second, false}, {other, time.Hour, false}, {near, 2 * time.Minute, true}, {l, 35 * time.Hour, true},
		{l, 37 * time.Hour, false}, {l, 38 * time.Hour, true},
	} {
		if got := g.seen(&c.l, now.Add(c.after)); got != c.want {
			t.Errorf("%d: %v", i, got)
		}
	}
	for i := range 3 * greyCount {
		l.Env.From.Local = string(rune('a'+i%26)) + strings.Repeat("x", i%50) + time.Duration(i).String()
		g.seen(&l, now)
	}
	if len(g.sent) > greyCount {
		t.Errorf("%d are remembered", len(g.sent))
	}
}

// FuzzRspamd: whatever rspamd says, what comes of it can stand in a header, a reply and the log.
func FuzzRspamd(f *testing.F) {
	f.Add(`{"action":"reject","score":20.05,"required_score":15,"messages":{"smtp_message":"a\nb"}}`)
	f.Add(`{"action":"add header","milter":{"add_headers":{"X":"a\r\n\r\nb","Y":{"value":"\u0000","order":1},"Z":["1",{"value":"2"}]},"remove_headers":{"X":1,"Y":-1}}}`)
	f.Add(`{"action":"no action","symbols":{"A B":{"score":1e300}},"score":1e400}`)
	f.Fuzz(func(t *testing.T, text string) {
		r, err := readRspamd([]byte(text))
		if err == nil {
			harmless(t, r.verdict())
		}
	})
}

// harmless checks what every Verdict promises.
func harmless(t *testing.T, v Verdict) {
	t.Helper()
	if strings.ContainsFunc(v.Word, func(r rune) bool { return r <= ' ' || r > '~' }) || v.Word == "" || len(v.Word) > 500 {
		t.Errorf("the word %q", v.Word)
	}
	if bad := func(r rune) bool { return r < ' ' || r > '~' }; strings.ContainsFunc(v.Reply.Text+v.Detail, bad) || len(v.Reply.Text) > 500 {
		t.Errorf("the reply %q, the detail %q", v.Reply.Text, v.Detail)
	}
	switch v.Action {
	case Defer, Reject:
		if code := map[Action]int{Defer: 4, Reject: 5}[v.Action]; v.Reply.Code/100 != code || v.Reply.Status[0] != code {
			t.Errorf("%d with the reply %v", v.Action, v.Reply)
		}
	default:
		if v.Reply != (relay.Reply{}) {
			t.Errorf("%d with the reply %v", v.Action, v.Reply)
		}
	}
	size := 0
	for _, e := range v.Edits {
		if !isFieldName(e.Name) || traces[strings.ToLower(e.Name)] || e.Index < 0 {
			t.Errorf("an edit of %q", e.Name)
		}
		size += len(e.Value)
		for i, line := range strings.Split(e.Name+": "+e.Value, "\r\n") {
			if len(line) > 998 || strings.ContainsFunc(line, func(r rune) bool { return r != '\t' && r < ' ' || r > '~' }) ||
				i > 0 && (strings.Trim(line, " \t") == "" || line[0] != ' ' && line[0] != '\t') {
				t.Errorf("the line %q of %q", line, e.Value)
			}
		}
	}
	if len(v.Edits) > maxEdits || size > maxAdded {
		t.Errorf("%d edits of %d octets", len(v.Edits), size)
	}
}
