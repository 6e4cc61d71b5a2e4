package smtpd

import (
	"context"
	"encoding/base64"
	"log/slog"
	"strings"

	"relayd/relay"
)

var replyBadAuth = say(501, "5.5.2", "the login is malformed")

// dispatch takes one command: it answers it, or makes of it what go-smtp is to read.
func (g *guard) dispatch(line []byte) {
	if g.inFlight == verbAuthData {
		g.authData(string(line))
		return
	}
	v, arg := splitCommand(line)
	if mech, ok := strings.CutPrefix(string(v), "AUTH="); ok && g.set.profile.Lenient {
		v, arg = verbAUTH, strings.TrimSpace(mech+" "+arg)
	}
	g.logCommand(v, arg)
	if g.watched && g.outOfTurn(v) && g.breach(rulePipelining) {
		return
	}
	if refusal := g.outOfPlace(v, arg); refusal != nil {
		g.complain(*refusal)
		return
	}
	if isChatter(v) && !g.chat() {
		return
	}
	switch v {
	case verbEHLO, verbHELO:
		g.handleHello(v, arg)
	case verbMAIL:
		g.handleMail(arg)
	case verbRCPT:
		g.handleRcpt(arg)
	case verbBDAT:
		g.handleBdat(arg)
	case verbAUTH:
		g.handleAuth(arg)
	case verbSTARTTLS:
		g.handleStartTLS()
	case verbVRFY:
		g.handleVrfy(arg)
	case verbHELP:
		g.reply(say(214, "2.0.0", "EHLO HELO MAIL RCPT DATA BDAT RSET NOOP VRFY AUTH STARTTLS HELP QUIT\nrelayd, see RFC 5321"))
	case verbDATA, verbRSET, verbNOOP, verbQUIT:
		g.pass(v, string(v)+"\r\n")
	default:
		g.handleUnknown(v)
	}
}

// isChatter says whether a command is right and brings no letter on.
func isChatter(v verb) bool {
	switch v {
	case verbEHLO, verbHELO, verbRSET, verbNOOP, verbVRFY, verbHELP:
		return true
	}
	return false
}

// logCommand never shows what stands behind AUTH, nor what is no command: a client that goes on
// with a login that was refused sends its password as one.
func (g *guard) logCommand(v verb, arg string) {
	if !g.log.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	switch v {
	case verbEHLO, verbHELO, verbMAIL, verbRCPT, verbBDAT, verbVRFY:
	case verbDATA, verbRSET, verbNOOP, verbQUIT, verbHELP, verbAUTH, verbSTARTTLS:
		arg = ""
	default:
		v, arg = "?", ""
	}
	g.log.Debug("command", "client", g.peer.client, "verb", string(v), "arg", arg)
}

// outOfPlace refuses a command where it does not belong, or nil.
func (g *guard) outOfPlace(v verb, arg string) *relay.Reply {
	switch v {
	case verbDATA, verbRSET, verbQUIT, verbSTARTTLS:
		if arg != "" {
			return &replyNoArgument
		}
	}
	switch v {
	case verbSTARTTLS:
		if g.letter != nil {
			return &replyNested
		}
	case verbMAIL, verbAUTH:
		if g.hello == "" {
			return &replyHello
		}
		if g.letter != nil {
			return &replyNested
		}
	case verbRCPT:
		if g.letter == nil {
			return &replyNoMail
		}
	case verbDATA:
		if g.letter != nil && g.letter.binary {
			return &replyNeedsBdat
		}
		return g.withoutRecipients()
	}
	return nil
}

func (g *guard) withoutRecipients() *relay.Reply {
	switch {
	case g.letter == nil:
		return &replyNoMail
	case g.letter.rcpts > 0:
		return nil
	case g.letter.refused > 0:
		// What a client that pipelines gets when none of its recipients was good (RFC 2920 §3.1).
		return &replyNoValidRcpt
	}
	return &replyNoRcpt
}

// pass lets go-smtp read a command; its answer is settled at the next Read.
func (g *guard) pass(v verb, feed string) {
	g.inFlight, g.feed = v, feed
}

func (g *guard) handleHello(v verb, arg string) {
	helo, _, _ := strings.Cut(arg, " ")
	if helo == "" && g.set.profile.Lenient {
		helo = literal(g.peer.client.Addr())
	}
	if helo == "" {
		g.complain(say(501, "5.5.4", "say who you are: "+string(v)+" your.host.name"))
		return
	}
	g.peer.helo = printable(helo)
	g.pass(v, string(v)+" x\r\n")
}

func (g *guard) handleMail(arg string) {
	m, refusal := parseMail(arg, g.offer())
	if refusal != nil {
		g.complain(*refusal)
		return
	}
	g.mail = m
	g.pass(verbMAIL, "MAIL FROM:<>\r\n")
}

