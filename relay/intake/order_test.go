package intake_test

import (
	"regexp"
	"strings"
	"testing"

	"relayd/relay"
	"relayd/relay/intake"
)

var (
	dates = regexp.MustCompile(`(?m)^Date: [A-Z][a-z]{2}, \d{1,2} [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d [+-]\d{4}\r$`)
	ids   = regexp.MustCompile(`<[0-9a-z]{16}@mail\.office\.example>`)
	trace = regexp.MustCompile(`(?s)^Received: .*?\r\n([^\t])`)
)

// A letter of our own people gets what it lacks and loses what nobody else may see; everything
// else of it stays, octet for octet.
func TestSubmittedLetterIsPutInOrder(t *testing.T) {
	t.Parallel()
	const whole = "Date: long ago\r\nFrom: Ann <ann@office.example>\r\nMessage-ID: <1@x>\r\n"
	for name, c := range map[string]struct{ sent, want string }{
		"nothing to do":     {whole + "X-Odd:no blank\r\nnot a field\r\n\r\nbody\r\nBcc: text\r\n", whole + "X-Odd:no blank\r\nnot a field\r\n\r\nbody\r\nBcc: text\r\n"},
		"all missing":       {"Subject: x\r\n\r\nbody", "From: ann@office.example\r\nDATE\r\nMessage-ID: ID\r\nSubject: x\r\n\r\nbody"},
		"no header":         {"\r\nbody\r\n", "From: ann@office.example\r\nDATE\r\nMessage-ID: ID\r\n\r\nbody\r\n"},
		"begins folded":     {" body\r\n", "From: ann@office.example\r\nDATE\r\nMessage-ID: ID\r\n\r\n body\r\n"},
		"empty":             {"", "From: ann@office.example\r\nDATE\r\nMessage-ID: ID\r\n"},
		"one missing":       {"date : x\r\nFrom: ann@office.example\r\n\r\n", "Message-ID: ID\r\ndate : x\r\nFrom: ann@office.example\r\n\r\n"},
		"bcc":               {whole + "BCC: dora@partner.example,\r\n\tbob@office.example\r\nTo: x@y\r\nBcc : z@z\r\nResent-Bcc: q\r\n\r\n", whole + "To: x@y\r\n\r\n"},
		"bcc last":          {whole + "Bcc: dora@partner.example", whole},
		"names":             {whole + "To: bob, Bob <BOB>,\r\n sales (all of us), x@y\r\nCc: us: ann, postmaster;\r\nReply-To: ann\r\n\r\n", whole + "To: bob@office.example, Bob <BOB@office.example>,\r\n sales@office.example (all of us), x@y\r\nCc: us: ann@office.example, postmaster@office.example;\r\nReply-To: ann@office.example\r\n\r\n"},
		"names not ours":    {whole + "To: Miller, Bob <bob@office.example>, nobody\r\n\r\n", whole + "To: Miller, Bob <bob@office.example>, nobody\r\n\r\n"},
		"names unreadable":  {whole + "To: bob, <\r\n\r\n", whole + "To: bob, <\r\n\r\n"},
		"not address field": {whole + "Subject: bob\r\nX-To: bob\r\n\r\n", whole + "Subject: bob\r\nX-To: bob\r\n\r\n"},
		"long body":         {whole + "\r\n" + strings.Repeat("0123456789\r\n", 20_000), whole + "\r\n" + strings.Repeat("0123456789\r\n", 20_000)},
		"long header":       {whole + "X: " + strings.Repeat("x", 100<<10) + "\r\n\r\nb", whole + "X: " + strings.Repeat("x", 100<<10) + "\r\n\r\nb"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			if got := h.submit(t, as("ann@office.example"), "ann@office.example", c.sent, "dora@partner.example", "bob@office.example"); got != "" {
				t.Fatal(got)
			}
			local := strings.TrimPrefix(h.local.letters[0].body, "Return-Path: <ann@office.example>\r\nDelivered-To: bob@office.example\r\n")
			for _, got := range []string{h.foreign.letters[0].body, local} {
				got = ids.ReplaceAllString(dates.ReplaceAllString(trace.ReplaceAllString(got, "$1"), "DATE\r"), "ID")
				if got != c.want {
					t.Errorf("got\n%.500q\nwant\n%.500q", got, c.want)
				}
			}
		})
	}
}

// What strangers send on port 25, and machines of trusted networks too, is ours to carry and not
// to edit.
func TestStrangersLettersAreNotTouched(t *testing.T) {
	t.Parallel()
	for _, o := range []relay.Origin{stranger, trusted} {
		o.Service = "smtp"
		for _, body := range []string{"", "Bcc: x@y\r\nTo: bob\r\nFrom: nobody at all\r\n\r\nbody\r\n", "\r\nbody", "Subject: x"} {
			h := newHouse(t)
			h.Set(intake.Settings{Directory: office(), Limits: intake.Limits{ReceivedFields: 100}, HideClient: true})
			if _, err := h.send(t, o, body, "ann@office.example"); err != nil {
				t.Fatal(err)
			}
			got := h.local.letters[0].body
			if i := strings.Index(got, "; "); got[i+strings.Index(got[i:], "\r\n")+2:] != body || !strings.Contains(got, o.Client.Addr().String()) {
				t.Errorf("%q became %q", body, got)
			}
		}
	}
}

func TestHideClient(t *testing.T) {
	t.Parallel()
	for _, hide := range []bool{true, false} {
		h := newHouse(t)
		h.Set(intake.Settings{Directory: office(), Limits: intake.Limits{ReceivedFields: 100}, HideClient: hide})
		if got := h.submit(t, as("ann@office.example"), "ann@office.example", hello, "dora@partner.example"); got != "" {
			t.Fatal(got)
		}
		got := h.foreign.letters[0]
		shown := strings.Contains(got.body, "192.0.2.9") || strings.Contains(got.body, "laptop.example")
		if shown == hide || !strings.HasPrefix(got.body, "Received: ") {
			t.Errorf("hide %v: %s", hide, got.body)
		}
		if got.env.Origin.Client != as("").Client {
			t.Error("the operator must still see the client")
		}
	}
}

func TestWriterWithoutASCIINameNeedsSMTPUTF8(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	if got := h.submit(t, as("jürgen@office.example"), "", hello, "dora@partner.example"); got != "" {
		t.Fatal(got)
	}
	if strings.Contains(h.foreign.letters[0].body, "From:") {
		t.Errorf("got %q", h.foreign.letters[0].body)
	}
}

// A header full of short names must not grow without bound.
func TestOnlySoManyNamesAreCompleted(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	if got := h.submit(t, as("ann@office.example"), "ann@office.example", "To: bob"+strings.Repeat(",bob", 5000)+"\r\n\r\n", "dora@partner.example"); got != "" {
		t.Fatal(got)
	}
	if n := strings.Count(h.foreign.letters[0].body, "bob@office.example"); n != 1000 {
		t.Errorf("%d names were completed", n)
	}
}
