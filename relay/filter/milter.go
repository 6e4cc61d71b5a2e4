package filter

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"

	"github.com/emersion/go-milter"

	"relayd/relay"
)

// milterProgram tells a milter of a letter that has come in whole: connection, envelope, header and
// body one after the other, over a connection for each letter.
type milterProgram struct{ hostname string }

// What a milter may do, and which stages it may leave out. Not offered are new bodies, other senders
// and taking recipients away: the first two make of a letter one that nobody has sent, and the last
// would lose mail.
const (
	milterActions = milter.OptAddHeader | milter.OptChangeHeader | milter.OptQuarantine | milter.OptAddRcpt
	milterStages  = milter.OptNoConnect | milter.OptNoHelo | milter.OptNoMailFrom | milter.OptNoRcptTo |
		milter.OptNoBody | milter.OptNoHeaders | milter.OptNoEOH
)

// errUnasked is a milter that does what it was not offered. It is alive, but what it wants with the
// letter cannot be done.
var errUnasked = errors.New("it wants what relayd does not let a milter do")

// dialed hands the library the connection there is.
type dialed struct{ net.Conn }

func (d dialed) Dial(string, string) (net.Conn, error) { return d.Conn, nil }

func (m milterProgram) open(conn net.Conn) (*milter.ClientSession, error) {
	return milter.NewClientWithOptions("", "", milter.ClientOptions{
		Dialer: dialed{&bounded{conn, maxAnswer}}, ActionMask: milterActions, ProtocolMask: milterStages,
	}).Session()
}

func (m milterProgram) ping(conn net.Conn) error {
	s, err := m.open(conn)
	if err != nil {
		return err
	}
	return s.Close()
}

func (m milterProgram) check(conn net.Conn, l *Letter) (Verdict, error) {
	s, err := m.open(conn)
	if err != nil {
		return Verdict{}, err
	}
	defer s.Close()
	t := milterTalk{s: s, l: l, hostname: m.hostname}
	for _, stage := range []func() (*milter.Action, error){t.connect, t.mail, t.rcpts, t.header, t.body} {
		act, err := stage()
		if err != nil {
			return Verdict{}, err
		}
		if act.Code != milter.ActContinue {
			return t.verdict(act)
		}
	}
	acts, act, err := s.End()
	if err != nil {
		return Verdict{}, err
	}
	if err := t.change(acts); err != nil {
		return Verdict{}, err
	}
	return t.verdict(act)
}

// milterTalk is one letter's dialogue.
type milterTalk struct {
	s        *milter.ClientSession
	l        *Letter
	hostname string
	aside    []string
	held     bool
	copies   []string
	edits    edits
}

var goOn = &milter.Action{Code: milter.ActContinue}

func (t *milterTalk) connect() (*milter.Action, error) {
	o := t.l.Env.Origin
	client := netip.AddrPortFrom(o.Client.Addr().Unmap().WithZone(""), o.Client.Port())
	if !o.Client.IsValid() {
		client = netip.MustParseAddrPort("127.0.0.1:0") // a program on this machine
	}
	name, family := o.Name, milter.FamilyInet
	if name == "" {
		name = "[" + client.Addr().String() + "]"
	}
	if client.Addr().Is6() {
		family = milter.FamilyInet6
	}
	if err := t.s.Macros(milter.CodeConn, "j", t.hostname, "{daemon_name}", "relayd", "_", name+" ["+client.Addr().String()+"]"); err != nil {
		return nil, err
	}
	if act, err := t.s.Conn(name, family, client.Port(), client.Addr().String()); err != nil || act.Code != milter.ActContinue {
		return act, err
	}
	if version, cipher, ok := strings.Cut(o.TLS, " "); ok {
		if err := t.s.Macros(milter.CodeHelo, "{tls_version}", version, "{cipher}", cipher); err != nil {
			return nil, err
		}
	}
	return t.s.Helo(cString(o.Helo))
}

func (t *milterTalk) mail() (*milter.Action, error) {
	env := t.l.Env
	macros := []string{"i", string(env.ID), "{mail_addr}", cString(env.From.String())}
	if env.Origin.User != "" {
		macros = append(macros, "{auth_authen}", cString(env.Origin.User))
	}
	if err := t.s.Macros(milter.CodeMail, macros...); err != nil {
		return nil, err
	}
	return t.s.Mail(cString(env.From.String()), nil)
}

// rcpts tells of the recipients, who have been accepted already. If only some of them are refused,
// theirs are put aside; if any is to wait, all of the letter does, because its sender can send it
// again only as a whole.
func (t *milterTalk) rcpts() (*milter.Action, error) {
	all := t.l.rcpts()
	var refusal *milter.Action
	for _, rcpt := range all {
		if err := t.s.Macros(milter.CodeRcpt, "{rcpt_addr}", cString(rcpt)); err != nil {
			return nil, err
		}
		act, err := t.s.Rcpt(cString(rcpt), nil)
		if err != nil {
			return nil, err
		}
		switch {
		case act.Code == milter.ActReject, act.Code == milter.ActReplyCode && act.SMTPCode/100 == 5, act.Code == milter.ActDiscard:
			t.aside, refusal = append(t.aside, rcpt), act
		case act.Code != milter.ActContinue:
			return act, nil
		}
	}
	if len(t.aside) == len(all) && refusal != nil {
		return refusal, nil
	}
	return goOn, nil
}

