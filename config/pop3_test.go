package config_test

import (
	"testing"
	"time"

	"relayd/config"
	"relayd/pop3"
)

// The languages of the file are those pop3 speaks, and a delay may be off.
func TestPOP3(t *testing.T) {
	t.Parallel()
	const start = "hostname = \"mail.office.example\"\n[pop3]\n"
	for _, tag := range pop3.Languages() {
		if got := parse(t, start+"language = \""+tag+"\"\n").POP3.Language; got != tag {
			t.Errorf("language %s: %q", tag, got)
		}
	}
	for text, want := range map[string]time.Duration{"off": 0, "90s": 90 * time.Second} {
		if got := parse(t, start+"login_delay = \""+text+"\"\n").POP3; got != (config.POP3{IdleTimeout: 10 * time.Minute, LoginDelay: want, Language: "en"}) {
			t.Errorf("login_delay %s: %+v", text, got)
		}
	}
}
