package intake_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"relayd/relay"
	"relayd/relay/intake"
)

var d0 = time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)

// store is a Stager that keeps what was committed and fails where it is told to.
type store struct {
	letters                      []letter
	failStage, failWrite, failAt error
	onStage                      func() // nil: nothing
	aborted                      int
}

type letter struct {
	env  relay.Envelope
	body string
}

type slot struct {
	bytes.Buffer
	s    *store
	env  relay.Envelope
	done bool
}

func (s *store) Stage(_ context.Context, env relay.Envelope) (relay.Staged, error) {
	if s.onStage != nil {
		s.onStage()
	}
	return &slot{s: s, env: env}, s.failStage
}

func (w *slot) Write(p []byte) (int, error) {
	if w.s.failWrite != nil {
		return 0, w.s.failWrite
	}
	return w.Buffer.Write(p)
}

func (w *slot) Commit(context.Context) error {
	if w.s.failAt != nil {
		return w.s.failAt
	}
	w.done = true
	w.s.letters = append(w.s.letters, letter{w.env, w.String()})
	return nil
}

func (w *slot) Abort() error {
	w.s.aborted++
	if w.done {
		w.s.letters = w.s.letters[:len(w.s.letters)-1]
	}
	w.done = false
	return nil
}

type house struct {
	*intake.Intake
	local, foreign *store
}

