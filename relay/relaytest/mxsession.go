package relaytest

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// mxSession is one connection to a scripted MX.
type mxSession struct {
	server *MXServer
	conn   net.Conn
	r      *bufio.Reader
	w      *bufio.Writer
	letter MXLetter
	inMail bool
	authed bool

	accepted bool // whether the last reply was a success
}

const mxBuffer = 64 << 10

func newMXSession(s *MXServer, c net.Conn) *mxSession {
	return &mxSession{server: s, conn: c, r: bufio.NewReaderSize(c, mxBuffer), w: bufio.NewWriterSize(c, mxBuffer)}
}

func (m *mxSession) run() {
	defer func() { m.w.Flush() }() // what was said before a drop still arrives
	script := m.server.current()
	if !m.stage("banner", fmt.Sprintf("220 %s ESMTP relaytest", script.host())) {
		return
	}
	for {
		line, err := m.line()
		if err != nil {
			return
		}
		m.server.heard(line)
		if !m.command(line) {
			return
		}
	}
}

// line flushes our replies once everything pipelined is read, and reads a command.
func (m *mxSession) line() (string, error) {
	if m.r.Buffered() == 0 {
		if err := m.w.Flush(); err != nil {
			return "", err
		}
	} else if m.server.current().without("pipelining") {
		m.server.violated("command sent ahead of a reply though PIPELINING is not offered")
	}
	b, err := m.r.ReadSlice('\n')
	if err != nil {
		return "", err
	}
	line, ok := strings.CutSuffix(string(b), "\r\n")
	if !ok {
		m.server.violated("command line ends in a bare LF: %q", b)
	}
	return line, nil
}

// command obeys one command line and says whether to go on.
func (m *mxSession) command(line string) bool {
	verb, rest, _ := strings.Cut(line, " ")
	switch verb = strings.ToUpper(verb); {
	case m.server.current().LMTP && (verb == "EHLO" || verb == "HELO"), !m.server.current().LMTP && verb == "LHLO":
		return m.say("500 5.5.1 another protocol")
	case verb == "LHLO":
		verb = "EHLO"
	}
	switch verb {
	case "EHLO":
		return m.ehlo(rest)
	case "HELO":
		m.letter = MXLetter{Helo: rest, TLS: m.letter.TLS}
		return m.stage("helo", "250 "+m.server.current().host())
	case "STARTTLS":
		return m.startTLS()
	case "AUTH":
		return m.auth(rest)
	case "MAIL":
		return m.mail(rest)
	case "RCPT":
		return m.rcpt(rest)
	case "DATA":
		return m.data()
	case "RSET":
		m.reset()
		return m.stage("rset", "250 2.0.0 ok")
	case "NOOP":
		return m.say("250 2.0.0 ok")
	case "QUIT":
		m.stage("quit", "221 2.0.0 bye")
		m.w.Flush()
		return false
	}
	return m.say("502 5.5.1 what?")
}

func (m *mxSession) reset() {
	m.inMail = false
	m.letter = MXLetter{Helo: m.letter.Helo, TLS: m.letter.TLS}
}

func (m *mxSession) ehlo(name string) bool {
	script := m.server.current()
	if script.without("ehlo") {
		return m.say("502 5.5.1 command not implemented")
	}
	m.reset()
	m.letter.Helo = name
	lines := []string{script.host()}
	for _, trait := range mxTraits[1:] {
		keyword := strings.ToUpper(trait)
		if trait == "size" {
			keyword = fmt.Sprintf("SIZE %d", script.Size)
		}
		if !script.without(trait) {
			lines = append(lines, keyword)
		}
	}
	if script.RequireTLS && m.letter.TLS {
		lines = append(lines, "REQUIRETLS")
	}
	if script.DSN {
		lines = append(lines, "DSN")
	}
	if script.DeliverBy {
		lines = append(lines, "DELIVERBY")
	}
	if script.StartTLS && !m.letter.TLS {
		lines = append(lines, "STARTTLS")
	}
	if script.Auth != "" && (m.letter.TLS || !script.StartTLS) {
		lines = append(lines, "AUTH PLAIN LOGIN")
	}
	return m.stage("ehlo", reply(250, strings.Join(lines, "\n")))
}

func (m *mxSession) startTLS() bool {
	if !m.server.current().StartTLS {
		return m.say("502 5.5.1 command not implemented")
	}
	if action, ok := m.server.act("starttls"); ok {
		return m.do(action, "220 2.0.0 go ahead")
	}
	if m.r.Buffered() > 0 {
		m.server.violated("octets pipelined behind STARTTLS")
	}
	m.say("220 2.0.0 go ahead")
	if m.w.Flush() != nil {
		return false
	}
	if action, ok := m.server.act("handshake"); ok && !m.do(action, "") {
		return false
	}
	c := tls.Server(m.conn, &tls.Config{Certificates: []tls.Certificate{m.server.certificate()}, MinVersion: tls.VersionTLS12})
	if c.Handshake() != nil {
		return false
	}
	m.r, m.w = bufio.NewReaderSize(c, mxBuffer), bufio.NewWriterSize(c, mxBuffer)
	m.letter = MXLetter{TLS: true}
	m.inMail = false
	return true
}

