package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"relayd/cmd/relayctl/ctl"
	"relayd/queue"
	"relayd/relay/relaytest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"relayd":   func() { step = dieAt(os.Getenv(dieAtEnv)); main() },
		"relayctl": func() { os.Exit(ctl.Main(os.Args[1:])) },
		"sendmail": func() { os.Exit(ctl.Main(ctl.Command(os.Args))) },
	})
}

// TestScript runs the stories: the real relayd and relayctl, a real DNS server and scripted
// remotes on loopback. Beside testscript's own commands a story may say:
//
//	dns ZONE          serve the zone file, or from now on that one; $DNS is its address
//	ca FILE           make an authority, which relayd trusts from the next start on; it signs for an mx that says so
//	mx IP RULES DIR   run a scripted remote at IP, port $MXPORT, which keeps letters in DIR; sets $TLSA_DIR; IP may
//	                  be the path of a socket
//	start FILE        start relayd with the config FILE; sets $SMTP, $SUBMISSION, $POP3, ...
//	shutdown, crash   end the last one started by SIGTERM (it must exit 0) or SIGKILL
//	reload            SIGHUP, and wait until it is done
//	send, pop         an SMTP and a POP3 client, see client_test.go; send sets $ID
//	exits N COMMAND   like exec, and the exit status must be N
//	talk FILE         play a dialogue octet by octet, see talk_test.go
//	await FILE [N]    wait until N files match the pattern
//	drained           wait until the queue is empty: a report comes before its letter is settled
//	signed FILES N [END]  letters a remote keeps have N DKIM signatures, which all pass, by selectors with this END
//	program NAME [REPLY]  run a fake rspamd, clamd or milter at NAME.sock; see filters_test.go
//	upagain NAME...   wait until relayd has found these again
//	put FILE          append what virus scanners take for a virus
//
// Files given to them have their $VARIABLES replaced.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("MXPORT", fmt.Sprint(freePort()))
			env.Values[stageKey{}] = &stage{}
			env.Defer(func() { checkQueues(env) }) // when all that ran has been ended
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"dns": cmdDNS, "ca": cmdCA, "mx": cmdMX, "start": cmdStart, "shutdown": cmdShutdown, "crash": cmdCrash,
			"reload": cmdReload, "send": cmdSend, "exits": cmdExits, "pop": cmdPop, "talk": cmdTalk, "await": cmdAwait, "drained": cmdDrained,
			"signed": cmdSigned, "program": cmdProgram, "put": cmdPut, "upagain": cmdUpAgain,
		},
	})
}

// checkQueues looks at every queue that a story leaves behind, as relayctl queue check does. A file
// damaged-on-purpose beside the data directory says that it is to be damaged.
func checkQueues(env *testscript.Env) {
	queues, _ := filepath.Glob(filepath.Join(env.WorkDir, "*", "queue"))
	for _, dir := range queues {
		if exists(filepath.Join(filepath.Dir(filepath.Dir(dir)), "damaged-on-purpose")) {
			continue
		}
		report, err := queue.Inspect(context.Background(), dir)
		if err == nil {
			err = report.Err()
		}
		if err != nil {
			env.T().Log(fmt.Sprintf("the queue that the story leaves: %v", err))
			env.T().FailNow()
		}
	}
}

type stageKey struct{}

// stage is what a story has running.
type stage struct {
	daemon *server
	dns    *relaytest.DNSServer
	ca     *relaytest.CA
	roots  string // the file of its certificate

	programs map[string]interface{ Close() error } // content filters, by name
}

func onStage(ts *testscript.TestScript) *stage { return ts.Value(stageKey{}).(*stage) }

// freePort finds a port for the remotes of a story, who share it on addresses of their own. It lies
// below those that the kernel gives to connections, and is kept from other stories and other test
// binaries by a listener on an address that nobody else uses, as long as this process lives.
func freePort() int {
	for range 1000 {
		port := 20_000 + rand.IntN(12_000)
		l, err := net.Listen("tcp", fmt.Sprintf("127.77.77.77:%d", port))
		if err != nil {
			continue
		}
		kept.Store(port, l)
		return port
	}
	panic("no port is free")
}

// kept are the listeners of freePort, which garbage collection would close.
var kept sync.Map

// expanded is the file with its variables replaced.
func expanded(ts *testscript.TestScript, name string) string {
	return os.Expand(ts.ReadFile(name), ts.Getenv)
}