func newHouse(t *testing.T) *house {
	h := &house{local: &store{}, foreign: &store{}}
	h.Intake = intake.New(intake.Options{Local: h.local, Foreign: h.foreign, DataDir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	h.Set(intake.Settings{Directory: office(), Limits: intake.Limits{ReceivedFields: 100}})
	return h
}

func (h *house) send(t *testing.T, o relay.Origin, body string, rcpts ...string) (relay.ID, error) {
	t.Helper()
	return h.receive(t, o, strings.NewReader(body), rcpts...)
}

func (h *house) receive(t *testing.T, o relay.Origin, body io.Reader, rcpts ...string) (relay.ID, error) {
	t.Helper()
	from, err := relay.ParseAddress("writer@partner.example", false)
	if err != nil {
		t.Fatal(err)
	}
	tx, err := h.Begin(t.Context(), o, from, relay.MailParams{})
	if err != nil {
		return "", err
	}
	defer tx.Abort()
	for _, r := range rcpts {
		to, err := relay.ParseAddress(r, true)
		if err != nil {
			t.Fatal(err)
		}
		if err := tx.Rcpt(t.Context(), to, relay.RcptParams{}); err != nil {
			return "", err
		}
	}
	return tx.Receive(t.Context(), body)
}

const hello = "Subject: hello\r\n\r\nbody\r\n"

func TestReceiveLocal(t *testing.T) {
	h := newHouse(t)
	o := stranger
	o.Client, o.Helo, o.Proto, o.TLS, o.Name = trusted.Client, "client.example", "ESMTPS", "TLS1.3 TLS_AES_128_GCM_SHA256", "localhost"
	id, err := h.send(t, o, hello, "ann@office.example")
	if err != nil {
		t.Fatal(err)
	}
	if len(h.foreign.letters) != 0 || len(h.local.letters) != 1 {
		t.Fatalf("%d local, %d foreign", len(h.local.letters), len(h.foreign.letters))
	}
	got := h.local.letters[0]
	want := "Return-Path: <writer@partner.example>\r\n" +
		"Delivered-To: ann@office.example\r\n" +
		"Received: from client.example (localhost [127.0.0.1])\r\n" +
		"\tby mail.office.example (relayd) with ESMTPS\r\n" +
		"\t(TLS1.3 TLS_AES_128_GCM_SHA256) id " + string(id) + "\r\n" +
		"\tfor <ann@office.example>; DATE\r\n" + hello
	if body := regexp.MustCompile(`; .*\r\n`).ReplaceAllString(got.body, "; DATE\r\n"); body != want {
		t.Errorf("got:\n%s\nwant:\n%s", body, want)
	}
	if got.env.ID != id {
		t.Errorf("staged as %s, answered %s", got.env.ID, id)
	}
}

func TestReceiveForeignHasNoReturnPath(t *testing.T) {
	h := newHouse(t)
	if _, err := h.send(t, trusted, hello, "dora@partner.example"); err != nil {
		t.Fatal(err)
	}
	body := h.foreign.letters[0].body
	if !strings.HasPrefix(body, "Received: from ") || !strings.HasSuffix(body, "\r\n"+hello) || strings.Contains(body, "Delivered-To") {
		t.Errorf("got %q", body)
	}
}

// Blind recipients stay blind: one file serves all mailboxes, so it names only whom To and Cc
// show anyway.
func TestDeliveredToKeepsBlindRecipientsBlind(t *testing.T) {
	h := newHouse(t)
	if _, err := h.send(t, stranger, "To: Bob <Bob@office.example>, joann@office.example\r\n\r\n",
		"ann@office.example", "bob@office.example"); err != nil {
		t.Fatal(err)
	}
	body := h.local.letters[0].body
	if !strings.Contains(body, "Delivered-To: bob@office.example\r\n") || strings.Contains(body, "Delivered-To: ann") ||
		strings.Contains(body, "for <") {
		t.Errorf("got %q", body)
	}
	if len(h.local.letters[0].env.Rcpts) != 2 {
		t.Errorf("recipients %v", h.local.letters[0].env.Rcpts)
	}
}

func TestSameMailboxTwiceGetsOneLetter(t *testing.T) {
	h := newHouse(t)
	if _, err := h.send(t, stranger, hello, "ann@office.example", "ANN+x@office.example", "sales@office.example"); err != nil {
		t.Fatal(err)
	}
	if got := len(h.local.letters[0].env.Rcpts); got != 2 {
		t.Errorf("%d local recipients, want ann and bob", got)
	}
	if got := len(h.foreign.letters[0].env.Rcpts); got != 1 {
		t.Errorf("%d foreign recipients, want dora", got)
	}
}

// A mixed message is all or nothing: whatever fails, nothing stays behind and the client hears
// of it.
func TestMixedIsAllOrNothing(t *testing.T) {
	broken := errors.New("broken")
	for name, breakIt := range map[string]func(*house){
		"stage local": func(h *house) { h.local.failStage = broken }, "stage foreign": func(h *house) { h.foreign.failStage = broken },
		"write local": func(h *house) { h.local.failWrite = broken }, "write foreign": func(h *house) { h.foreign.failWrite = broken },
		"commit local": func(h *house) { h.local.failAt = broken }, "commit foreign": func(h *house) { h.foreign.failAt = broken },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			breakIt(h)
			_, err := h.send(t, trusted, hello, "ann@office.example", "dora@partner.example")
			if !errors.Is(err, broken) {
				t.Errorf("got %v", err)
			}
			if len(h.local.letters)+len(h.foreign.letters) != 0 {
				t.Errorf("left behind: %v %v", h.local.letters, h.foreign.letters)
			}
		})
	}
}

// A body that breaks off is no letter, however much of it came.
func TestBrokenOffBodyIsDropped(t *testing.T) {
	for _, body := range []string{"Subj", "Subject: x\r\n\r\nhalf a bo", "Subject: x\r\n\r\n" + strings.Repeat("x", 100_000)} {
		h := newHouse(t)
		tx, err := h.Begin(t.Context(), trusted, relay.Address{}, relay.MailParams{})
		if err != nil {
			t.Fatal(err)
		}
		tx.Rcpt(t.Context(), relay.Address{Local: "ann", Domain: "office.example"}, relay.RcptParams{})
		cut := io.MultiReader(strings.NewReader(body), iotest.ErrReader(io.ErrUnexpectedEOF))
		if _, err := tx.Receive(t.Context(), cut); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("got %v", err)
		}
		if len(h.local.letters) != 0 {
			t.Errorf("kept %v", h.local.letters)
		}
	}
}

