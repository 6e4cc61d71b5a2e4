package intake_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/iotest"

	"relayd/relay"
	"relayd/relay/intake"
)

// teller writes down what it is told and holds what it is told to hold.
type teller struct {
	hold  string
	heard []string
}

func (q *teller) Count(user relay.Address, n int, subject string) intake.Charge {
	q.heard = append(q.heard, fmt.Sprintf("count %s %d %s", user, n, strings.TrimSpace(subject)))
	return tallied{q}
}

type tallied struct{ q *teller }

func (c tallied) Hold() string { return c.q.hold }
func (c tallied) Accepted(_ context.Context, env relay.Envelope) {
	c.q.heard = append(c.q.heard, "accepted "+env.Hold)
}
func (c tallied) Refund() { c.q.heard = append(c.q.heard, "refund") }

func TestWhoIsCounted(t *testing.T) {
	t.Parallel()
	const letter = "From: ann@office.example\r\nSubject: offer\r\nSubject: another\r\n\r\nx\r\n"
	for name, c := range map[string]struct {
		origin relay.Origin
		hold   string
		body   io.Reader
		rcpts  string
		fail   error
		heard  string
		stored string
	}{
		"ours":        {submitter, "", strings.NewReader(letter), "x@y.example dora@partner.example bob@office.example", nil, "count ann@office.example 2 offer, accepted ", ""},
		"over":        {submitter, "too many", strings.NewReader(letter), "x@y.example bob@office.example", nil, "count ann@office.example 1 offer, accepted too many", "too many"},
		"by an alias": {submitter, "", strings.NewReader(letter), "sales@office.example", nil, "count ann@office.example 1 offer, accepted ", ""},
		"all here":    {submitter, "too many", strings.NewReader(letter), "bob@office.example", nil, "", ""},
		"a machine":   {trusted, "too many", strings.NewReader(letter), "x@y.example", nil, "", ""},
		"a stranger":  {stranger, "too many", strings.NewReader(letter), "away@office.example", nil, "", ""},
		"full disk":   {submitter, "too many", strings.NewReader(letter), "x@y.example", errors.New("full"), "count ann@office.example 1 offer, refund", ""},
		"broken off":  {submitter, "", io.MultiReader(strings.NewReader(letter+strings.Repeat("x\r\n", 50_000)), iotest.ErrReader(io.ErrUnexpectedEOF)), "x@y.example", nil, "count ann@office.example 1 offer, refund", ""},
		"not put in":  {submitter, "", strings.NewReader("From: boss@y.example\r\n\r\n"), "x@y.example", nil, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := &teller{hold: c.hold}
			h := &house{local: &store{}, foreign: &store{failAt: c.fail}}
			h.Intake = intake.New(intake.Options{Local: h.local, Foreign: h.foreign, DataDir: t.TempDir(), Log: slog.New(slog.DiscardHandler), Quota: q})
			h.Set(intake.Settings{Directory: office(), Limits: intake.Limits{ReceivedFields: 100}})
			tx := h.begin(t, c.origin)
			for to := range strings.FieldsSeq(c.rcpts) {
				if got := rcpt(t, tx, to); got != "" {
					t.Fatal(got)
				}
			}
			_, err := tx.Receive(t.Context(), c.body)
			if got := strings.Join(q.heard, ", "); got != c.heard {
				t.Errorf("heard %q, want %q (%v)", got, c.heard, err)
			}
			for _, l := range h.foreign.letters {
				if l.env.Hold != c.stored {
					t.Errorf("stored with %q, want %q", l.env.Hold, c.stored)
				}
			}
		})
	}
}
