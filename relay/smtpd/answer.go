package smtpd

import (
	"context"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"relayd/relay"
	"relayd/relay/listen"
)

// settle passes on the answer to the command in flight and keeps account of it.
func (g *guard) settle() {
	v := g.inFlight
	if v == "" {
		return
	}
	r := g.answered()
	g.inFlight, g.heard, g.answer = "", g.heard[:0], nil
	if cap(g.heard) > 1<<10 {
		g.heard = nil
	}
	if g.dead != "" {
		return
	}
	if r.Code == 334 {
		g.inFlight = verbAuthData
	}
	g.account(v, r)
	g.send(v, r)
	if v == verbQUIT && r.OK() {
		g.hangup("quit")
	}
}

// answered is our own answer where the session gave one, and otherwise go-smtp's.
func (g *guard) answered() relay.Reply {
	if g.answer != nil {
		return *g.answer
	}
	return parseEngineReply(g.heard)
}

// parseEngineReply reads the last line of what go-smtp said.
func parseEngineReply(heard []byte) relay.Reply {
	text := strings.TrimRight(string(heard), "\r\n")
	text = text[strings.LastIndexByte(text, '\n')+1:]
	if len(text) < 4 {
		return replyBroken
	}
	code, err := strconv.Atoi(text[:3])
	if err != nil {
		return replyBroken
	}
	r := relay.Reply{Code: code, Text: text[4:]}
	first, rest, _ := strings.Cut(r.Text, " ")
	if s, ok := relay.ParseStatus(first); ok {
		r.Status, r.Text = s, rest
	}
	return r
}

// account follows the session's state by what was answered.
func (g *guard) account(v verb, r relay.Reply) {
	ok := r.OK()
	switch {
	case (v == verbEHLO || v == verbHELO) && ok:
		g.hello = v
	case g.letter == nil && v == verbRCPT:
		// A panic took the letter with it.
	case v == verbRCPT && ok:
		g.letter.rcpts++
	case v == verbRCPT:
		g.letter.refused++
		if r.Permanent() {
			g.badRcpts++
		}
	case (v == verbDATA || v == verbBDAT) && ok:
		g.errors, g.badRcpts, g.chatter = 0, 0, 0
	}
}

// send writes the answer to a command of go-smtp's, and ends the session where it must end.
func (g *guard) send(v verb, r relay.Reply) {
	switch {
	case v == verbEHLO && r.OK():
		r = g.greeting()
	case v == verbHELO && r.OK():
		r = relay.Reply{Code: 250, Text: string(g.srv.hostname)}
	case v == verbNOOP && r.OK(), v == verbRSET && r.OK():
		r = replyOK
	case v == verbQUIT && r.OK():
		r = say(221, "2.0.0", string(g.srv.hostname)+" says goodbye")
	}
	g.reply(r)
	switch {
	case g.dead != "":
	case g.badRcpts > g.set.limits.BadRecipients:
		g.part(replyErrors, "too many refused recipients")
	case g.errors > g.set.limits.Errors:
		g.part(replyErrors, "too many errors")
	case g.failures >= g.set.limits.AuthFailures:
		g.part(replyLogins, "too many failed logins")
	}
}

// greeting is the answer to EHLO: what we offer, to this client, now.
func (g *guard) greeting() relay.Reply {
	l := g.set.limits
	lines := []string{
		string(g.srv.hostname), "PIPELINING", "SIZE " + strconv.FormatInt(l.MessageSize, 10), "8BITMIME", "CHUNKING",
		"ENHANCEDSTATUSCODES", "SMTPUTF8",
	}
	if g.offersDSN() {
		lines = append(lines, "DSN", "DELIVERBY", "BINARYMIME")
	}
	if g.offersFuture() {
		lines = append(lines, "FUTURERELEASE "+strconv.Itoa(int(relay.MaxFuture/time.Second))+" "+
			time.Now().Add(relay.MaxFuture).UTC().Format(time.RFC3339))
	}
	if g.secure != nil {
		lines = append(lines, "REQUIRETLS") // RFC 8689 §2: under TLS alone
	}
	lines = append(lines, "LIMITS RCPTMAX="+strconv.Itoa(l.Recipients))
	if g.secure == nil && g.set.tls != nil {
		lines = append(lines, "STARTTLS")
	}
	if g.mayLogIn() {
		names := strings.Join(g.logins().Mechanisms(), " ")
		lines = append(lines, "AUTH "+names)
		if g.set.profile.Lenient {
			lines = append(lines, "AUTH="+names) // what was written before RFC 2554 looks for
		}
	}
	return relay.Reply{Code: 250, Text: strings.Join(lines, "\n")}
}