func cmdDNS(ts *testscript.TestScript, _ bool, args []string) {
	if s := onStage(ts); s.dns != nil {
		ts.Check(s.dns.SetZone(expanded(ts, args[0])))
		return
	}
	dns, err := relaytest.NewDNS("127.0.0.1:0", expanded(ts, args[0]))
	ts.Check(err)
	ts.Defer(func() { dns.Close() })
	onStage(ts).dns = dns
	ts.Setenv("DNS", dns.Addr().String())
}

func cmdCA(ts *testscript.TestScript, _ bool, args []string) {
	ca, err := relaytest.NewCA()
	ts.Check(err)
	s := onStage(ts)
	s.ca, s.roots = ca, ts.MkAbs(args[0])
	ts.Check(os.WriteFile(s.roots, ca.PEM(), 0o600))
}

func cmdMX(ts *testscript.TestScript, _ bool, args []string) {
	script, err := relaytest.ParseMXScript(expanded(ts, args[1]))
	ts.Check(err)
	addr := net.JoinHostPort(args[0], ts.Getenv("MXPORT"))
	if strings.Contains(args[0], "/") {
		addr = args[0]
	}
	mx, err := relaytest.NewMX(addr, script)
	ts.Check(err)
	ts.Defer(func() { mx.Close() })
	if script.CertName != "" {
		cert, err := onStage(ts).ca.Issue(script.CertName, script.Expired)
		ts.Check(err)
		mx.SetCertificate(cert)
	}
	if len(args) > 2 {
		sum := sha256.Sum256(mx.Certificate().RawSubjectPublicKeyInfo)
		ts.Setenv("TLSA_"+args[2], fmt.Sprintf("3 1 1 %x", sum))
		ts.Check(mx.KeepIn(ts.MkAbs(args[2])))
	}
}

func cmdStart(ts *testscript.TestScript, _ bool, args []string) {
	s := onStage(ts)
	file := ts.MkAbs(args[0])
	ts.Check(os.WriteFile(file, []byte(expanded(ts, args[0])), 0o600))
	path, err := lookPath(ts, "relayd")
	ts.Check(err)
	cmd := exec.Command(path, "--config", file)
	cmd.Dir = ts.MkAbs(".")
	if s.roots != "" {
		cmd.Env = append(cmd.Environ(), "SSL_CERT_FILE="+s.roots)
	}
	d, err := launchCommand(cmd)
	ts.Check(err)
	s.daemon = d
	ts.Defer(func() {
		d.kill()
		ts.Logf("relayd said:\n%s", d.log.String())
	})
	for key, value := range d.addrs {
		ts.Setenv(strings.ToUpper(key), value)
	}
}

func cmdShutdown(ts *testscript.TestScript, _ bool, _ []string) {
	s := onStage(ts)
	d := s.daemon
	s.daemon = nil
	ts.Check(d.stop())
}

func cmdCrash(ts *testscript.TestScript, _ bool, _ []string) {
	s := onStage(ts)
	s.daemon.kill()
	s.daemon = nil
}

func cmdReload(ts *testscript.TestScript, _ bool, _ []string) {
	ts.Check(onStage(ts).daemon.reload())
}

func cmdExits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

func cmdAwait(ts *testscript.TestScript, neg bool, args []string) {
	want := 1
	if len(args) > 1 {
		fmt.Sscan(args[1], &want)
	}
	pattern := ts.MkAbs(args[0])
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for time.Now().Before(deadline) {
		if found, _ := filepath.Glob(pattern); len(found) >= want && !neg || neg && len(found) == 0 {
			return
		}
		<-tick.C
	}
	ts.Fatalf("no %d files match %s after %v", want, args[0], patience)
}

func cmdDrained(ts *testscript.TestScript, _ bool, _ []string) {
	path, err := lookPath(ts, "relayctl")
	ts.Check(err)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-tick.C {
		out, err := exec.Command(path, "--data-dir", ts.MkAbs("data"), "--json", "queue", "ls").Output()
		ts.Check(err)
		if len(out) == 0 {
			return
		}
	}
	ts.Fatalf("the queue is not empty after %v", patience)
}

// lookPath finds a command on the story's PATH rather than on ours.
func lookPath(ts *testscript.TestScript, name string) (string, error) {
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if path := filepath.Join(dir, name); exists(path) {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not on the PATH of the story", name)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
