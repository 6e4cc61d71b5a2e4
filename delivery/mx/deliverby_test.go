package mx

import (
	"testing"
	"testing/synctest"
	"time"

	"relayd/relay"
)

// TestDeliverBy: a host that offers DELIVERBY is told what is left of the time; a letter that is to come
// back when it is late goes to no other host (RFC 2852 §4).
func TestDeliverBy(t *testing.T) {
	for name, tt := range map[string]struct {
		ext  string
		by   relay.DeliverBy // At from now on
		left time.Duration
		mail string // as it is said; "": the host gets no letter
	}{
		"told":         {"DELIVERBY", relay.DeliverBy{}, time.Hour, "MAIL FROM:<ann@office.example> BY=3600;N"},
		"told late":    {"DELIVERBY", relay.DeliverBy{Trace: true}, -time.Minute, "MAIL FROM:<ann@office.example> BY=-60;NT"},
		"returned":     {"DELIVERBY 60", relay.DeliverBy{Return: true}, time.Minute, "MAIL FROM:<ann@office.example> BY=60;R"},
		"too short":    {"DELIVERBY 60", relay.DeliverBy{Return: true}, 59 * time.Second, ""},
		"unknown":      {"HELP", relay.DeliverBy{}, time.Hour, "MAIL FROM:<ann@office.example>"},
		"not returned": {"HELP", relay.DeliverBy{Return: true}, time.Hour, ""},
		"none":         {"DELIVERBY", relay.DeliverBy{}, 0, "MAIL FROM:<ann@office.example>"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &remote{ext: []string{tt.ext}}
				env := envelope("bob@partner.example")
				if env.By = tt.by; tt.left != 0 {
					env.By.At = time.Now().Add(tt.left)
				}
				got := partner(r).send(t, env, hello)[0]
				if tt.mail == "" {
					if got.Outcome != relay.Failed || got.Reply.Status != (relay.Status{5, 3, 3}) || len(r.mails) != 0 {
						t.Errorf("%+v", got)
					}
					return
				}
				if got.Outcome != relay.Delivered || r.lines[1] != tt.mail {
					t.Errorf("%+v: %q, want %q", got, r.lines, tt.mail)
				}
			})
		})
	}
	// Another host of the domain may.
	synctest.Test(t, func(t *testing.T) {
		plain, able := &remote{}, &remote{ext: []string{"DELIVERBY"}}
		env := envelope("bob@partner.example")
		env.By = relay.DeliverBy{At: time.Now().Add(time.Hour), Return: true}
		if got := two(plain, able).send(t, env, hello)[0]; got.Outcome != relay.Delivered || len(plain.mails) != 0 || len(able.mails) != 1 {
			t.Errorf("%+v", got)
		}
	})
}