func (t *milterTalk) header() (*milter.Action, error) {
	for field := range headerFields(t.l.Header) {
		name, value, ok := bytes.Cut(field, []byte(":"))
		if !ok {
			continue
		}
		text := strings.ReplaceAll(strings.TrimSuffix(string(value), "\r\n"), "\r\n", "\n")
		act, err := t.s.HeaderField(cString(strings.TrimRight(string(name), " \t")), cString(strings.TrimPrefix(text, " ")))
		if err != nil || act.Code != milter.ActContinue {
			return act, err
		}
	}
	return t.s.HeaderEnd()
}

func (t *milterTalk) body() (*milter.Action, error) {
	if t.s.ProtocolOption(milter.OptNoBody) {
		return goOn, nil
	}
	text, err := t.l.text()
	if err != nil {
		return nil, errors.Join(errReading, err)
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := io.ReadFull(text, buf)
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return nil, errors.Join(errReading, err)
		}
		if n == 0 {
			return goOn, nil
		}
		if act, err := t.s.BodyChunk(buf[:n]); err != nil || act.Code != milter.ActContinue {
			return act, err
		}
	}
}

// change takes down what the milter wants to be changed.
func (t *milterTalk) change(acts []milter.ModifyAction) error {
	for _, a := range acts {
		switch a.Code {
		case milter.ActAddHeader, milter.ActInsertHeader:
			t.edits.add(Add, a.HeaderName, a.HeaderValue, 0)
		case milter.ActChangeHeader:
			index := int(min(max(a.HeaderIndex, 1), 1<<20))
			if a.HeaderValue == "" {
				t.edits.add(Remove, a.HeaderName, "", index)
			} else {
				t.edits.add(Change, a.HeaderName, a.HeaderValue, index)
			}
		case milter.ActQuarantine:
			t.held = true
		case milter.ActAddRcpt:
			if len(t.copies) < maxCopies {
				t.copies = append(t.copies, strings.Trim(a.Rcpt, "<>"))
			}
		default:
			return fmt.Errorf("%w: %s", errUnasked, map[milter.ModifyActCode]string{
				milter.ActReplBody: "another body", milter.ActChangeFrom: "another sender", milter.ActDelRcpt: "fewer recipients"}[a.Code])
		}
	}
	return nil
}

func (t *milterTalk) verdict(act *milter.Action) (Verdict, error) {
	v := Verdict{Edits: t.edits.list, Aside: t.aside, Copies: t.copies}
	switch act.Code {
	case milter.ActContinue, milter.ActAccept:
		v.Word = "accept"
	case milter.ActDiscard:
		v.Word, v.Action = "discard", Quarantine
	case milter.ActReject:
		v.Word, v.Action = "reject", Reject
		v.Reply = relay.Reply{Code: 550, Status: relay.Status{5, 7, 1}, Text: "the message was refused by a filter"}
	case milter.ActTempFail:
		v.Word, v.Action = "tempfail", Defer
		v.Reply = relay.Reply{Code: 451, Status: relay.Status{4, 7, 1}, Text: "please try again later"}
	case milter.ActReplyCode:
		reply, err := milterReply(act.SMTPCode, act.SMTPText)
		if err != nil {
			return v, err
		}
		v.Word, v.Action, v.Reply = fmt.Sprint(reply.Code), Reject, reply
		if reply.Temporary() {
			v.Action = Defer
		}
	default:
		return v, fmt.Errorf("it answers with the code %q", act.Code)
	}
	if t.held && v.Action < Quarantine {
		v.Word, v.Action = "quarantine", Quarantine
	}
	return v, nil
}

// milterReply makes a reply of ours of a milter's: one line, a status of the same class. A 421 would
// hang up on the client, which is not a milter's to do.
func milterReply(code int, text string) (relay.Reply, error) {
	if code < 400 || code > 599 {
		return relay.Reply{}, fmt.Errorf("it wants the reply %d", code)
	}
	if code == 421 {
		code = 451
	}
	reply := relay.Reply{Code: code, Status: relay.Status{code / 100, 7, 1}}
	var words []string
	for i, line := range strings.Split(strings.ReplaceAll(text, "\r", ""), "\n") {
		if i > 0 && len(line) > 3 {
			line = line[4:] // "550-" in front of every line but the first
		}
		first, rest, _ := strings.Cut(line, " ")
		if status, ok := relay.ParseStatus(first); ok {
			line = rest
			if status[0] == code/100 {
				reply.Status = status
			}
		}
		words = append(words, line)
	}
	reply.Text = sentence(strings.ReplaceAll(strings.Join(words, " "), "%%", "%"), "the message was refused by a filter")
	return reply, nil
}

// cString is text without NUL, which would end it.
func cString(s string) string { return strings.ReplaceAll(s, "\x00", "?") }

// headerFields yields fields with their folded lines.
func headerFields(b []byte) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(b) > 0 {
			end := len(b)
			for from := 0; ; {
				i := bytes.Index(b[from:], []byte("\r\n"))
				if i < 0 {
					break
				}
				from += i + 2
				if from >= len(b) || b[from] != ' ' && b[from] != '\t' {
					end = from
					break
				}
			}
			if !yield(b[:end]) {
				return
			}
			b = b[end:]
		}
	}
}
