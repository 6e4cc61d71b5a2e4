package ctl_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"relayd/cmd/relayctl/ctl"
	"relayd/queue"
	"relayd/relay"
	"relayd/relay/admin"
	"relayd/relay/orders"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"relayctl": func() { os.Exit(ctl.Main(os.Args[1:])) },
	})
}

// TestScript runs the stories: relayctl as a process of its own against a real admin server over
// a real queue, which live in the test. Beside testscript's own commands a story may say:
//
//	serve, stop        the stand-in for relayd comes and goes
//	letter FLAGS FILE  put a letter into the queue; its ID goes into $ID
//	attempt REPLY      every due item is tried, and a remote answers so
//	exits N COMMAND    like exec, and the exit status must be N
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("TZ", "UTC")
			// The race detector sleeps a second at every exit, for reports of threads left behind.
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			s := &stage{dir: env.WorkDir + "/data"}
			env.Values[stageKey{}] = s
			env.Defer(func() {
				if err := s.stop(); err != nil {
					panic(err)
				}
			})
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"serve": cmdServe, "stop": cmdStop, "letter": cmdLetter, "attempt": cmdAttempt, "exits": cmdExits,
		},
	})
}

type stageKey struct{}

func onStage(ts *testscript.TestScript) *stage { return ts.Value(stageKey{}).(*stage) }

// stage is a data directory, and the daemon's part while one "runs".
type stage struct {
	dir     string
	queue   *queue.Queue
	server  *admin.Server
	running sync.WaitGroup
	reloads int
}

func (s *stage) open() (err error) {
	if s.queue == nil {
		if err := os.MkdirAll(s.dir, 0o700); err != nil {
			return err
		}
		s.queue, err = openQueue(s.dir + "/queue")
	}
	return err
}

// openQueue opens the queue, which this process may have closed a moment ago. A story beside ours
// that is between fork and exec just then holds a copy of the lock until its exec.
func openQueue(dir string) (q *queue.Queue, err error) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(5 * time.Second); ; <-tick.C {
		q, err = queue.Open(dir, queue.Options{Schedule: queue.DefaultSchedule()})
		if !errors.Is(err, queue.ErrInUse) || time.Now().After(deadline) {
			return q, err
		}
	}
}