func TestLoops(t *testing.T) {
	hops := func(n int) string { return strings.Repeat("Received: x\r\n\tby y\r\n", n) }
	for _, c := range []struct {
		body, rcpt, want string
	}{
		{hops(100) + "\r\n", "ann@office.example", ""},
		{hops(101) + "\r\n", "ann@office.example", "5.4.6"},
		{"\r\n" + hops(101), "ann@office.example", ""},
		{"Delivered-To: away@office.example\r\n\r\n", "away@office.example", "5.4.6"},
		{"Delivered-To: AWAY@office.example\r\n\r\n", "away@office.example", "5.4.6"},
		{"Delivered-To: ann@office.example\r\n\r\n", "ann@office.example", ""},
		{"\r\nDelivered-To: away@office.example\r\n", "away@office.example", ""},
	} {
		_, err := newHouse(t).send(t, stranger, c.body, c.rcpt)
		got := ""
		if f, ok := errors.AsType[*relay.Failure](err); ok {
			got = f.Reply.Status.String()
		}
		if got != c.want {
			t.Errorf("%.40q to %s: got %q, want %q", c.body, c.rcpt, got, c.want)
		}
	}
}

// What an alias sends away carries the alias, or the loop above would never be seen.
func TestForwardNamesItsAlias(t *testing.T) {
	h := newHouse(t)
	if _, err := h.send(t, stranger, hello, "away@office.example"); err != nil {
		t.Fatal(err)
	}
	if body := h.foreign.letters[0].body; !strings.HasPrefix(body, "Delivered-To: away@office.example\r\nReceived: ") {
		t.Errorf("got %q", body)
	}
}

func TestHeaderOfAnySize(t *testing.T) {
	for _, n := range []int{0, 10, 31 << 10, 33 << 10, 200 << 10} {
		for _, rest := range []string{"", "\r\n", "\r\nbody\r\n", "\r\n" + strings.Repeat("long body\r\n", 10_000)} {
			h := newHouse(t)
			body := fmt.Sprintf("X-Pad: %s\r\n%s", strings.Repeat("x", n), rest)
			if _, err := h.send(t, stranger, body, "ann@office.example"); err != nil {
				t.Fatal(err)
			}
			if !strings.HasSuffix(h.local.letters[0].body, "\r\n"+body) {
				t.Errorf("header of %d and rest of %d octets came out changed", n, len(rest))
			}
		}
	}
}

// A header without end, or a letter that never had one, is taken like any other, and only so
// much of it is held in memory before the letter is staged.
func TestEndlessHeaderIsTakenAndNotHeld(t *testing.T) {
	for name, body := range map[string]string{
		"one field of 3 MiB": "X: " + strings.Repeat("x", 3<<20) + "\r\n\r\nbody\r\n",
		"no header at all":   strings.Repeat("a line of text\r\n", 200_000),
		"header only":        strings.Repeat("X-Many: y\r\n", 200_000),
	} {
		h := newHouse(t)
		wire := &counted{Reader: strings.NewReader(body)}
		h.local.onStage = func() {
			if wire.n > 256<<10 {
				t.Errorf("%s: %d octets were read before the letter was staged", name, wire.n)
			}
		}
		if _, err := h.receive(t, stranger, wire, "ann@office.example"); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if !strings.HasSuffix(h.local.letters[0].body, "\r\n"+body) {
			t.Errorf("%s: came out changed", name)
		}
	}
}

// counted knows how much has been read of it.
type counted struct {
	io.Reader
	n int
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += n
	return n, err
}

// A letter that begins with a blank would continue our own Received field and put words into our
// mouth: it has no header, and an empty line says so.
func TestFirstLineCannotContinueOurTrace(t *testing.T) {
	for _, rest := range []string{" by forged.example; yesterday\r\nFrom: x\r\n\r\nbody\r\n", "\tx\r\n", " "} {
		h := newHouse(t)
		if _, err := h.send(t, trusted, rest, "ann@office.example", "dora@partner.example"); err != nil {
			t.Fatal(err)
		}
		for _, got := range []string{h.local.letters[0].body, h.foreign.letters[0].body} {
			if !strings.HasSuffix(got, "\r\n\r\n"+rest) {
				t.Errorf("%q became %q", rest, got)
			}
		}
	}
}