func (g *guard) handleRcpt(arg string) {
	if g.letter.rcpts >= g.set.limits.Recipients {
		// Not an error of the client's: it sends the rest in another letter.
		if g.chat() {
			g.reply(tooManyRecipients(g.set.limits.Recipients))
		}
		return
	}
	rcpt, refusal := parseRcpt(arg, g.letter.utf8, g.offer())
	if refusal != nil {
		g.letter.refused++
		g.complain(*refusal)
		return
	}
	g.rcpt = rcpt
	g.lookAhead()
	g.pass(verbRCPT, "RCPT TO:<x@x>\r\n")
}

// handleBdat gives go-smtp a DATA command for the first chunk; the body reads the chunks.
func (g *guard) handleBdat(arg string) {
	c, ok := parseChunk(arg)
	if !ok {
		g.badChunk()
		return
	}
	if refusal := g.withoutRecipients(); refusal != nil {
		// The octets follow all the same.
		if g.swallow(c.size) {
			g.complain(*refusal)
		}
		return
	}
	g.chunk = c
	g.pass(verbBDAT, "DATA\r\n")
}

// badChunk ends the session: where the chunk ends cannot be known.
func (g *guard) badChunk() {
	g.reply(replyBadChunk)
	if g.dead == "" {
		g.hangup("malformed BDAT")
	}
}

// handleVrfy confirms mailboxes to trusted clients, and to nobody else (RFC 5321 §7.3).
func (g *guard) handleVrfy(arg string) {
	switch {
	case arg == "":
		g.complain(say(501, "5.5.4", "VRFY takes an address"))
		return
	case !g.trusted():
		g.reply(say(252, "2.0.0", "I cannot verify that, but will take mail for it and see"))
		return
	}
	addr, err := parseVrfy(arg)
	if err != nil {
		g.complain(badAddress(err, "5.1.3"))
		return
	}
	if err := g.srv.accept.Verify(g.srv.ctx, g.origin(false), addr); err != nil {
		g.reply(g.refusal(err))
		return
	}
	g.reply(say(250, "2.1.5", addr.Path()))
}

// parseVrfy reads an address, with or without its angle brackets, or a user name alone.
func parseVrfy(arg string) (relay.Address, error) {
	arg, _ = strings.CutSuffix(strings.TrimPrefix(arg, "<"), ">")
	if strings.Contains(arg, "@") {
		return relay.ParsePath("<"+arg+">", true)
	}
	a, err := relay.ParseAddress(arg+"@user.invalid", true)
	a.Domain = ""
	return a, err
}

func (g *guard) handleUnknown(v verb) {
	switch {
	case isHTTP(v):
		g.notHTTP()
	case v == "EXPN" || v == "SEND" || v == "SOML" || v == "SAML" || v == "TURN" || v == "ETRN":
		g.complain(replyNotHere)
	default:
		g.complain(replyNoCommand)
	}
}

// handleAuth checks what go-smtp answers wrongly and leaves the exchange to it (RFC 4954).
func (g *guard) handleAuth(arg string) {
	mech, initial, _ := strings.Cut(arg, " ")
	mech = strings.ToUpper(mech)
	if g.set.profile.Lenient && initial != "" {
		initial = lenientAuth(mech, initial)
	}
	switch {
	case !g.takesLogins():
		g.because("tried to log in, and logins are off here")
		g.complain(replyNotHere)
	case !g.hidden():
		g.because("tried to log in without TLS")
		g.complain(say(538, "5.7.11", "log in after STARTTLS only: others could read the password"))
	case g.user != "":
		g.complain(say(503, "5.5.1", "you are logged in already"))
	case !isBase64(initial) && initial != "=":
		g.complain(replyBadAuth)
	default:
		g.startLogin(mech, initial)
	}
}

func (g *guard) startLogin(mech, initial string) {
	if g.login = g.logins().Start(mech); g.login == nil {
		g.because("used AUTH %s: PLAIN and LOGIN are what there is", printable(mech[:min(len(mech), 20)]))
		g.complain(say(504, "5.5.4", "AUTH takes one of "+strings.Join(g.logins().Mechanisms(), " ")+" here"))
		return
	}
	g.pass(verbAUTH, strings.TrimSpace("AUTH "+mech+" "+initial)+"\r\n")
}

// authData passes on an answer to go-smtp's challenge.
func (g *guard) authData(line string) {
	if g.set.profile.Lenient && line != "*" {
		line, _ = padded(line)
	}
	switch {
	case line == "*":
		g.cancelAuth(say(501, "5.7.0", "the login was cancelled"))
	case !isBase64(line):
		g.cancelAuth(replyBadAuth)
	default:
		g.feed = line + "\r\n"
	}
}

// cancelAuth ends the exchange in go-smtp; the client hears why.
func (g *guard) cancelAuth(r relay.Reply) {
	g.errors++
	g.answer, g.feed = &r, "*\r\n"
}

func isBase64(s string) bool {
	_, err := base64.StdEncoding.DecodeString(s)
	return err == nil
}
