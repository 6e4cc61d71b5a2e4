package intake

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"relayd/relay"
	"relayd/relay/policy"
)

func TestDecide(t *testing.T) {
	t.Parallel()
	wish := func(w policy.Wish, proven bool) policy.Findings {
		return policy.Findings{DMARC: policy.DMARC{Result: policy.Fail, Wish: w}, Proven: proven}
	}
	for _, c := range []struct {
		name  string
		p     Policy
		found policy.Findings
		list  bool
		want  fate
	}{
		{"reject", Policy{Mode: PolicyEnforce}, wish(policy.WishReject, true), false, refuse},
		{"quarantine", Policy{Mode: PolicyEnforce}, wish(policy.WishQuarantine, true), false, junk},
		{"none", Policy{Mode: PolicyEnforce}, wish(policy.WishNone, false), false, deliver},
		{"list", Policy{Mode: PolicyEnforce}, wish(policy.WishReject, true), true, junk},
		{"somebody who says it is a list", Policy{Mode: PolicyEnforce}, wish(policy.WishReject, false), true, refuse},
		{"observed", Policy{Mode: PolicyObserve}, wish(policy.WishReject, false), false, deliver},
		{"excepted by From", Policy{Mode: PolicyEnforce, Except: []string{"bank.test"}}, wish(policy.WishReject, false), false, deliver},
		{"excepted by MAIL FROM", Policy{Mode: PolicyEnforce, Except: []string{"*.sender.test"}}, wish(policy.WishReject, false), false, deliver},
		{"excepted by address", Policy{Mode: PolicyEnforce, Except: []string{"ANN@bank.test"}}, wish(policy.WishReject, false), false, deliver},
		{"others excepted", Policy{Mode: PolicyEnforce, Except: []string{"eve@bank.test", "*.bank.test", "sender.test", "ank.test"}}, wish(policy.WishReject, false), false, refuse},
	} {
		h := header{from: []string{" Ann <ann@bank.test>\r\n"}, list: c.list}
		if got := c.p.decide(c.found, h, relay.Address{Local: "x", Domain: "a.sender.test"}); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

// TestAuthors: whatever a reader's program may take for the author's domain is asked about.
func TestAuthors(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{
		" Ann <ann@Bank.test>":                  "bank.test",
		" ann@bank.test (ann@evil.test)":        "bank.test",
		"\r\n\t\"x@evil.test\" <ann@bank.test>": "bank.test",
		" ann@a.test, bob@b.test, carol@a.test": "a.test b.test",
		" ann":                                  "",
		" <ann@bank.test":                       "bank.test",
		" \"ann@bank.test":                      "bank.test",
		" ann@bank.test> <x@other.test>":        "bank.test other.test",
		" x@[192.0.2.1]":                        "",
	} {
		var got []string
		for _, d := range domains(authors([]string{value})) {
			got = append(got, string(d))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %q, want %q", value, got, want)
		}
	}
}

func TestWithoutClaims(t *testing.T) {
	t.Parallel()
	const id = "mail.office.test"
	in := "A: b\r\nAuthentication-Results: mail.office.test;\r\n\tdmarc=pass\r\nAUTHENTICATION-RESULTS : (x) MAIL.office.test\r\n" +
		"Authentication-Results: mail.office.test.other.test; spf=pass\r\nSubject: Authentication-Results: mail.office.test\r\n\r\nAuthentication-Results: mail.office.test\r\n"
	want := "A: b\r\nAuthentication-Results: mail.office.test.other.test; spf=pass\r\nSubject: Authentication-Results: mail.office.test\r\n\r\nAuthentication-Results: mail.office.test\r\n"
	h, _, err := readHeader(strings.NewReader(in), make([]byte, 0, 4096), func() bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	h = h.withoutClaims(id)
	if got := string(h.raw) + string(h.rest); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	h, _, _ = readHeader(strings.NewReader(want), make([]byte, 0, 4096), func() bool { return true })
	if h = h.withoutClaims(id); string(h.raw) != want || h.rest != nil {
		t.Errorf("changed to %q %q", h.raw, h.rest)
	}
}

// TestHeldBody gives back what it took, of any size, shows all of it, and leaves nothing behind.
func TestHeldBody(t *testing.T) {
	t.Parallel()
	pool := &sync.Pool{New: func() any { b := make([]byte, 0, heldSize); return &b }}
	for _, size := range []int{0, 1, heldSize - 1, heldSize, heldSize + 1, 10 * heldSize} {
		dir := t.TempDir()
		body := bytes.Repeat([]byte("0123456789abcdef\r\n"), size/18+1)[:size]
		s := heldBody{dir: dir, pool: pool}
		var tee bytes.Buffer
		if err := s.fill(bytes.NewReader(body), &tee); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(s.reader())
		if err != nil || !bytes.Equal(got, body) || !bytes.Equal(tee.Bytes(), body) {
			t.Errorf("%d octets: %d back, %d shown, %v", size, len(got), tee.Len(), err)
		}
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Errorf("%d octets: %v lies in the directory", size, left)
		}
		s.close()
		s.close()
	}
	gone := errors.New("gone")
	for _, size := range []int{10, 2 * heldSize} {
		s := heldBody{dir: t.TempDir(), pool: pool}
		body := io.MultiReader(bytes.NewReader(make([]byte, size)), iotest.ErrReader(gone))
		if err := s.fill(body, io.Discard); !errors.Is(err, gone) {
			t.Errorf("a body that breaks off after %d octets: %v", size, err)
		}
		s.close()
	}
}

// TestAggregateReport: the subjects in use, and others that are none.
func TestAggregateReport(t *testing.T) {
	t.Parallel()
	for subject, want := range map[string]bool{
		" Report Domain: office.example\r\n Submitter: mail.bank.example\r\n Report-ID: <1>\r\n": true,
		" Report domain: office.example Submitter: bank.example Report-ID: 1\r\n":                true,
		" [Preview] Report\r\n Domain: office.example Submitter: x Report-ID: <1>\r\n":           true,
		" Report Domain: office.example\r\n":                                                     false,
		" the report\r\n":                                                                        false,
		"":                                                                                       false,
	} {
		if got := isAggregateReport(subject); got != want {
			t.Errorf("%q: %v", subject, got)
		}
	}
}

// TestNoRoomForHeaders: a stranger's letter that cannot be checked for lack of room has to come again;
// one whose header is larger than any room is junk, as ever.
func TestNoRoomForHeaders(t *testing.T) {
	t.Parallel()
	tx := &transaction{in: &Intake{dns: struct{ relay.Resolver }{}}, settings: &Settings{Policy: Policy{Mode: PolicyEnforce}, Directory: &Directory{Hostname: "mail.office.example"}}}
	tx.env.Origin = relay.Origin{Client: netip.MustParseAddrPort("192.0.2.1:4000"), Service: publicService}
	_, err := tx.examine(t.Context(), header{raw: make([]byte, bufferSize)}, nil, true)
	if f, ok := errors.AsType[*relay.Failure](err); !ok || f.Reply.Code != 451 || tx.env.Junk {
		t.Errorf("without room: %v, junk %v", err, tx.env.Junk)
	}
	if _, err := tx.examine(t.Context(), header{raw: make([]byte, maxHeader)}, nil, true); err != nil || !tx.env.Junk {
		t.Errorf("larger than any room: %v, junk %v", err, tx.env.Junk)
	}
}