// SMTPUTF8 is needed where a header or the sender uses it, which our own trace fields may do; an
// international recipient beside others is told apart later, at its own host.
func TestWhoNeedsSMTPUTF8(t *testing.T) {
	for _, c := range []struct {
		asked      bool
		from, body string
		rcpts      []string
		want       bool
	}{
		{true, "writer@partner.example", hello, []string{"dora@partner.example"}, false},
		{true, "josé@partner.example", hello, []string{"dora@partner.example"}, true},
		{true, "writer@partner.example", "Subject: é\r\n\r\n", []string{"dora@partner.example"}, true},
		{false, "writer@partner.example", "Subject: é\r\n\r\n", []string{"dora@partner.example"}, false},
		{true, "writer@partner.example", "Subject: e\r\n\r\né\r\n", []string{"dora@partner.example"}, false},
		{true, "writer@partner.example", hello, []string{"josé@partner.example"}, true}, // "for <josé@...>"
		{true, "writer@partner.example", hello, []string{"josé@partner.example", "dora@other.example"}, false},
	} {
		h := newHouse(t)
		from, err := relay.ParseAddress(c.from, true)
		if err != nil {
			t.Fatal(err)
		}
		tx, err := h.Begin(t.Context(), trusted, from, relay.MailParams{UTF8: c.asked})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range c.rcpts {
			to, _ := relay.ParseAddress(r, true)
			if err := tx.Rcpt(t.Context(), to, relay.RcptParams{}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := tx.Receive(t.Context(), strings.NewReader(c.body)); err != nil {
			t.Fatal(err)
		}
		if got := h.foreign.letters[0].env.UTF8; got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

func TestSubmissionWantsALogin(t *testing.T) {
	o := stranger
	o.Service = "submission"
	_, err := newHouse(t).Begin(t.Context(), o, relay.Address{}, relay.MailParams{})
	if f, ok := errors.AsType[*relay.Failure](err); !ok || f.Reply.Code != 530 {
		t.Errorf("got %v", err)
	}
}

func TestFullDiskIsTemporary(t *testing.T) {
	h := newHouse(t)
	h.Set(intake.Settings{Directory: office(), Limits: intake.Limits{MinFreeDisk: 1 << 62}})
	_, err := h.Begin(t.Context(), stranger, relay.Address{}, relay.MailParams{})
	if f, ok := errors.AsType[*relay.Failure](err); !ok || f.Reply.Code != 452 || f.Reply.Status != (relay.Status{4, 3, 1}) {
		t.Errorf("got %v", err)
	}
}

func TestSubmitReports(t *testing.T) {
	h := newHouse(t)
	env := relay.Envelope{Rcpts: []relay.Recipient{{Addr: relay.Address{Local: "dora", Domain: "partner.example"}}}}
	if err := h.Submit(t.Context(), env, strings.NewReader(hello)); err != nil {
		t.Fatal(err)
	}
	if l := h.foreign.letters[0]; !l.env.From.IsNull() || !strings.HasPrefix(l.body, "Received: by mail.office.example (relayd) id ") {
		t.Errorf("got %+v", l)
	}
	env.Rcpts[0].Addr = relay.Address{Local: "nobody", Domain: "office.example"}
	f, ok := errors.AsType[*relay.Failure](h.Submit(t.Context(), env, strings.NewReader(hello)))
	if !ok || !f.Reply.Permanent() {
		t.Errorf("a report to nobody: %v", f)
	}
}

func TestVerifyTellsOnlyOfOurs(t *testing.T) {
	h := newHouse(t)
	if err := h.Verify(t.Context(), trusted, relay.Address{Local: "ann", Domain: "office.example"}); err != nil {
		t.Error(err)
	}
	for _, a := range []relay.Address{{Local: "nobody", Domain: "office.example"}, {Local: "dora", Domain: "partner.example"}} {
		if err := h.Verify(t.Context(), trusted, a); err == nil {
			t.Errorf("%s verified", a)
		}
	}
}
