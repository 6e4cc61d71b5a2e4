package config_test

import (
	"testing"
	"time"

	"relayd/pop3"
)

// The languages of the file are those pop3 speaks, a delay may be off, and removed letters are kept for two weeks.
func TestPOP3(t *testing.T) {
	t.Parallel()
	const start = "hostname = \"mail.office.example\"\n[pop3]\n"
	for _, tag := range pop3.Languages() {
		if got := parse(t, start+"language = \""+tag+"\"\n").POP3.Language; got != tag {
			t.Errorf("language %s: %q", tag, got)
		}
	}
	if got := parse(t, start).POP3.Undelete; got != 14*24*time.Hour {
		t.Errorf("undelete is %v where nothing is said", got)
	}
	for text, want := range map[string]time.Duration{"off": 0, "90s": 90 * time.Second} {
		if got := parse(t, start+"login_delay = \""+text+"\"\n").POP3; got.LoginDelay != want || got.IdleTimeout != 10*time.Minute {
			t.Errorf("login_delay %s: %+v", text, got)
		}
		if got := parse(t, start+"undelete = \""+text+"\"\n").POP3.Undelete; got != want {
			t.Errorf("undelete %s: %v", text, got)
		}
	}
}
