package intake

import (
	"bytes"
	"strings"
	"testing"

	"relayd/relay"
	"relayd/relay/filter"
)

func TestFollow(t *testing.T) {
	t.Parallel()
	v := func(all ...filter.Action) (out []filter.Verdict) {
		for _, a := range all {
			out = append(out, filter.Verdict{Action: a})
		}
		return out
	}
	for _, c := range []struct {
		mode  Mode
		all   []filter.Verdict
		want  fate
		worst filter.Action
	}{
		{PolicyEnforce, nil, deliver, filter.Pass},
		{PolicyEnforce, v(filter.Pass, filter.Pass), deliver, filter.Pass},
		{PolicyEnforce, v(filter.Junk, filter.Pass), junk, filter.Junk},
		{PolicyOff, v(filter.Junk, filter.Quarantine), junk, filter.Quarantine},
		{PolicyOff, v(filter.Defer, filter.Quarantine), refuse, filter.Defer},
		{PolicyEnforce, v(filter.Defer, filter.Reject, filter.Pass), refuse, filter.Reject},
		{PolicyObserve, v(filter.Reject, filter.Junk), deliver, filter.Reject},
	} {
		if got, worst := (Policy{Mode: c.mode}).follow(c.all); got != c.want || worst.Action != c.worst {
			t.Errorf("mode %d, %+v: %d by %d", c.mode, c.all, got, worst.Action)
		}
	}
}

// TestIsJunk: whose copy goes into Junk.
func TestIsJunk(t *testing.T) {
	t.Parallel()
	ann := relay.Recipient{Addr: relay.Address{Local: "ann", Domain: "office.test"}, Mailbox: relay.Address{Local: "ann", Domain: "office.test"}, Orig: "sales@office.test"}
	spam, ham := filter.Verdict{Action: filter.Junk, Scored: true, Score: 7}, filter.Verdict{Scored: true, Score: 5}
	for _, c := range []struct {
		name      string
		threshold float64
		all       []filter.Verdict
		want      bool
	}{
		{"spam", 0, []filter.Verdict{spam}, true},
		{"no spam", 0, []filter.Verdict{ham}, false},
		{"spam below her threshold", 7.1, []filter.Verdict{spam}, false},
		{"at her threshold", 5, []filter.Verdict{ham}, true},
		{"quarantine, whatever her threshold", 7.1, []filter.Verdict{spam, {Action: filter.Quarantine}}, true},
		{"junk by something without a score", 7.1, []filter.Verdict{ham, {Action: filter.Junk}}, true},
		{"hers alone", 0, []filter.Verdict{ham, {Aside: []string{"x@office.test", "sales@office.test"}}}, true},
		{"another's alone", 0, []filter.Verdict{ham, {Aside: []string{"ann@office.test"}}}, false},
	} {
		tx := transaction{settings: &Settings{JunkScore: func(relay.Address) (float64, bool) { return c.threshold, c.threshold != 0 }}}
		if got := tx.isJunk(ann, c.all); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// TestEdited: what filters want of a header is done to the fields as they stood, and to nothing else.
func TestEdited(t *testing.T) {
	t.Parallel()
	const letter = "A: 1\r\nno field\r\na : 2\r\n\tfolded\r\nX-Forged: x\r\nSubject: old\r\nA: 3\r\n\r\nA: body\r\n"
	forged := func(name string) bool { return name == "x-forged" }
	none := func(string) bool { return false }
	for _, c := range []struct {
		name     string
		changes  []filter.Edit
		unwanted func(string) bool
		want     string
	}{
		{"nothing", nil, none, letter},
		{"forged", nil, forged, strings.Replace(letter, "X-Forged: x\r\n", "", 1)},
		{"one removed", []filter.Edit{{Op: filter.Remove, Name: "a", Index: 2}}, none, strings.Replace(letter, "a : 2\r\n\tfolded\r\n", "", 1)},
		{"all removed", []filter.Edit{{Op: filter.Remove, Name: "A"}}, none, "no field\r\nX-Forged: x\r\nSubject: old\r\n\r\nA: body\r\n"},
		{"two, by where they stood", []filter.Edit{{Op: filter.Remove, Name: "A", Index: 1}, {Op: filter.Change, Name: "A", Index: 3, Value: "4\r\n 5"}}, forged,
			"no field\r\na : 2\r\n\tfolded\r\nSubject: old\r\nA: 4\r\n 5\r\n\r\nA: body\r\n"},
		{"the last word", []filter.Edit{{Op: filter.Change, Name: "Subject", Index: 1, Value: "one"}, {Op: filter.Change, Name: "Subject", Index: 1, Value: "two"}}, none,
			strings.Replace(letter, "Subject: old", "Subject: two", 1)},
		{"what is not there", []filter.Edit{{Op: filter.Remove, Name: "A", Index: 4}, {Op: filter.Remove, Name: "B"}}, none, letter},
	} {
		for _, room := range []int{4096, len(letter) - 8} { // in one piece, and with the end of the body in rest or to come
			h, more, err := readHeader(strings.NewReader(letter), make([]byte, 0, room), func() bool { return true })
			if err != nil {
				t.Fatal(err)
			}
			got := h.edited(c.changes, c.unwanted)
			text := string(got.raw) + string(got.rest)
			if more {
				text += letter[len(h.raw):]
			}
			if text != c.want || !got.whole || !bytes.HasSuffix(got.raw[:got.end], []byte("\r\n")) {
				t.Errorf("%s: %q, want %q", c.name, text, c.want)
			}
		}
	}
	h, _, _ := readHeader(strings.NewReader("X-Forged: x\r\n\r\nbody"), make([]byte, 0, 4096), func() bool { return true })
	if h = h.edited(nil, forged); string(h.raw)+string(h.rest) != "\r\nbody" || h.end != 0 {
		t.Errorf("%q %q", h.raw, h.rest)
	}
}
