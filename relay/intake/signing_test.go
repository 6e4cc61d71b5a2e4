package intake_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"testing"

	"relayd/relay"
	"relayd/relay/intake"
	"relayd/relay/policy"
)

// notary signs by saying who, and how long the letter is; it fails where fail is set.
type notary struct {
	fail error
	open int
}

type stamp struct {
	n    *notary
	d    relay.Domain
	head string
	text strings.Builder
	done bool
}

func (n *notary) Sign(d relay.Domain, header []byte) intake.Signature {
	n.open++
	return &stamp{n: n, d: d, head: string(header)}
}

func (s *stamp) Write(p []byte) (int, error) { return s.text.Write(p) }

func (s *stamp) Fields() (string, error) {
	s.Close()
	return "Signed: " + string(s.d) + "\r\n", s.n.fail
}

func (s *stamp) Close() {
	if !s.done {
		s.done = true
		s.n.open--
	}
}

func newNotaryHouse(t *testing.T) (*house, *notary) {
	n, h := &notary{}, &house{local: &store{}, foreign: &store{}}
	h.Intake = intake.New(intake.Options{Local: h.local, Foreign: h.foreign, DataDir: t.TempDir(), Log: slog.New(slog.DiscardHandler), Signer: n})
	h.Set(intake.Settings{Directory: office(), Limits: intake.Limits{ReceivedFields: 100}})
	return h, n
}

const toPartner = "bob@partner.example"

// Our own people's letters to elsewhere are signed for the domain in From; what only passes
// through, what stays here, and what is from nobody here is not.
func TestWhoIsSigned(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, header string
		origin       relay.Origin
		want         string
	}{
		{"trusted network", "From: ann@office.example", trusted, "office.example"},
		{"login", "From: Ann <ann@Office.Example>", as("ann@office.example"), "office.example"},
		{"our host", "From: MAILER-DAEMON@mail.office.example", trusted, "office.example"},
		{"another host of ours", "From: x@other.office.example", trusted, ""},
		{"somebody else", "From: x@partner.example", trusted, ""},
		{"two writers", "From: ann@office.example, x@partner.example", trusted, ""},
		{"two fields", "From: ann@office.example\r\nFrom: ann@office.example", trusted, ""},
		{"no From", "Subject: x", trusted, ""},
	} {
		h, n := newNotaryHouse(t)
		letter := tt.header + "\r\n\r\nbody\r\n"
		if tt.name == "login" {
			if refusal := h.submit(t, tt.origin, "ann@office.example", letter, toPartner, "ann@office.example"); refusal != "" {
				t.Fatalf("%s: %s", tt.name, refusal)
			}
		} else if _, err := h.send(t, tt.origin, letter, toPartner, "ann@office.example"); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		text := h.foreign.letters[0].body
		got := ""
		if first, _, _ := strings.Cut(text, "\r\n"); strings.HasPrefix(first, "Signed: ") {
			got = strings.TrimPrefix(first, "Signed: ")
		}
		if got != tt.want || !strings.Contains(text, tt.header) || !strings.HasSuffix(text, "\r\n\r\nbody\r\n") || n.open != 0 {
			t.Errorf("%s: signed by %q, want %q, %d open\n%s", tt.name, got, tt.want, n.open, text)
		}
		if strings.Contains(h.local.letters[0].body, "Signed:") {
			t.Errorf("%s: the copy here is signed", tt.name)
		}
	}
}

// A letter that a stranger sends to an alias that leads elsewhere is not ours to sign, whatever
// its From says.
func TestStrangersAreNotSigned(t *testing.T) {
	t.Parallel()
	h, n := newNotaryHouse(t)
	d := office()
	d.Domains["office.example"].Aliases["away"] = []string{toPartner}
	h.Set(intake.Settings{Directory: d, Limits: intake.Limits{ReceivedFields: 100}})
	if _, err := h.send(t, stranger, "From: ann@office.example\r\n\r\nx\r\n", "away@office.example"); err != nil {
		t.Fatal(err)
	}
	if text := h.foreign.letters[0].body; strings.Contains(text, "Signed:") || n.open != 0 {
		t.Errorf("signed:\n%s", text)
	}
}

