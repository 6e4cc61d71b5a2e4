package filter

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"relayd/relay"
)

// rspamdReply is what we understand of the answer to /checkv2.
type rspamdReply struct {
	Action   string  `json:"action"`
	Score    float64 `json:"score"`
	Required float64 `json:"required_score"`
	Skipped  bool    `json:"is_skipped"`
	Symbols  map[string]struct {
		Score float64 `json:"score"`
	} `json:"symbols"`
	Messages map[string]any `json:"messages"`
	Milter   struct {
		Add    map[string]added `json:"add_headers"`
		Remove map[string]any   `json:"remove_headers"`
	} `json:"milter"`
}

// added is one entry of add_headers: a text, an object with a value, or a list of either.
type added []string

const maxCopies = 20 // of one field

func (a *added) UnmarshalJSON(b []byte) error {
	var list []json.RawMessage
	if json.Unmarshal(b, &list) != nil {
		list = []json.RawMessage{b}
	}
	for _, one := range list[:min(len(list), maxCopies)] {
		var text string
		if json.Unmarshal(one, &text) == nil {
			*a = append(*a, text)
			continue
		}
		var object struct {
			Value string `json:"value"`
		}
		if json.Unmarshal(one, &object) == nil {
			*a = append(*a, object.Value)
		}
	}
	return nil
}

// readRspamd reads an answer; whatever has no action is none.
func readRspamd(text []byte) (*rspamdReply, error) {
	var r rspamdReply
	if err := json.Unmarshal(bytes.TrimSpace(text), &r); err != nil {
		return nil, fmt.Errorf("its answer cannot be read: %w", err)
	}
	if r.Action == "" && !r.Skipped {
		return nil, fmt.Errorf("its answer has no action")
	}
	// What it decides without looking at everything counts as skipped too, GTUBE for one.
	r.Skipped = r.Skipped && (r.Action == "" || r.Action == "no action")
	return &r, nil
}

// verdict is what follows from an answer. Whether a letter waits for greylisting is not said here.
func (r *rspamdReply) verdict() Verdict {
	v := Verdict{Score: r.Score, Scored: !r.Skipped, Detail: r.symbols(1000)}
	v.Word = fmt.Sprintf("%s/%.2f", word(cmp.Or(r.Action, "skipped")), r.Score)
	said, _ := r.Messages["smtp_message"].(string)
	switch r.Action {
	case "reject":
		v.Action = Reject
		v.Reply = relay.Reply{Code: 550, Status: relay.Status{5, 7, 1}, Text: sentence(said, "the message looks like spam")}
	case "soft reject":
		v.Action = Defer
		v.Reply = relay.Reply{Code: 451, Status: relay.Status{4, 7, 1}, Text: sentence(said, "please try again later")}
	case "add header", "rewrite subject":
		v.Action = Junk
	case "quarantine", "discard":
		v.Action = Quarantine
	}
	v.Edits = r.edits(v.Action >= Junk && v.Action != Defer)
	return v
}

// edits are the fields rspamd wants and ours, where it does not write the same.
func (r *rspamdReply) edits(spam bool) []Edit {
	var e edits
	for _, name := range slices.Sorted(maps.Keys(r.Milter.Remove)) {
		switch n := r.Milter.Remove[name].(type) {
		case float64:
			if n >= 0 && n == math.Trunc(n) && n < 1000 {
				e.add(Remove, name, "", int(n))
			}
		default:
			e.add(Remove, name, "", 0)
		}
	}
	given := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(r.Milter.Add)) {
		given[strings.ToLower(name)] = true
		for _, value := range r.Milter.Add[name] {
			e.add(Add, name, value, 0)
		}
	}
	answer := "No"
	if spam {
		answer = "Yes"
	}
	for _, own := range []struct{ name, value string }{
		{"X-Spam", answer},
		{"X-Spam-Score", fmt.Sprintf("%.2f", r.Score)},
		{"X-Spam-Status", fmt.Sprintf("%s, score=%.2f required=%.2f\ntests=[%s]", answer, r.Score, r.Required, r.symbols(2000))},
	} {
		if !given[strings.ToLower(own.name)] && (own.name != "X-Spam" || spam) && !r.Skipped {
			e.add(Add, own.name, own.value, 0)
		}
	}
	return e.list
}

// symbols names what was found, the weightiest first, in at most so many octets.
func (r *rspamdReply) symbols(most int) string {
	names := slices.SortedFunc(maps.Keys(r.Symbols), func(a, b string) int {
		return cmp.Or(cmp.Compare(math.Abs(r.Symbols[b].Score), math.Abs(r.Symbols[a].Score)), cmp.Compare(a, b))
	})
	var b strings.Builder
	for _, name := range names {
		s := fmt.Sprintf("%s(%.2f)", word(name), r.Symbols[name].Score)
		if b.Len()+2+len(s) > most {
			break
		}
		if b.Len() > 0 {
			b.WriteString(", ")
		}
		b.WriteString(s)
	}
	return b.String()
}
