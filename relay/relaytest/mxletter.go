package relaytest

import (
	"bufio"
	"bytes"
	"strings"
)

// data takes the letter of a transaction, from DATA to the answers after its end.
func (m *mxSession) data() bool {
	if len(m.letter.Rcpts) == 0 {
		return m.say("554 5.5.1 no valid recipients")
	}
	if !m.stage("data", "354 go ahead", m.addresses()...) {
		return false
	}
	if !m.accepted {
		return true
	}
	if m.w.Flush() != nil || !m.text() {
		return false
	}
	m.check()
	if m.server.current().LMTP {
		return m.endOfEach()
	}
	return m.endOfText()
}

// endOfEach lets the script decide for each recipient. Who is not refused has got the letter.
func (m *mxSession) endOfEach() bool {
	defer m.reset()
	all := m.letter.Rcpts
	m.letter.Rcpts = nil
	actions := map[int]MXAction{}
	for i, r := range all {
		path, _, _ := splitPath("TO:"+r, "TO:")
		action, ok := m.server.act("eom", path)
		if ok {
			actions[i] = action
		}
		if !ok || action.Kind == "reply" && action.Code/100 == 2 {
			m.letter.Rcpts = append(m.letter.Rcpts, r)
		}
	}
	if len(m.letter.Rcpts) > 0 {
		if err := m.server.keep(m.letter); err != nil {
			return m.say("451 4.3.0 " + err.Error())
		}
	}
	for i, r := range all {
		going := true
		if action, ok := actions[i]; ok {
			going = m.do(action, "")
		} else {
			going = m.say("250 2.0.0 " + r + " saved")
		}
		if !going {
			return false
		}
	}
	return true
}

// endOfText lets the script decide whether the letter is taken. Reset ends the transaction either way.
func (m *mxSession) endOfText() bool {
	defer m.reset()
	action, ok := m.server.act("eom", m.addresses()...)
	taken := !ok || action.Kind == "keep" || action.Kind == "reply" && action.Code/100 == 2
	if ok && action.Kind == "stall" {
		if taken = m.stall(action.Delay); !taken {
			return false
		}
		ok = false
	}
	if taken {
		if err := m.server.keep(m.letter); err != nil {
			return m.say("451 4.3.0 " + err.Error())
		}
	}
	if ok {
		return m.do(action, "")
	}
	return m.say("250 2.0.0 taken")
}

// text reads until CRLF.CRLF and nothing else.
func (m *mxSession) text() bool {
	atStart, first := true, true
	for {
		chunk, err := m.r.ReadSlice('\n')
		if err != nil && err != bufio.ErrBufferFull {
			return false
		}
		m.letter.Raw = append(m.letter.Raw, chunk...)
		if atStart && string(chunk) == ".\r\n" {
			return true
		}
		if first {
			first = false
			if action, ok := m.server.act("body", m.addresses()...); ok && !m.do(action, "") {
				return false
			}
		}
		if atStart && chunk[0] == '.' {
			chunk = chunk[1:]
		}
		m.letter.Body = append(m.letter.Body, chunk...)
		// A chunk that filled the buffer may end between CR and LF; the buffer is far longer than
		// any line that is a dot.
		atStart = err == nil && bytes.HasSuffix(chunk, []byte("\r\n"))
	}
}

func (m *mxSession) check() {
	body := m.letter.Body
	crlf := bytes.Count(body, []byte("\r\n"))
	if bytes.Count(body, []byte("\n")) != crlf || bytes.Count(body, []byte("\r")) != crlf {
		m.server.violated("bare CR or LF in the text")
	}
	eight := bytes.ContainsFunc(body, func(r rune) bool { return r > 127 })
	if eight && !strings.Contains(strings.ToUpper(m.letter.Mail), "BODY=8BITMIME") {
		m.server.violated("8-bit text without BODY=8BITMIME")
	}
}

// addresses are the accepted recipients, bare.
func (m *mxSession) addresses() []string {
	var list []string
	for _, r := range m.letter.Rcpts {
		path, _, _ := splitPath("TO:"+r, "TO:")
		list = append(list, path)
	}
	return list
}
