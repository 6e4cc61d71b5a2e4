package filter

import (
	"bytes"
	"fmt"
	"net"
	"net/textproto"
	"strings"
	"sync"
	"testing"

	"github.com/emersion/go-milter"
	"github.com/google/go-cmp/cmp"
)

// recorder is a milter that writes down what it is told, and answers by what a test says.
type recorder struct {
	*script
	body bytes.Buffer
}

// script is what a milter says at each stage.
type script struct {
	mu    sync.Mutex
	at    map[string]milter.Response
	end   func(*milter.Modifier) error
	heard []string
}

func (r *recorder) say(stage, what string) (milter.Response, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.heard = append(r.heard, stage+" "+what)
	if resp, ok := r.at[stage+" "+what]; ok {
		return resp, nil
	}
	if resp, ok := r.at[stage]; ok {
		return resp, nil
	}
	return milter.RespContinue, nil
}

func (r *recorder) Connect(host, family string, port uint16, addr net.IP, m *milter.Modifier) (milter.Response, error) {
	return r.say("connect", fmt.Sprintf("%s %s %d %s %s", host, family, port, addr, m.Macros["j"]))
}

func (r *recorder) Helo(name string, _ *milter.Modifier) (milter.Response, error) {
	return r.say("helo", name)
}

func (r *recorder) MailFrom(from string, m *milter.Modifier) (milter.Response, error) {
	return r.say("mail", from+" "+m.Macros["i"]+" "+m.Macros["{auth_authen}"])
}

func (r *recorder) RcptTo(to string, _ *milter.Modifier) (milter.Response, error) {
	return r.say("rcpt", to)
}

func (r *recorder) Header(name, value string, _ *milter.Modifier) (milter.Response, error) {
	return r.say("header", fmt.Sprintf("%s:%q", name, value))
}

func (r *recorder) Headers(textproto.MIMEHeader, *milter.Modifier) (milter.Response, error) {
	return r.say("headers", "")
}

func (r *recorder) BodyChunk(chunk []byte, _ *milter.Modifier) (milter.Response, error) {
	r.body.Write(chunk)
	return milter.RespContinue, nil
}

func (r *recorder) Body(m *milter.Modifier) (milter.Response, error) {
	body := r.body.String()
	if len(body) > 100 {
		body = fmt.Sprint(len(body), " octets")
	}
	if r.end != nil {
		if err := r.end(m); err != nil {
			return nil, err
		}
	}
	return r.say("body", body)
}

func (r *recorder) Abort(*milter.Modifier) error { return nil }

// serveMilter runs one and returns how to ask it.
func serveMilter(t *testing.T, s *script) *member {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := milter.Server{NewMilter: func() milter.Milter { return &recorder{script: s} }, Actions: 0x1ff}
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(l) }()
	t.Cleanup(func() { server.Close(); <-done })
	return newMember(t, Config{Kind: Milter, Address: l.Addr().String()})
}

func TestMilterHears(t *testing.T) {
	t.Parallel()
	s := &script{}
	m := serveMilter(t, s)
	l := letter("From: a@b\r\nSubject: one\r\n\ttwo\r\nno field\r\nX:\r\n", "\r\nbody\r\n")
	l.Env.Origin.Helo, l.Env.Origin.User = "client.test", "ann@office.test"
	if v, err := m.check(t.Context(), &l); err != nil || v.Action != Pass || v.Word != "accept" {
		t.Fatalf("%+v, %v", v, err)
	}
	want := []string{
		"connect [192.0.2.7] tcp4 4711 192.0.2.7 mail.office.test", "helo client.test",
		"mail writer@partner.test 01m7zjfc5rhgwddb ann@office.test", "rcpt sales@office.test", "rcpt dora@office.test",
		`header From:"a@b"`, `header Subject:"one\n\ttwo"`, `header X:""`, "headers ", "body body\r\n",
	}
	if diff := cmp.Diff(want, s.heard); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	l = letter("A: b\r\n", "\r\n"+strings.Repeat("x", 1_000_000))
	if _, err := m.check(t.Context(), &l); err != nil || s.heard[len(s.heard)-1] != "body 1000000 octets" {
		t.Errorf("%q, %v", s.heard[len(s.heard)-1], err)
	}
}

