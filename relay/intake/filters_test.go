package intake_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"

	"relayd/relay"
	"relayd/relay/filter"
	"relayd/relay/intake"
)

// reader is Filters that read every letter twice at the same time, and then say what a test wants.
type reader struct {
	say  []filter.Verdict
	err  error
	seen []string
	ours []bool
}

func (r *reader) Asks(bool) bool          { return true }
func (r *reader) Writes(name string) bool { return name == "x-spam" }

func (r *reader) Check(_ context.Context, l filter.Letter) ([]filter.Verdict, error) {
	read := make([]string, 2)
	var wg sync.WaitGroup
	for i := range read {
		wg.Go(func() {
			b, err := io.ReadAll(io.MultiReader(bytes.NewReader(l.Header), l.Body()))
			if err != nil {
				panic(err)
			}
			read[i] = string(b)
		})
	}
	wg.Wait()
	if read[0] != read[1] || int64(len(read[0])) != l.Size {
		panic("the two read different letters")
	}
	r.seen, r.ours = append(r.seen, read[0]), append(r.ours, l.Ours)
	return r.say, r.err
}

func filtered(t *testing.T, r *reader, mode intake.Mode) *house {
	h := newHouse(t)
	h.Set(intake.Settings{Directory: office(), Limits: intake.Limits{ReceivedFields: 100}, Filters: r, Policy: intake.Policy{Mode: mode}})
	return h
}

// TestFiltersSeeTheLetter: whole, of any size, without forged fields, and it is stored as they saw it.
func TestFiltersSeeTheLetter(t *testing.T) {
	for _, size := range []int{0, 10, 31 << 10, 100 << 10, 1 << 20} {
		r := &reader{say: []filter.Verdict{{Filter: "x", Word: "fine", Edits: []filter.Edit{{Op: filter.Add, Name: "X-Spam", Value: "No"}}}}}
		h := filtered(t, r, intake.PolicyOff)
		text := "Subject: hello\r\n\r\n" + strings.Repeat("0123456789\r\n", size/12)
		if _, err := h.send(t, stranger, "X-Spam: forged\r\n"+text, "ann@office.example"); err != nil {
			t.Fatal(err)
		}
		got := h.local.letters[0]
		if len(r.seen) != 1 || r.seen[0] != text || r.ours[0] || got.env.Filter != "x=fine" || !strings.HasSuffix(got.body, text) ||
			!strings.Contains(got.body, "\r\nX-Spam: No\r\nReceived: ") || strings.Contains(got.body, "forged") {
			t.Errorf("%d octets: seen %d times, %d octets, stored %.300q, %q", size, len(r.seen), len(r.seen[0]), got.body, got.env.Filter)
		}
	}
}

// TestFiltersDecide: what is refused is not staged, what is set aside is, and an error of ours is temporary.
func TestFiltersDecide(t *testing.T) {
	reply := relay.Reply{Code: 550, Status: relay.Status{5, 7, 1}, Text: "no"}
	for _, c := range []struct {
		name  string
		mode  intake.Mode
		say   filter.Verdict
		err   error
		code  int // 0: accepted
		junk  bool
		holds bool
	}{
		{"reject", intake.PolicyEnforce, filter.Verdict{Action: filter.Reject, Reply: reply}, nil, 550, false, false},
		{"reject while observing", intake.PolicyObserve, filter.Verdict{Action: filter.Reject, Reply: reply}, nil, 0, false, false},
		{"defer", intake.PolicyOff, filter.Verdict{Action: filter.Defer, Reply: relay.Reply{Code: 451}}, nil, 451, false, false},
		{"junk", intake.PolicyOff, filter.Verdict{Action: filter.Junk}, nil, 0, true, false},
		{"quarantine", intake.PolicyOff, filter.Verdict{Action: filter.Quarantine}, nil, 0, true, true},
		{"quarantine while observing", intake.PolicyObserve, filter.Verdict{Action: filter.Quarantine}, nil, 0, false, false},
		{"our error", intake.PolicyOff, filter.Verdict{}, errors.New("broken"), 451, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &reader{say: []filter.Verdict{c.say}, err: c.err}
			h := filtered(t, r, c.mode)
			_, err := h.send(t, trusted, hello, "ann@office.example", "x@partner.example")
			code := 0
			if err != nil {
				code = -1
			}
			if f, ok := errors.AsType[*relay.Failure](err); ok {
				code = f.Reply.Code
			}
			if code != c.code {
				t.Fatalf("%d, %v", code, err)
			}
			if len(r.ours) != 1 || !r.ours[0] {
				t.Errorf("a trusted network's letter is a stranger's: %v", r.ours)
			}
			if c.code != 0 {
				if len(h.local.letters)+len(h.foreign.letters)+h.local.aborted != 0 {
					t.Errorf("staged: %+v %+v", h.local, h.foreign)
				}
				return
			}
			local, foreign := h.local.letters[0].env, h.foreign.letters[0].env
			if local.Rcpts[0].Junk != c.junk || foreign.Rcpts[0].Junk || foreign.Junk || (foreign.Hold != "") != c.holds {
				t.Errorf("local %+v, foreign %+v", local.Rcpts, foreign)
			}
		})
	}
}

// TestFiltersAndReports: what we write ourselves is shown to nobody.
func TestFiltersAndReports(t *testing.T) {
	r := &reader{say: []filter.Verdict{{Action: filter.Reject, Reply: relay.Reply{Code: 550}}}}
	h := filtered(t, r, intake.PolicyOff)
	env := relay.Envelope{Rcpts: []relay.Recipient{{Addr: relay.Address{Local: "ann", Domain: "office.example"}}}}
	if err := h.Submit(t.Context(), env, strings.NewReader("X-Spam: Yes\r\n\r\nreport\r\n")); err != nil || len(r.seen) != 0 {
		t.Errorf("%v, seen %q", err, r.seen)
	}
}
