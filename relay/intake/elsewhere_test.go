package intake_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"relayd/relay"
	"relayd/relay/intake"
)

// twoHouses is an office with a domain that another server of ours keeps and two that it backs up.
func twoHouses(ask bool) *intake.Directory {
	d := office()
	names := map[string]bool{"dora": true, "a+b": true}
	d.Domains["inner.example"] = intake.Domain{Elsewhere: true, Known: intake.Known{Names: names, Ask: ask},
		Aliases: map[string][]string{"team": {"ann@office.example", "dora", "eve"}, "eve": {"eve", "dora"}}}
	d.Users = append(d.Users.(people), "eve@inner.example")
	d.Backups = map[relay.Domain]intake.Known{
		"listed.example": {Names: map[string]bool{"carol": true}}, "asked.example": {Ask: true}}
	return d
}

func TestClassifyElsewhere(t *testing.T) {
	for _, c := range []struct {
		path string
		want string // places, or a refusal; @ in front: in the queue
	}{
		{"<dora@inner.example>", "@dora@inner.example"},
		{"<DORA+Tag@INNER.example>", "@dora+Tag@inner.example"},
		{"<a+b@inner.example>", "@a+b@inner.example"},
		{"<eve+x@inner.example>", "@eve@inner.example @dora@inner.example"},
		{"<team@inner.example>", "ann@office.example @dora@inner.example @eve@inner.example @dora@inner.example"},
		{"<team+x@inner.example>", "ann@office.example @dora@inner.example @eve@inner.example @dora@inner.example"},
		{"<postmaster@inner.example>", "@postmaster@inner.example"},
		{"<nobody@inner.example>", "550 5.1.1"},
		{"<nobody+dora@inner.example>", "550 5.1.1"},
		{"<+dora@inner.example>", "550 5.1.1"},
		{"<dora@sub.inner.example>", "550 5.7.1"},
		{"<carol@listed.example>", "@carol@listed.example"},
		{"<Carol+Tag@listed.example>", "@Carol+Tag@listed.example"},
		{"<Postmaster@listed.example>", "@Postmaster@listed.example"},
		{"<nobody@listed.example>", "550 5.1.1"},
		{"<carol%victim.example@listed.example>", "550 5.1.1"},
		{"<anybody@asked.example>", "@anybody@asked.example"},
		{"<anybody@sub.asked.example>", "550 5.7.1"},
		{"<x@victim.example>", "550 5.7.1"},
	} {
		to, err := relay.ParsePath(c.path, true)
		if err != nil {
			t.Fatal(err)
		}
		found, err := twoHouses(false).Classify(stranger, to)
		var got []string
		for _, r := range found {
			if r.Mailbox.IsNull() {
				got = append(got, "@"+r.Addr.String())
			} else {
				got = append(got, r.Mailbox.String())
			}
		}
		text := strings.Join(got, " ")
		if f, ok := errors.AsType[*relay.Failure](err); ok {
			text = f.Reply.String()[:len("550 5.1.1")]
		}
		if text != c.want {
			t.Errorf("%s: %q, want %q", c.path, text, c.want)
		}
	}
}

// oracle is an Asker: it knows by the local part.
type oracle struct{ asked []string }

func (o *oracle) Ask(_ context.Context, a relay.Address) (bool, error) {
	o.asked = append(o.asked, a.String())
	switch a.Local {
	case "yes":
		return true, nil
	case "no":
		return false, nil
	}
	return false, errors.New("nobody answers")
}

// Who is asked about, and what follows: a stranger waits outside until somebody knows, our own people do
// not, and whoever the operator has written down is not asked about.
func TestAsking(t *testing.T) {
	for _, c := range []struct {
		who   relay.Origin
		to    string
		code  int // 0: accepted
		asked int
	}{
		{stranger, "yes@asked.example", 0, 1},
		{stranger, "no@asked.example", 550, 1},
		{stranger, "unknown@asked.example", 451, 1},
		{stranger, "postmaster@asked.example", 0, 0},
		{trusted, "unknown@asked.example", 0, 0},
		{trusted, "no@asked.example", 0, 0}, // it goes elsewhere, as any letter of theirs
		{stranger, "carol@listed.example", 0, 0},
		{stranger, "yes@inner.example", 0, 1},
		{stranger, "no@inner.example", 550, 1},
		{stranger, "no+tag@inner.example", 451, 1}, // that is another address there
		{stranger, "unknown@inner.example", 451, 1},
		{stranger, "dora@inner.example", 0, 0},
		{stranger, "dora+tag@inner.example", 0, 0},
		{stranger, "eve+tag@inner.example", 0, 0},
		{stranger, "postmaster@inner.example", 0, 0},
		{trusted, "unknown@inner.example", 0, 1},
		{trusted, "no@inner.example", 550, 1},
		{stranger, "ann@office.example", 0, 0},
		{stranger, "no@victim.example", 550, 0},
	} {
		o := &oracle{}
		in := intake.New(intake.Options{DataDir: t.TempDir(), Log: slog.New(slog.DiscardHandler), Asker: o})
		in.Set(intake.Settings{Directory: twoHouses(true)})
		tx, err := in.Begin(t.Context(), c.who, relay.Address{Local: "w", Domain: "partner.example"}, relay.MailParams{})
		if err != nil {
			t.Fatal(err)
		}
		to, err := relay.ParseAddress(c.to, true)
		if err != nil {
			t.Fatal(err)
		}
		err = tx.Rcpt(t.Context(), to, relay.RcptParams{})
		tx.Abort()
		code := 0
		if f, ok := errors.AsType[*relay.Failure](err); ok {
			code = f.Reply.Code
		}
		if code != c.code || len(o.asked) != c.asked {
			t.Errorf("%s (trusted %v): %v, asked %q; want %d after %d questions", c.to, c.who.Trusted, err, o.asked, c.code, c.asked)
		}
	}
}

// A login may send as itself in a domain kept elsewhere, and as an alias that leads to it there.
func TestSenderElsewhere(t *testing.T) {
	in := intake.New(intake.Options{DataDir: t.TempDir(), Log: slog.New(slog.DiscardHandler), Asker: &oracle{}})
	in.Set(intake.Settings{Directory: twoHouses(false)})
	who := stranger
	who.Service, who.User = "submission", "eve@inner.example"
	var refused []string
	for _, from := range []string{"eve@inner.example", "eve+x@inner.example", "team@inner.example", "dora@inner.example", "ann@office.example"} {
		a, err := relay.ParseAddress(from, true)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := in.Begin(t.Context(), who, a, relay.MailParams{}); err != nil {
			refused = append(refused, from)
		}
	}
	if want := []string{"dora@inner.example", "ann@office.example"}; !slices.Equal(refused, want) {
		t.Errorf("refused %q, want %q", refused, want)
	}
}