func TestMilterAnswers(t *testing.T) {
	t.Parallel()
	reply := func(text string) milter.Response { return milter.NewResponseStr('y', text) }
	for name, c := range map[string]struct {
		at     map[string]milter.Response
		end    func(*milter.Modifier) error
		action Action
		want   string // word, reply, aside, copies, edits
	}{
		"reject at connect": {at: map[string]milter.Response{"connect": milter.RespReject}, action: Reject, want: "reject|550 5.7.1 the message was refused by a filter"},
		"tempfail at helo":  {at: map[string]milter.Response{"helo": milter.RespTempFail}, action: Defer, want: "tempfail|451 4.7.1 please try again later"},
		"accept at mail":    {at: map[string]milter.Response{"mail": milter.RespAccept, "body": milter.RespReject}, want: "accept|"},
		"a reply":           {at: map[string]milter.Response{"body": reply("554 5.6.1 no\tway 100%%")}, action: Reject, want: "554|554 5.6.1 no way 100%"},
		"of two lines":      {at: map[string]milter.Response{"body": reply("450-4.2.0 one\r\n450 4.2.0 two")}, action: Defer, want: "450|450 4.2.0 one two"},
		"of two classes":    {at: map[string]milter.Response{"body": reply("550 4.2.0 one")}, action: Reject, want: "550|550 5.7.1 one"},
		"that hangs up":     {at: map[string]milter.Response{"body": reply("421 4.3.2 bye")}, action: Defer, want: "451|451 4.3.2 bye"},
		"of another kind":   {at: map[string]milter.Response{"body": reply("250 2.0.0 fine")}, want: "failed|"},
		"discard":           {at: map[string]milter.Response{"headers": milter.RespDiscard}, action: Quarantine, want: "discard|"},
		"one recipient": {at: map[string]milter.Response{"rcpt dora@office.test": reply("550 5.1.1 who")},
			want: "accept||aside dora@office.test"},
		"all recipients": {at: map[string]milter.Response{"rcpt": reply("550 5.1.1 who")}, action: Reject, want: "550|550 5.1.1 who|aside sales@office.test dora@office.test"},
		"one recipient later": {at: map[string]milter.Response{"rcpt dora@office.test": reply("450 4.2.0 greylisted")},
			action: Defer, want: "450|450 4.2.0 greylisted"},
		"quarantine": {end: func(m *milter.Modifier) error { return m.Quarantine("odd") }, action: Quarantine, want: "quarantine|"},
		"changes": {end: func(m *milter.Modifier) error {
			m.AddHeader("X-A", "one\r\n two\r\n\r\n\x01three")
			m.InsertHeader(5, "X-B", "b")
			m.ChangeHeader(0, "Subject", "new")
			m.ChangeHeader(2, "X-C", "")
			m.AddHeader("Received", "from nowhere")
			m.AddHeader("X D", "x")
			return m.AddRecipient("archive@office.test")
		}, want: "accept||copies archive@office.test|X-A: one\r\n two\r\n\t?three|X-B: b|Subject 1: new|-X-C 2"},
		"another body":     {end: func(m *milter.Modifier) error { return m.ReplaceBody([]byte("x")) }, want: "failed|"},
		"another sender":   {end: func(m *milter.Modifier) error { return m.ChangeFrom("<x@y>") }, want: "failed|"},
		"fewer recipients": {end: func(m *milter.Modifier) error { return m.DeleteRecipient("dora@office.test") }, want: "failed|"},
		"too much": {end: func(m *milter.Modifier) error {
			for range 300 {
				m.AddHeader("X-Big", strings.Repeat("x", 15<<10))
			}
			return nil
		}, want: "failed|"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := serveMilter(t, &script{at: c.at, end: c.end})
			l := letter("A: b\r\n", "\r\nbody\r\n")
			v, err := m.check(t.Context(), &l)
			got := v.Word + "|" + v.Reply.String()
			if v.Aside != nil {
				got += "|aside " + strings.Join(v.Aside, " ")
			}
			if v.Copies != nil {
				got += "|copies " + strings.Join(v.Copies, " ")
			}
			if v.Edits != nil {
				got += "|" + shown(v.Edits)
			}
			if err != nil || v.Action != c.action || got != c.want {
				t.Errorf("%d %q, %v; want %d %q", v.Action, got, err, c.action, c.want)
			}
			harmless(t, v)
		})
	}
}

// FuzzMilterReply: whatever text a milter wants a client to hear, it is one line.
func FuzzMilterReply(f *testing.F) {
	f.Add(550, "5.7.1 no\r\n550 5.7.1 way")
	f.Fuzz(func(t *testing.T, code int, text string) {
		reply, err := milterReply(code, text)
		if err != nil {
			return
		}
		if strings.ContainsFunc(reply.Text, func(r rune) bool { return r < ' ' || r > '~' }) || reply.Text == "" || len(reply.Text) > 500 ||
			reply.Status[0] != reply.Code/100 || reply.Code == 421 || reply.Code < 400 || reply.Code > 599 {
			t.Errorf("%d %q: %+v", code, text, reply)
		}
	})
}