// offer is what the parameters of MAIL and RCPT are understood by.
func (g *guard) offer() offer {
	return offer{maxSize: g.set.limits.MessageSize, auth: g.srv.auth != nil, dsn: g.offersDSN(), requireTLS: g.secure != nil, future: g.offersFuture(), now: time.Now()}
}

// offersDSN says whether the client may ask for reports (RFC 3461): our own people and machines may,
// and on the submission ports nobody else gets as far as MAIL. A stranger may not, because the sender
// he names may be anybody, and a report would go there; his own server then tells him that his letter
// was relayed (§5.2.2).
func (g *guard) offersDSN() bool {
	return g.trusted() || g.user != "" || strings.HasPrefix(g.srv.service, "submission")
}

// offersFuture says whether the client may submit a letter that leaves later (RFC 4865): a person may,
// whose login says whose letter waits here.
func (g *guard) offersFuture() bool {
	return g.user != "" || strings.HasPrefix(g.srv.service, "submission")
}

// mayLogIn says whether AUTH is offered: never where others could listen.
func (g *guard) mayLogIn() bool {
	return g.takesLogins() && g.hidden() && g.user == ""
}

// hidden says whether a password may cross the line: under TLS, or where the operator says so.
func (g *guard) hidden() bool {
	p := &g.set.profile
	return g.secure != nil || p.PlaintextAuth || p.PlaintextFrom != nil && p.PlaintextFrom(g.peer.client.Addr())
}

func (g *guard) takesLogins() bool { return g.srv.auth != nil && !g.set.profile.NoLogin }

// reply queues a reply for the client; a 421 ends the session (RFC 5321 §3.8).
func (g *guard) reply(r relay.Reply) {
	if g.dead != "" {
		return
	}
	if g.log.Enabled(context.Background(), slog.LevelDebug) {
		g.log.Debug("reply", "client", g.peer.client, "code", r.Code, "text", r.String())
	}
	g.witness(r)
	g.out = appendReply(g.out, r, g.letter != nil && g.letter.utf8)
	if r.Code == 421 {
		g.hangup("421 " + r.Text)
		return
	}
	if len(g.out) > maxHeldReplies {
		if err := g.flush(); err != nil {
			g.lose(err)
		}
	}
}

// complain answers a wrong command; too many end the session.
func (g *guard) complain(r relay.Reply) {
	g.errors++
	g.reply(r)
	if g.dead == "" && g.errors > g.set.limits.Errors {
		g.part(replyErrors, "too many errors")
	}
}

// chat counts a command that brings no letter on, such as NOOP, RSET or one recipient too many.
// false: it was one too many itself, and the session is over. A client may say such things as often
// as it likes for an hour or two; only a flood of them gets so far without a letter.
func (g *guard) chat() bool {
	g.chatter++
	if g.chatter > g.set.limits.Chatter {
		g.part(replyChatter, "too many commands without a letter")
	}
	return g.dead == ""
}

// part takes leave with a 421 and closes the connection.
func (g *guard) part(r relay.Reply, reason string) {
	if g.dead != "" {
		return
	}
	if g.words != "" {
		// Otherwise it only sums up what has been noted before.
		g.witness(r)
	}
	g.out = appendReply(g.out, r, false)
	g.log.Info("refused", "client", g.peer.client, "helo", g.peer.helo, "user", g.user, "code", r.Code, "reason", reason)
	g.hangup(reason)
}

// hangup writes what is owed and closes.
func (g *guard) hangup(reason string) {
	if g.dead != "" {
		return
	}
	g.dead = reason
	g.feed = ""
	if g.flush() == nil {
		listen.Linger(g.conn, g.in)
	}
	g.kill()
}
