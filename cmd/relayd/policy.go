package main

import (
	"relayd/config"
	"relayd/relay"
	"relayd/relay/intake"
)

// policyRules is [policy] as the front door wants it.
func policyRules(cfg *config.Config) intake.Policy {
	modes := map[string]intake.Mode{
		config.PolicyOff: intake.PolicyOff, config.PolicyObserve: intake.PolicyObserve, config.PolicyEnforce: intake.PolicyEnforce,
	}
	return intake.Policy{Mode: modes[cfg.Policy.Mode], Except: cfg.Policy.Except, ReceivedSPF: cfg.Policy.ReceivedSPF}
}

// showsJunk says, by today's config, whether POP3 shows a mailbox's folder Junk.
func (h *house) showsJunk(mailbox relay.Address) bool { return h.config().Users[mailbox].JunkInPOP3 }