// Whatever becomes of the signature, the letter goes, whole.
func TestFailedSignature(t *testing.T) {
	t.Parallel()
	for _, size := range []int{10, 70_000, 1_000_000} {
		for _, fail := range []error{nil, errors.New("no")} {
			h, n := newNotaryHouse(t)
			n.fail = fail
			body := strings.Repeat("0123456789abcd\r\n", size/16)
			if _, err := h.send(t, trusted, "From: ann@office.example\r\n\r\n"+body, toPartner); err != nil {
				t.Fatal(err)
			}
			_, text, _ := strings.Cut(h.foreign.letters[0].body, "\r\n\r\n")
			if text != body {
				t.Errorf("%d octets, %v: %d arrive", len(body), fail, len(text))
			}
		}
	}
}

// A letter that breaks off leaves nothing behind: no staged letter, no signature, no spool.
func TestBrokenOffWhileSigned(t *testing.T) {
	t.Parallel()
	for _, broken := range []func(h *house){
		func(h *house) { h.foreign.failWrite = errors.New("full") },
		func(h *house) { h.foreign.failAt = errors.New("full") },
		func(h *house) { h.foreign.failStage = errors.New("full") },
	} {
		h, n := newNotaryHouse(t)
		broken(h)
		body := strings.Repeat("0123456789abcd\r\n", 10_000)
		if _, err := h.send(t, trusted, "From: ann@office.example\r\n\r\n"+body, toPartner, "ann@office.example"); err == nil {
			t.Error("accepted")
		}
		if n.open != 0 || len(h.foreign.letters)+len(h.local.letters) != 0 {
			t.Errorf("%d signatures, %d letters elsewhere and %d here remain", n.open, len(h.foreign.letters), len(h.local.letters))
		}
	}
}

// published answers with the record of every key.
type published struct{ all []policy.Key }

func (p *published) TXT(_ context.Context, name string) ([]string, error) {
	for _, k := range p.all {
		if k.RecordName() == name {
			return []string{k.Record()}, nil
		}
	}
	return nil, relay.ErrNoRecord
}

// TestLargeLettersAreSignedInLittleMemory signs 50 MB by both algorithms.
func TestLargeLettersAreSignedInLittleMemory(t *testing.T) {
	dns := &published{}
	keys, err := policy.OpenKeys(t.TempDir(), dns, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	keys.SetDomains([]relay.Domain{"office.example"})
	for range 2 { // made, then seen
		if dns.all, err = keys.List(t.Context(), true); err != nil {
			t.Fatal(err)
		}
	}
	out, dir := &drain{}, t.TempDir()
	h := &house{Intake: intake.New(intake.Options{Local: &store{}, Foreign: out, DataDir: dir,
		Log: slog.New(slog.DiscardHandler), Signer: policySigner{keys}})}
	h.Set(intake.Settings{Directory: office(), Limits: intake.Limits{ReceivedFields: 100}})
	runtime.GC()
	out.measure()
	before := out.most
	const size = 50_000_000
	body := &watched{io.LimitReader(endless{}, size), out, 0}
	letter := io.MultiReader(strings.NewReader("From: ann@office.example\r\n\r\n"), body)
	if _, err := h.receive(t, trusted, letter, toPartner); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.first.String(), "DKIM-Signature:"); n != 2 || out.size < size {
		t.Errorf("%d signatures, %d octets", n, out.size)
	}
	if grown := int64(out.most) - int64(before); grown > 12<<20 {
		t.Errorf("the heap grew by %d octets", grown)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

type policySigner struct{ *policy.Keys }

func (s policySigner) Sign(d relay.Domain, header []byte) intake.Signature {
	return s.Keys.Sign(d, header)
}

// endless is lines of text.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	const line = "0123456789abcd\r\n"
	n := 0
	for n < len(p) {
		n += copy(p[n:], line)
	}
	return n, nil
}

// watched measures while it is read.
type watched struct {
	io.Reader
	out  *drain
	read int
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	if w.read += n; w.read%(1<<20) < n {
		w.out.measure()
	}
	return n, err
}

// drain takes letters and keeps nothing of them but their beginning, and the most that was in use
// meanwhile.
type drain struct {
	first bytes.Buffer
	size  int64
	most  uint64
}

func (d *drain) Stage(context.Context, relay.Envelope) (relay.Staged, error) { return d, nil }
func (d *drain) Commit(context.Context) error                                { return nil }
func (d *drain) Abort() error                                                { return nil }

func (d *drain) Write(p []byte) (int, error) {
	if d.size += int64(len(p)); d.first.Len() < 4096 {
		d.first.Write(p)
	}
	if d.size%(1<<20) < int64(len(p)) {
		d.measure()
	}
	return len(p), nil
}

func (d *drain) measure() {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	d.most = max(d.most, m.HeapInuse)
}