func (s *stage) start() error {
	if err := s.open(); err != nil {
		return err
	}
	ln, err := admin.Listen(s.dir)
	if err != nil {
		return err
	}
	metrics := admin.NewMetrics()
	metrics.Connected("smtp")
	metrics.Bytes("smtp", 1500, 300)
	metrics.Message("accepted")
	book, err := orders.Open(s.dir+"/orders", slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	s.server = admin.NewServer(admin.Config{DataDir: s.dir, Queue: s.queue, Bouncer: bouncer{s.queue},
		Metrics: metrics, About: about, Reload: s.reload, Orders: book, Stage: s.queue})
	s.running.Go(func() { s.server.Serve(context.Background(), ln) })
	return nil
}

func about() admin.About {
	return admin.About{Version: "1.0-test", Hostname: "mail.office.example", Config: "relayd.toml", MinFreeDisk: 1,
		Listeners: []admin.Address{{Service: "smtp", Address: "127.0.0.1:25"}},
		Certificates: []admin.Certificate{
			{Names: []string{"mail.office.example"}, Expires: time.Now().Add(90*24*time.Hour + time.Hour), SelfSigned: true},
			{Names: []string{"pop.office.example", "www.office.example"}, From: "/etc/pop.pem", Expires: time.Now().Add(-time.Hour), Problem: "/etc/pop.pem: garbage"},
			{Names: []string{"mx.office.example"}, From: "acme", Problem: "unauthorized"}}}
}

// reload works the first time only.
func (s *stage) reload(context.Context) error {
	if s.reloads++; s.reloads > 1 {
		return errors.New("relayd.toml:3:1: there is no setting hostnam")
	}
	return nil
}

// bouncer stands in for the drain: what is bounced leaves the queue.
type bouncer struct{ q *queue.Queue }

func (b bouncer) Bounce(ctx context.Context, f queue.Filter, reason string) (int, error) {
	if reason == "fail" {
		return 0, errors.New("delivery: the report cannot be written")
	}
	return b.q.Drop(ctx, f)
}

func (s *stage) stop() error {
	if s.server != nil {
		if err := s.server.Shutdown(context.Background()); err != nil {
			return err
		}
		s.running.Wait()
		s.server = nil
	}
	if s.queue == nil {
		return nil
	}
	err := errors.Join(s.queue.Check(context.Background()), s.queue.Close())
	s.queue = nil
	return err
}

// with runs f with the queue, which is closed again if no daemon "runs".
func (s *stage) with(f func(q *queue.Queue) error) error {
	if err := s.open(); err != nil {
		return err
	}
	err := f(s.queue)
	if s.server == nil {
		err = errors.Join(err, s.stop())
	}
	return err
}

func cmdServe(ts *testscript.TestScript, _ bool, _ []string) { ts.Check(onStage(ts).start()) }
func cmdStop(ts *testscript.TestScript, _ bool, _ []string)  { ts.Check(onStage(ts).stop()) }

type listFlag []string

func (l *listFlag) String() string     { return strings.Join(*l, ",") }
func (l *listFlag) Set(s string) error { *l = append(*l, s); return nil }

func cmdLetter(ts *testscript.TestScript, _ bool, args []string) {
	var to listFlag
	flags := flag.NewFlagSet("letter", flag.ContinueOnError)
	from := flags.String("from", "ann@office.example", "")
	age := flags.Duration("age", 0, "")
	flags.Var(&to, "to", "")
	ts.Check(flags.Parse(args))
	id, err := onStage(ts).letter(*from, to, *age, ts.ReadFile(flags.Arg(0)))
	ts.Check(err)
	ts.Setenv("ID", string(id))
}

func (s *stage) letter(from string, to []string, age time.Duration, text string) (relay.ID, error) {
	born := time.Now().Add(-age)
	text = strings.ReplaceAll(text, "\n", "\r\n")
	env := relay.Envelope{ID: relay.NewID(born), Accepted: born, Size: int64(len(text)),
		Origin: relay.Origin{Client: netip.MustParseAddrPort("192.0.2.9:4711"), Name: "pc.office.example",
			Helo: "pc", Proto: "ESMTPSA", User: "ann@office.example", Service: "submission"}}
	var err error
	if from != "" {
		if env.From, err = relay.ParseAddress(from, true); err != nil {
			return "", err
		}
	}
	for _, t := range to {
		a, err := relay.ParseAddress(t, true)
		if err != nil {
			return "", err
		}
		env.Rcpts = append(env.Rcpts, relay.Recipient{Addr: a, Orig: t})
	}
	return env.ID, s.with(func(q *queue.Queue) error {
		st, err := q.Stage(context.Background(), env)
		if err != nil {
			return err
		}
		if _, err := st.Write([]byte(text)); err != nil {
			return err
		}
		return st.Commit(context.Background())
	})
}

// attempt takes everything that is due and defers it with one answer.
func cmdAttempt(ts *testscript.TestScript, _ bool, args []string) {
	code, err := strconv.Atoi(args[0])
	ts.Check(err)
	status, _ := relay.ParseStatus(args[1])
	reply := relay.Reply{Code: code, Status: status, Text: strings.Join(args[2:], " ")}
	ts.Check(onStage(ts).with(func(q *queue.Queue) error {
		items, err := q.Take(context.Background(), time.Now(), 100, nil)
		for _, it := range items {
			var results []relay.Result
			for _, rc := range it.Rcpts {
				results = append(results, relay.Result{Rcpt: rc.Addr, Outcome: relay.Deferred, Reply: reply,
					Host: "mx." + string(it.Domain) + "[192.0.2.7]:25", At: time.Now()})
			}
			err = errors.Join(err, q.Settle(context.Background(), it.Key(), results, false))
		}
		return err
	}))
}

func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		got = e.ExitCode()
	} else {
		ts.Check(err)
	}
	if (got == want) == neg {
		ts.Fatalf("%s exited with %d", fmt.Sprint(args[1:]), got)
	}
}
