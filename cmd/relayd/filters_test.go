package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
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

// TestFiltersMemory: a letter of 50 MB that three filters look at costs relayd none of its size.
func TestFiltersMemory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rspamd, err := relaytest.NewRspamd("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rspamd.Close() })
	clamd, err := relaytest.NewClamd("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { clamd.Close() })
	spice, err := newSubjectMilter(filepath.Join(dir, "milter.sock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { spice.Close() })
	config := fmt.Sprintf(`
hostname = "mail.office.test"
data_dir = "data"
[listen]
smtp = "127.0.0.1:0"
[domains."office.test"]
postmaster = "ann"
[policy]
mode = "off"
[limits]
message_size = "60MB"
min_free_disk = "1MB"
[filter.rspamd]
address = %q
max_size = "60MB"
[filter.clamd]
address = %q
max_size = "60MB"
[[filter.milter]]
address = "unix:milter.sock"
max_size = "60MB"
`, rspamd.Addr(), clamd.Addr())
	data := filepath.Join(dir, "data")
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "relayd.toml"), []byte(config), 0o600), os.Mkdir(data, 0o700),
		os.WriteFile(filepath.Join(data, "users"), siegeUsers(), 0o600)); err != nil {
		t.Fatal(err)
	}
	path, err := exec.LookPath("relayd")
	if err != nil {
		t.Fatal(err)
	}
	server, err := launch(path, dir, "--config", "relayd.toml")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.stop(); err != nil || t.Failed() {
			t.Errorf("%v\n%s", err, server.log.String())
		}
	})
	s := &siege{t: t, d: server, dir: dir}
	d, err := dial(server.addrs["smtp"])
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	d.SetDeadline(time.Now().Add(6 * patience))
	d.hello("")
	before := s.memory("VmRSS")
	const size = 50_000_000
	line := strings.Repeat("x", 76) + "\r\n"
	out, accepted := d.letter("writer@partner.test", []string{"ann@office.test"}, []byte("Subject: big\r\n\r\n"+strings.Repeat(line, size/len(line))))
	if !accepted || d.err != nil {
		t.Fatalf("%s %v", out, d.err)
	}
	grown := s.memory("VmHWM") - before
	t.Logf("from %.1f MB by %.1f MB", float64(before)/1e6, float64(grown)/1e6)
	if grown > 20e6 && !raceEnabled {
		t.Errorf("grown by %d octets", grown)
	}
	for _, all := range [][]relaytest.Asked{rspamd.Asked(), clamd.Asked()} {
		if len(all) != 1 || all[0].Size < size-100 {
			t.Errorf("shown %d letters", len(all))
		}
	}
}
