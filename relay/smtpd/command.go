package smtpd

import (
	"bytes"
	"math"
	"strconv"
	"strings"
	"time"

	"relayd/relay"
)

// verb is a command's first word in upper case.
type verb string

// The commands the guard tells apart.
const (
	verbHELO     verb = "HELO"
	verbEHLO     verb = "EHLO"
	verbMAIL     verb = "MAIL"
	verbRCPT     verb = "RCPT"
	verbDATA     verb = "DATA"
	verbBDAT     verb = "BDAT"
	verbRSET     verb = "RSET"
	verbNOOP     verb = "NOOP"
	verbQUIT     verb = "QUIT"
	verbVRFY     verb = "VRFY"
	verbHELP     verb = "HELP"
	verbAUTH     verb = "AUTH"
	verbSTARTTLS verb = "STARTTLS"
)

// maxVerb is the longest first word we look at.
const maxVerb = 10

// splitCommand takes the verb from its argument. line has no line end.
func splitCommand(line []byte) (verb, string) {
	word, arg, _ := bytes.Cut(line, []byte(" "))
	if len(word) > maxVerb {
		return "?", ""
	}
	return verb(strings.ToUpper(string(word))), strings.Trim(string(arg), " \t")
}

// splitPath takes the path from the parameters of "FROM:<a@b> SIZE=1". The path may stand behind
// a space, and without its angle brackets, as small devices send it.
func splitPath(arg, keyword string) (path, params string, ok bool) {
	if len(arg) < len(keyword) || !strings.EqualFold(arg[:len(keyword)], keyword) {
		return "", "", false
	}
	arg = strings.TrimLeft(arg[len(keyword):], " ")
	if !strings.HasPrefix(arg, "<") {
		path, params, _ = strings.Cut(arg, " ")
		return "<" + path + ">", params, path != "" && !strings.ContainsAny(path, `<>"`)
	}
	end := pathEnd(arg)
	if end < 0 || end < len(arg) && arg[end] != ' ' {
		return "", "", false
	}
	return arg[:end], arg[end:], true
}

// pathEnd is where the path ends: behind the first > that is not within quotes.
func pathEnd(s string) int {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case quoted && s[i] == '\\':
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == '>' && !quoted:
			return i + 1
		}
	}
	return -1
}

// param is one ESMTP parameter (RFC 5321 §4.1.2).
type param struct{ key, value string }

// splitParams reads the parameters behind a path; false where one is malformed or comes twice.
func splitParams(s string) ([]param, bool) {
	var all []param
	for word := range strings.FieldsSeq(s) {
		key, value, hasValue := strings.Cut(word, "=")
		p := param{strings.ToUpper(key), value}
		if !isKeyword(p.key) || hasValue && !isValue(value) {
			return nil, false
		}
		for _, have := range all {
			if have.key == p.key {
				return nil, false
			}
		}
		all = append(all, p)
	}
	return all, true
}

func isKeyword(s string) bool {
	for i := range len(s) {
		if c := s[i]; !(c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' && i > 0) {
			return false
		}
	}
	return s != ""
}

func isValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c == '=' || c == 0x7f {
			return false
		}
	}
	return s != ""
}

// mailCommand is a MAIL command that was understood.
type mailCommand struct {
	from   relay.Address
	params relay.MailParams
}

// offer is what the server offers a client, and what its parameters are therefore understood.
type offer struct {
	maxSize int64
	auth    bool
	dsn     bool // and DELIVERBY, and BINARYMIME

	requireTLS bool
	future     bool
	now        time.Time
}

// parseMail reads the argument of MAIL. Where it refuses, the reply says why.
func parseMail(arg string, o offer) (m mailCommand, refusal *relay.Reply) {
	path, rest, ok := splitPath(arg, "FROM:")
	if !ok {
		return m, ptr(say(501, "5.5.4", "the form is MAIL FROM:<address>"))
	}
	params, ok := splitParams(rest)
	if !ok {
		return m, ptr(say(501, "5.5.4", "the parameters of MAIL are malformed"))
	}
	for _, p := range params {
		if refusal := m.param(p, o); refusal != nil {
			return m, refusal
		}
	}
	from, err := relay.ParsePath(path, m.params.UTF8)
	if err != nil {
		return m, ptr(badAddress(err, "5.1.7"))
	}
	if from.Domain == "" && !from.IsNull() {
		return m, ptr(say(553, "5.1.7", "a sender needs a domain"))
	}
	if m.params.By.Return && m.params.By.At.Before(m.params.Release) {
		return m, ptr(say(501, "5.5.4", "BY returns the letter before HOLDFOR or HOLDUNTIL lets it go"))
	}
	m.from = from
	return m, nil
}