// auth knows PLAIN with an initial response (RFC 4954, RFC 4616).
func (m *mxSession) auth(rest string) bool {
	script := m.server.current()
	if script.Auth == "" || script.StartTLS && !m.letter.TLS {
		return m.say("503 5.5.1 not now")
	}
	mechanism, response, _ := strings.Cut(rest, " ")
	got, err := base64.StdEncoding.DecodeString(response)
	if !strings.EqualFold(mechanism, "PLAIN") || err != nil {
		return m.say("504 5.5.4 AUTH PLAIN with its response only")
	}
	if string(got) != "\x00"+script.Auth {
		return m.say("535 5.7.8 who is that?")
	}
	m.authed = true
	return m.say("235 2.7.0 hello")
}

func (m *mxSession) mail(rest string) bool {
	path, params, ok := splitPath(rest, "FROM:")
	script := m.server.current()
	switch {
	case script.Auth != "" && !m.authed:
		return m.say("530 5.7.0 log in first")
	case !ok:
		return m.say("501 5.5.4 syntax: MAIL FROM:<address>")
	case m.inMail:
		return m.say("503 5.5.1 nested MAIL")
	case m.letter.Helo == "":
		return m.say("503 5.5.1 say hello first")
	}
	for param := range strings.FieldsSeq(strings.ToUpper(params)) {
		if script.RequireTLS && m.letter.TLS && param == "REQUIRETLS" {
			continue
		}
		if script.DSN && (strings.HasPrefix(param, "RET=") || strings.HasPrefix(param, "ENVID=")) {
			continue
		}
		if script.DeliverBy && strings.HasPrefix(param, "BY=") {
			continue
		}
		trait := map[string]string{"SIZE": "size", "BODY": "8bitmime", "SMTPUTF8": "smtputf8"}[strings.Split(param, "=")[0]]
		if trait == "" || script.without(trait) || script.without("ehlo") {
			return m.say("555 5.5.4 parameter not offered: " + param)
		}
		if script.Size > 0 && announced(param) > script.Size {
			return m.say("552 5.3.4 too large")
		}
	}
	if !m.stage("mail", "250 2.1.0 ok", path) {
		return false
	}
	if m.accepted {
		m.letter.Mail = strings.TrimSpace(rest[len("FROM:"):])
		m.inMail = true
	}
	return true
}

// announced is the SIZE parameter in capital letters; 0 without one.
func announced(param string) int64 {
	n, _ := strconv.ParseInt(strings.TrimPrefix(param, "SIZE="), 10, 64)
	return n
}

func (m *mxSession) rcpt(rest string) bool {
	path, params, ok := splitPath(rest, "TO:")
	for param := range strings.FieldsSeq(strings.ToUpper(params)) {
		if !m.server.current().DSN || !strings.HasPrefix(param, "NOTIFY=") && !strings.HasPrefix(param, "ORCPT=") {
			return m.say("555 5.5.4 parameter not offered: " + param)
		}
	}
	switch {
	case !m.inMail:
		return m.say("503 5.5.1 MAIL first")
	case !ok || path == "":
		return m.say("501 5.5.4 syntax: RCPT TO:<address>")
	}
	if !m.stage("rcpt", "250 2.1.5 ok", path) {
		return false
	}
	if m.accepted {
		m.letter.Rcpts = append(m.letter.Rcpts, strings.TrimSpace(rest[len("TO:"):]))
	}
	return true
}

// stage lets the script answer at a stage, or gives the usual answer, and says whether to go on.
func (m *mxSession) stage(name, usual string, addresses ...string) bool {
	if action, ok := m.server.act(name, addresses...); ok {
		return m.do(action, usual)
	}
	return m.say(usual)
}

func (m *mxSession) do(a MXAction, usual string) bool {
	switch a.Kind {
	case "reply":
		m.say(reply(a.Code, a.Text))
		if a.Code == 421 {
			m.w.Flush()
			return false
		}
		return true
	case "stall":
		return m.stall(a.Delay) && m.say(usual)
	case "raw":
		m.accepted = strings.HasPrefix(a.Text, "2") || strings.HasPrefix(a.Text, "3")
		_, err := m.w.WriteString(a.Text)
		return err == nil
	case "flood":
		m.flood()
	}
	return false
}

// stall waits until the client or the server hangs up, or so long.
func (m *mxSession) stall(d time.Duration) bool {
	if m.w.Flush() != nil {
		return false
	}
	if d == 0 {
		_, _ = io.Copy(io.Discard, m.r)
		return false
	}
	select {
	case <-time.After(d):
		return true
	case <-m.server.quit:
		return false
	}
}

func (m *mxSession) flood() {
	for {
		if _, err := m.w.WriteString("250-" + strings.Repeat("and another thing ", 20) + "\r\n"); err != nil {
			return
		}
	}
}

// say puts a reply into the buffer; "" says nothing.
func (m *mxSession) say(text string) bool {
	if text == "" {
		return true
	}
	m.accepted = text[0] == '2' || text[0] == '3'
	_, err := m.w.WriteString(text + "\r\n")
	return err == nil
}

// reply formats one reply of one or more lines (RFC 5321 §4.2.1).
func reply(code int, text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		dash := "-"
		if i == len(lines)-1 {
			dash = " "
		}
		lines[i] = fmt.Sprintf("%03d%s%s", code, dash, line)
	}
	return strings.Join(lines, "\r\n")
}

// splitPath takes FROM:<a@b> PARAMS apart, the path without its brackets.
func splitPath(s, prefix string) (path, params string, ok bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return "", "", false
	}
	s = strings.TrimSpace(s[len(prefix):])
	if !strings.HasPrefix(s, "<") {
		return "", "", false
	}
	quoted := false
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '\\':
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == '>' && !quoted:
			return s[1:i], strings.TrimSpace(s[i+1:]), true
		}
	}
	return "", "", false
}
