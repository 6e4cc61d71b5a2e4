package mx

import (
	"testing"

	"relayd/relay"
)

// TestJudge is the policy, as one table.
func TestJudge(t *testing.T) {
	tests := []struct {
		phase phase
		reply string
		want  verdict
	}{
		{phaseGreeting, "421", hostTrouble},
		{phaseGreeting, "450", hostTrouble},
		{phaseGreeting, "554 5.7.1", hostTrouble},
		{phaseGreeting, "250", hostTrouble},
		{phaseEHLO, "550 5.7.1", hostTrouble},
		{phaseEHLO, "421", hostTrouble},
		{phaseHELO, "504", hostTrouble},
		{phaseSTARTTLS, "421", hostTrouble},
		{phaseSTARTTLS, "554", hostTrouble},
		{phaseRSET, "550", hostTrouble},

		{phaseMAIL, "421", hostTrouble},
		{phaseMAIL, "450", messageLater},
		{phaseMAIL, "451 4.7.1", messageLater},
		{phaseMAIL, "452 4.3.1", messageLater},
		{phaseMAIL, "550 5.7.1", messageFailed},
		{phaseMAIL, "552 5.3.4", messageFailed},
		{phaseMAIL, "553", messageFailed},
		{phaseMAIL, "555", messageFailed},
		{phaseMAIL, "500", hostTrouble},
		{phaseMAIL, "503 5.5.1", hostTrouble},
		{phaseMAIL, "503 5.7.1", messageFailed},
		{phaseMAIL, "530 5.7.0", hostTrouble},
		{phaseMAIL, "535 5.7.8", hostTrouble},
		{phaseMAIL, "354", hostTrouble},

		{phaseRCPT, "421", hostTrouble},
		{phaseRCPT, "450 4.2.0", rcptLater},
		{phaseRCPT, "451", rcptLater},
		{phaseRCPT, "452 4.2.2", rcptLater},
		{phaseRCPT, "550 5.1.1", rcptFailed},
		{phaseRCPT, "551", rcptFailed},
		{phaseRCPT, "552 5.2.2", rcptFailed},
		{phaseRCPT, "553", rcptFailed},
		{phaseRCPT, "554 5.7.1", rcptFailed},
		{phaseRCPT, "556 5.1.10", rcptFailed},
		{phaseRCPT, "501 5.1.3", rcptFailed},
		{phaseRCPT, "500", hostTrouble},
		{phaseRCPT, "502", hostTrouble},
		{phaseRCPT, "503", hostTrouble},
		{phaseRCPT, "500 5.7.1", rcptFailed},
		{phaseRCPT, "530", hostTrouble},
		{phaseRCPT, "354", hostTrouble},

		{phaseDATA, "421", hostTrouble},
		{phaseDATA, "451", messageLater},
		{phaseDATA, "554 5.7.1", messageFailed},
		{phaseDATA, "503", hostTrouble},
		{phaseDATA, "250", hostTrouble},

		{phaseEnd, "250", delivered},
		{phaseEnd, "251", delivered},
		{phaseEnd, "354", hostUncertain},
		{phaseEnd, "421", hostTrouble},
		{phaseEnd, "451", messageLater},
		{phaseEnd, "452 4.3.1", messageLater},
		{phaseEnd, "550 5.7.1", messageFailed},
		{phaseEnd, "552 5.3.4", messageFailed},
		{phaseEnd, "554", messageFailed},
		{phaseEnd, "500", hostTrouble},
		{phaseEnd, "502 5.5.1", hostTrouble},
	}
	for _, tt := range tests {
		a := answer{code: code(tt.reply), lines: []string{tt.reply[3:]}}
		if len(tt.reply) > 4 {
			a.lines[0] = tt.reply[4:]
		}
		if got := judge(tt.phase, a.reply()); got != tt.want {
			t.Errorf("%s at %s: %+v, want %+v", tt.reply, tt.phase, got, tt.want)
		}
	}
	for p := phaseConnect; p <= phaseQUIT; p++ {
		want := hostTrouble
		if p == phaseEnd {
			want = hostUncertain
		}
		if got := judgeLoss(p); got != want {
			t.Errorf("lost at %s: %+v", p, got)
		}
	}
}

// TestJudgeEverything: only a 5xx to the letter or a recipient fails it, only a 2xx to the end
// of the data delivers it, and whatever has a temporary verdict stays temporary.
func TestJudgeEverything(t *testing.T) {
	for p := phaseConnect; p <= phaseQUIT; p++ {
		for code := 200; code < 600; code++ {
			v := judge(p, relay.Reply{Code: code})
			if v.Outcome == relay.Failed && (code < 500 || p < phaseMAIL || v.Scope == relay.ScopeHost) ||
				v.Outcome == relay.Delivered && (code >= 300 || p != phaseEnd) ||
				v.Scope == relay.ScopeRecipient && p != phaseRCPT ||
				v.Next && v.Outcome != relay.Deferred {
				t.Errorf("%d at %s: %+v", code, p, v)
			}
		}
	}
}

func TestTooMany(t *testing.T) {
	for reply, want := range map[relay.Reply]bool{
		{Code: 452}: true, {Code: 552}: true, {Code: 452, Status: status("4.5.3")}: true,
		{Code: 452, Status: status("4.2.2")}: false, {Code: 552, Status: status("5.2.2")}: false,
		{Code: 452, Status: status("4.3.1")}: false, {Code: 450}: false, {Code: 550, Status: status("5.5.3")}: false,
	} {
		if tooMany(reply) != want {
			t.Errorf("%v: %v", reply, !want)
		}
	}
}
