package gate

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"relayd/relay"
)

// fate is what becomes of a letter by its score.
type fate int

const (
	deliver fate = iota
	junk
	refuse
)

// decide is the one place where a score has consequences.
func (r *Rules) decide(score int) fate {
	switch {
	case score >= r.Reject:
		return refuse
	case score >= r.Junk:
		return junk
	}
	return deliver
}

// matters says whether knowing most more points could change what decide says.
func (r *Rules) matters(most int) bool { return most >= min(r.Junk, r.Reject) }

// isPostmaster says whether a recipient hears everybody (RFC 5321 §4.5.1): whoever is refused can ask
// there.
func isPostmaster(to relay.Address) bool { return strings.EqualFold(to.Local, relay.Postmaster.Local) }

// reply is what the client hears that broke a rule. Whoever is refused for good may ask the
// postmaster, and is told where.
func (r *Rules) reply(rule Rule, client netip.Addr) relay.Reply {
	switch rule {
	case RuleConnections:
		return r.say(421, "4.7.0", "%s has opened more than %d connections within a minute: please use fewer and come back in a minute", network(client), r.Connections)
	case RuleEarly:
		return r.say(554, "5.5.1", "you talked before our greeting, which a mail server waits for (RFC 5321 section 3.1): mend the program at %s", client)
	case RuleHTTP:
		return r.say(421, "4.7.0", "this is a mail server, it does not speak HTTP: look for the website elsewhere")
	case RulePipelining:
		return r.say(554, "5.5.0", "you did not wait for an answer where a mail server has to (RFC 2920 section 3.1): mend the program at %s", client)
	case RuleLetters:
		return r.say(450, "4.7.1", "%s has sent %d letters within an hour, as many as we take: please try again later", network(client), r.Letters)
	}
	return r.say(450, "4.7.1", "please try again later")
}

// say is a refusal with words, and whom to ask about it.
func (r *Rules) say(code int, status, format string, args ...any) relay.Reply {
	s, _ := relay.ParseStatus(status)
	text := fmt.Sprintf(format, args...)
	if ask := "; questions to " + r.Postmaster; r.Postmaster != "" && len(text)+len(ask) <= maxWords {
		text += ask
	}
	return relay.Reply{Code: code, Status: s, Text: text}
}

// maxWords keeps a reply within its line (RFC 5321 §4.5.3.1.5).
const maxWords = 460

// refusal of a letter by its score: everything that is held against the client, the gravest first.
func (r *Rules) refusal(client netip.Addr, points []Point) relay.Reply {
	why := ""
	for _, p := range points {
		if p.Weight <= 0 {
			continue
		}
		if len(why)+len(p.Words) > maxReasons {
			why += ", and more"
			break
		}
		if why != "" {
			why += ", and "
		}
		why += p.Words
	}
	return r.say(550, "5.7.1", "mail from %s is not taken: %s; mend that, or write to the postmaster, who hears everybody", client, why)
}

// maxReasons leaves room for the rest of the sentence.
const maxReasons = 240

// notYet asks somebody unknown to come again.
func (r *Rules) notYet(wait time.Duration) relay.Reply {
	return r.say(451, "4.7.1", "we do not know this sender yet: nothing is wrong, please try again in %s, as mail servers do by themselves", roughly(wait))
}

// roughly is a time in words, rounded up.
func roughly(d time.Duration) string {
	n, unit := (d+time.Second-1)/time.Second, "second"
	if d > 2*time.Minute {
		n, unit = (d+time.Minute-1)/time.Minute, "minute"
	}
	if n = max(n, 1); n != 1 {
		unit += "s"
	}
	return fmt.Sprintf("%d %s", n, unit)
}

// describe is the score as the letter's header and the log have it: "6 (zen.example +5, helo +1)".
func describe(score int, points []Point) string {
	if len(points) == 0 {
		return ""
	}
	words := make([]string, len(points))
	for i, p := range points {
		words[i] = p.String()
	}
	return fmt.Sprintf("%d (%s)", score, strings.Join(words, ", "))
}
