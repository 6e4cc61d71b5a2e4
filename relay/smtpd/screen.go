package smtpd

import (
	"errors"
	"net"
	"net/netip"
	"time"

	"relayd/relay"
)

// Screen watches strangers for what no mail server does; *gate.Gate. Trusted clients are not its
// business, and services whose clients log in have none.
type Screen interface {
	// Visit is told of a connection, and says how long the greeting waits for the client to talk out
	// of turn, or with which reply there is none.
	Visit(client netip.Addr) (wait time.Duration, refusal *relay.Reply)
	// Breach is told of a rule that the client broke, "early", "http" or "pipelining", and says with
	// which reply we hang up; nil: the client may go on.
	Breach(client netip.Addr, rule string) *relay.Reply
}

// The rules of a Screen.
const (
	ruleEarly      = "early"
	ruleHTTP       = "http"
	rulePipelining = "pipelining"
)

// visit presents the client to the Screen, unless it is one of ours.
func (g *guard) visit() (refusal *relay.Reply) {
	if g.srv.screen == nil || g.trusted() {
		return nil
	}
	g.watched = true
	g.wait, refusal = g.srv.screen.Visit(g.peer.client.Addr())
	return refusal
}

// awaitSilence gives the client the time to talk before the greeting, which a mail server waits for
// (RFC 5321 §3.1), and programs that only blurt out what they have do not.
func (g *guard) awaitSilence() {
	err := g.fill(time.Now().Add(g.wait), true)
	ne, isNet := errors.AsType[net.Error](err)
	switch {
	case err == nil:
		// TLS and HTTP have words of their own.
		if v, _ := splitCommand(g.window()); g.window()[0] != tlsHandshake && !isHTTP(v) {
			g.breach(ruleEarly)
		}
	case isNet && ne.Timeout():
	default:
		g.lose(err)
	}
}

// outOfTurn says whether the client has sent more behind a command that has to be the last of its
// group (RFC 2920 §3.1), or before it knew that it may send groups. Replies wait until we have to wait
// for the client, so what is here by now was sent without their being read.
func (g *guard) outOfTurn(v verb) bool {
	if len(g.window()) == 0 || isHTTP(v) {
		return false
	}
	switch v {
	case verbEHLO, verbHELO, verbDATA:
		return true
	case verbQUIT:
		return false
	}
	return g.hello != verbEHLO
}

// breach reports a rule that was broken, and hangs up if that is what follows. false: the client goes
// on, and is not reported again.
func (g *guard) breach(rule string) bool {
	g.watched = false
	reply := g.srv.screen.Breach(g.peer.client.Addr(), rule)
	if reply == nil {
		return false
	}
	g.part(*reply, "the rule "+rule+" of the gate")
	return true
}

// notHTTP hangs up: whatever follows is a page or a form somebody made a browser send.
func (g *guard) notHTTP() {
	if !g.watched || !g.breach(ruleHTTP) {
		g.part(replyNotHTTP, "HTTP")
	}
}