func (m *mailCommand) param(p param, o offer) *relay.Reply {
	switch {
	case p.key == "SIZE":
		size, ok := parseSize(p.value)
		if !ok {
			return &replyBadSize
		}
		if size > o.maxSize {
			return &replyTooLarge
		}
		m.params.Size = size
	case p.key == "BODY":
		switch strings.ToUpper(p.value) {
		case "7BIT":
		case "8BITMIME":
			m.params.Body8Bit = true
		case "BINARYMIME":
			if m.params.Binary = o.dsn; o.dsn {
				return nil
			}
			fallthrough
		default:
			return ptr(say(501, "5.5.4", "BODY is 7BIT or 8BITMIME here"))
		}
	case p.key == "SMTPUTF8" && p.value == "":
		m.params.UTF8 = true
	case o.requireTLS && p.key == "REQUIRETLS" && p.value == "":
		m.params.RequireTLS = true
	case p.key == "AUTH" && o.auth && p.value != "":
		// RFC 4954 §5: who first submitted it. We trust no client to say so, which the RFC
		// allows: it is treated as AUTH=<>.
	case o.dsn && p.key == "BY":
		by, ok := relay.ParseDeliverBy(p.value, o.now)
		if !ok {
			return ptr(say(501, "5.5.4", "BY is seconds;R or seconds;N, and more than 0 with R"))
		}
		m.params.By = by
	case o.future && (p.key == "HOLDFOR" || p.key == "HOLDUNTIL"):
		return m.hold(p, o.now)
	case o.dsn && (p.key == "RET" || p.key == "ENVID"):
		return m.reports(p)
	default:
		return ptr(say(555, "5.5.4", "MAIL has no parameter "+p.key+" here"))
	}
	return nil
}

// hold reads when the letter may leave (RFC 4865 §4).
func (m *mailCommand) hold(p param, now time.Time) *relay.Reply {
	if !m.params.Release.IsZero() {
		return ptr(say(501, "5.5.4", "HOLDFOR and HOLDUNTIL contradict each other"))
	}
	ok := false
	if p.key == "HOLDFOR" {
		m.params.Release, ok = relay.ParseHoldFor(p.value, now)
	} else {
		m.params.Release, ok = relay.ParseHoldUntil(p.value)
	}
	switch {
	case !ok:
		return ptr(say(501, "5.5.4", "HOLDFOR is a number of seconds, HOLDUNTIL a time such as 2026-12-24T18:00:00Z"))
	case m.params.Release.Sub(now) > relay.MaxFuture:
		return ptr(say(501, "5.5.4", "a letter can be held for 30 days at most"))
	}
	return nil
}

// reports reads what MAIL says of reports (RFC 3461 §4.3 and §4.4).
func (m *mailCommand) reports(p param) *relay.Reply {
	if p.key == "ENVID" {
		id, ok := relay.ParseEnvID(p.value)
		if !ok {
			return ptr(say(501, "5.5.4", "ENVID is xtext of at most 100 characters"))
		}
		m.params.EnvID = id
		return nil
	}
	switch ret := relay.Ret(strings.ToUpper(p.value)); ret {
	case relay.RetFull, relay.RetHeaders:
		m.params.Ret = ret
		return nil
	}
	return ptr(say(501, "5.5.4", "RET is FULL or HDRS"))
}

// rcptCommand is a RCPT command that was understood.
type rcptCommand struct {
	to     relay.Address
	params relay.RcptParams
}

// parseRcpt reads the argument of RCPT.
func parseRcpt(arg string, utf8OK bool, o offer) (c rcptCommand, refusal *relay.Reply) {
	path, rest, ok := splitPath(arg, "TO:")
	if !ok {
		return c, ptr(say(501, "5.5.4", "the form is RCPT TO:<address>"))
	}
	params, ok := splitParams(rest)
	if !ok {
		return c, ptr(say(501, "5.5.4", "the parameters of RCPT are malformed"))
	}
	for _, p := range params {
		if refusal := c.param(p, utf8OK, o); refusal != nil {
			return c, refusal
		}
	}
	to, err := relay.ParsePath(path, utf8OK)
	if err != nil {
		return c, ptr(badAddress(err, "5.1.3"))
	}
	if to.IsNull() {
		return c, ptr(say(501, "5.1.3", "a recipient needs an address"))
	}
	c.to = to
	return c, nil
}

func (c *rcptCommand) param(p param, utf8OK bool, o offer) *relay.Reply {
	ok := true
	switch {
	case p.key == "NOTIFY" && o.dsn:
		if c.params.Notify, ok = relay.ParseNotify(p.value); !ok {
			return ptr(say(501, "5.5.4", "NOTIFY is NEVER, or some of SUCCESS,FAILURE,DELAY"))
		}
	case p.key == "ORCPT" && o.dsn:
		if c.params.ORcpt, ok = relay.ParseORcpt(p.value, utf8OK); !ok {
			return ptr(say(501, "5.5.4", "ORCPT is an address type, a semicolon and xtext, of at most 500 characters"))
		}
	default:
		return ptr(say(555, "5.5.4", "RCPT has no parameter "+p.key+" here"))
	}
	return nil
}

// parseSize reads 1 to 20 digits (RFC 1870 §4). What does not fit is only very large, not
// malformed.
func parseSize(s string) (int64, bool) {
	if len(s) == 0 || len(s) > 20 {
		return 0, false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return math.MaxInt64, true
	}
	return n, true
}

// chunk is the argument of one BDAT command (RFC 3030 §2).
type chunk struct {
	size int64
	last bool
}

func parseChunk(arg string) (chunk, bool) {
	words := strings.Fields(arg)
	if len(words) == 0 || len(words) > 2 || len(words) == 2 && !strings.EqualFold(words[1], "LAST") {
		return chunk{}, false
	}
	size, ok := parseSize(words[0])
	return chunk{size, len(words) == 2}, ok
}

func isHTTP(v verb) bool {
	switch v {
	case "GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "CONNECT", "TRACE", "PATCH", "PRI":
		return true
	}
	return false
}

func ptr[T any](v T) *T { return &v }
