package main

import (
	"encoding/json"
	"net"
	"net/textproto"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-milter"
	"github.com/rogpeppe/go-internal/testscript"

	"relayd/relay/admin"
	"relayd/relay/relaytest"
)

// cmdProgram is `program rspamd|clamd|milter [FILE]`: it starts one that listens on the socket of its
// name beside the story's files; FILE is what that rspamd answers, and once it runs what it answers
// from now on. `! program NAME` ends it.
func cmdProgram(ts *testscript.TestScript, neg bool, args []string) {
	s := onStage(ts)
	if s.programs == nil {
		s.programs = map[string]interface{ Close() error }{}
		ts.Defer(func() {
			for _, p := range s.programs {
				p.Close()
			}
		})
	}
	name := args[0]
	if neg {
		ts.Check(s.programs[name].Close())
		delete(s.programs, name)
		return
	}
	if s.programs[name] == nil {
		p, err := newProgram(name, "unix:"+ts.MkAbs(name+".sock"))
		ts.Check(err)
		s.programs[name] = p
	}
	if len(args) > 1 {
		s.programs[name].(*relaytest.Rspamd).SetReply(200, ts.ReadFile(args[1]))
	}
}

func newProgram(name, address string) (interface{ Close() error }, error) {
	switch name {
	case "rspamd":
		return relaytest.NewRspamd(address)
	case "clamd":
		return relaytest.NewClamd(address)
	}
	return newSubjectMilter(strings.TrimPrefix(address, "unix:"))
}

// cmdUpAgain waits until status says that the filters are up.
func cmdUpAgain(ts *testscript.TestScript, _ bool, args []string) {
	path, err := lookPath(ts, "relayctl")
	ts.Check(err)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-tick.C {
		out, err := exec.Command(path, "--data-dir", ts.MkAbs("data"), "--json", "status").Output()
		ts.Check(err)
		var st admin.Status
		ts.Check(json.Unmarshal(out, &st))
		up := 0
		for _, f := range st.Filters {
			if f.Down.IsZero() && slices.Contains(args, f.Name) {
				up++
			}
		}
		if up == len(args) {
			return
		}
	}
	ts.Fatalf("%s are still down after %v", args, patience)
}

// cmdPut is `put FILE`: it writes the text that virus scanners take for a virus.
func cmdPut(ts *testscript.TestScript, _ bool, args []string) {
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_APPEND|os.O_WRONLY, 0)
	ts.Check(err)
	_, err = f.WriteString(relaytest.Eicar + "\n")
	ts.Check(err)
	ts.Check(f.Close())
}

// subjectMilter does what the Subject says.
type subjectMilter struct {
	milter.NoOpMilter
	subject string
}

type milterServer struct {
	*milter.Server
	done sync.WaitGroup
}

func newSubjectMilter(path string) (*milterServer, error) {
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	s := &milterServer{Server: &milter.Server{
		NewMilter: func() milter.Milter { return &subjectMilter{} },
		Actions:   milter.OptAddHeader | milter.OptChangeHeader | milter.OptQuarantine | milter.OptAddRcpt,
	}}
	s.done.Go(func() { s.Serve(l) })
	return s, nil
}

func (s *milterServer) Close() error {
	err := s.Server.Close()
	s.done.Wait()
	return err
}

func (m *subjectMilter) RcptTo(rcpt string, _ *milter.Modifier) (milter.Response, error) {
	if strings.HasPrefix(rcpt, "dora+") {
		return milter.RespReject, nil
	}
	return milter.RespContinue, nil
}

func (m *subjectMilter) Headers(h textproto.MIMEHeader, _ *milter.Modifier) (milter.Response, error) {
	m.subject = h.Get("Subject")
	return milter.RespContinue, nil
}

func (m *subjectMilter) Body(mod *milter.Modifier) (milter.Response, error) {
	switch m.subject {
	case "reject":
		return milter.RespReject, nil
	case "tempfail":
		return milter.RespTempFail, nil
	case "discard":
		return milter.RespDiscard, nil
	case "reply":
		return milter.NewResponseStr('y', "554 5.6.0 not%% like this"), nil
	case "quarantine":
		return milter.RespAccept, mod.Quarantine("odd")
	case "body":
		return milter.RespAccept, mod.ReplaceBody([]byte("other"))
	case "copy":
		mod.AddRecipient("bob@office.test")
		return milter.RespAccept, mod.AddRecipient("eve@elsewhere.test")
	case "change":
		mod.AddHeader("X-Added", "one\r\n two")
		mod.InsertHeader(1, "X-Inserted", "three")
		mod.ChangeHeader(1, "Subject", "changed")
		mod.ChangeHeader(2, "X-Twice", "")
		return milter.RespAccept, mod.ChangeHeader(1, "X-New", "new")
	}
	return milter.RespAccept, nil
}
