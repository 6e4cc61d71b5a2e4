//go:build peers

package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"relayd/relay/relaytest"
)

// What a run measures; the defaults take about five minutes.
var (
	peersLetters = flag.Int("peers.letters", 2000, "letters of a burst")
	peersBacklog = flag.Int("peers.backlog", 20_000, "letters queued for a dead destination")
	peersDrop    = flag.Int("peers.drop", 10_000, "letters of the maildrop that POP3 collects")
	peersOut     = flag.String("peers.out", "", "file that gets the tables too")
)

const letterSize = 10 << 10

var peerSessions = []int{1, 10, 50}

// TestPeersSMTP prints what relayd and Postfix do with the same letters in the same minutes, beside
// what a bare server of the same design and the bare disk do. It never passes or fails on time.
func TestPeersSMTP(t *testing.T) {
	r := newPeersRun(t)
	r.paper = newPaper(t, "relayd and Postfix side by side", r.ours.version, r.theirs.version+" as shipped by Debian")
	r.warmUp()
	r.idleMemory()
	r.maildir()
	r.relay()
	r.backlog()
	r.paper.say("Letters of 10 KiB; the load generator and the sink share the processors with the server. " +
		"Ratios are relayd / Postfix. CPU is user and system time of all processes of a server. Memory is resident, shared pages counted once.")
}

type peersRun struct {
	t            *testing.T
	paper        *paper
	ours, theirs *mailServer
	mxPort       int
	nextUser     int
}

func newPeersRun(t *testing.T) *peersRun {
	mxPort := freePort()
	return &peersRun{t: t, mxPort: mxPort, ours: startRelayd(t, mxPort), theirs: startPostfix(t, mxPort)}
}

func (r *peersRun) both() []*mailServer { return []*mailServer{r.ours, r.theirs} }

func (r *peersRun) user() string {
	r.nextUser++
	return peerUser(r.nextUser - 1)
}

// burst is what a server did with a load.
type burst struct {
	cost
	accepted float64 // letters a second
	arrived  float64 // alike, until the last letter was where it belongs
	cpu      float64 // CPU seconds for 1000 letters
}

// burst sends a load and waits until arrived says that it is where it belongs.
func (r *peersRun) burst(s *mailServer, l relaytest.Load, arrived func() bool) burst {
	r.t.Helper()
	l.Addr, l.Size = s.addr, letterSize
	w := s.tree.watch()
	result, err := l.Run(r.t.Context())
	if err != nil {
		r.t.Fatalf("%s: %v", s.name, err)
	}
	r.until(s, arrived)
	b := burst{cost: w.end(), accepted: result.PerSecond()}
	b.arrived = float64(l.Letters) / b.took.Seconds()
	b.cpu = b.cost.cpu.Seconds() * 1000 / float64(l.Letters)
	return b
}

func (r *peersRun) until(s *mailServer, ok func() bool) {
	r.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(5 * time.Minute); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			r.t.Fatalf("%s: the letters do not arrive", s.name)
		}
	}
}

func to(addr string) func(int) []string { return func(int) []string { return []string{addr} } }

// toMaildir sends letters to a maildir that had none and counts them there.
func (r *peersRun) toMaildir(s *mailServer, sessions, perSession, letters int) burst {
	user := r.user()
	l := relaytest.Load{Sessions: sessions, PerSession: perSession, Letters: letters, Rcpt: to(user + "@office.test")}
	if s.inbox == nil { // a bare server
		return r.burst(s, l, func() bool { return true })
	}
	b := r.burst(s, l, s.settled)
	if n := fileCount(s.inbox(user)); n != letters {
		r.t.Errorf("%s: %d letters in the maildir of %d", s.name, n, letters)
	}
	return b
}

func (r *peersRun) warmUp() {
	for _, s := range r.both() {
		r.toMaildir(s, 10, 1, 100)
	}
}

func (r *peersRun) maildir() {
	bare := startBare(r.t, "maildir")
	speed := newTable("into maildirs, letters/s", "relayd", "Postfix, in the maildir", "ratio", "Postfix, accepted", "ratio", "bare design", "of it", "disk")
	spent := newTable("into maildirs", "CPU s / 1000: relayd", "Postfix", "ratio", "memory: relayd", "Postfix", "ratio")
	for _, sessions := range peerSessions {
		for _, per := range []int{0, 1} {
			bareRate := r.toMaildir(bare, sessions, per, *peersLetters).accepted
			ours := r.toMaildir(r.ours, sessions, per, *peersLetters)
			theirs := r.toMaildir(r.theirs, sessions, per, *peersLetters)
			name := rowName(sessions, per)
			speed.add(name, rate(ours.arrived), rate(theirs.arrived), over(ours.arrived, theirs.arrived), rate(theirs.accepted),
				over(ours.accepted, theirs.accepted), rate(bareRate), over(ours.accepted, bareRate), rate(diskLimit(r.t, r.t.TempDir(), sessions, letterSize)))
			spent.add(name, ours.cpu, theirs.cpu, over(ours.cpu, theirs.cpu), octet(ours.peak), octet(theirs.peak), over(float64(ours.peak), float64(theirs.peak)))
		}
	}
	r.paper.table("Into maildirs. Postfix answers before it delivers; both its rates are given, the first until the last letter lay in its maildir.", speed)
	r.paper.table("What that cost.", spent)
}

func rowName(sessions, perSession int) string {
	name := fmt.Sprintf("%d session", sessions)
	if sessions > 1 {
		name += "s"
	}
	if perSession == 1 {
		return name + ", a letter each connection"
	}
	return name
}

func (r *peersRun) sink() *relaytest.Sink {
	sink, err := relaytest.NewSink(fmt.Sprintf("127.0.0.2:%d", r.mxPort))
	if err != nil {
		r.t.Fatal(err)
	}
	return sink
}

// throughTo sends letters through a server to the sink.
func (r *peersRun) throughTo(sink *relaytest.Sink, s *mailServer, sessions, perSession int) burst {
	want := sink.Count() + *peersLetters
	l := relaytest.Load{Sessions: sessions, PerSession: perSession, Letters: *peersLetters, Rcpt: to("bob@sink.test")}
	return r.burst(s, l, func() bool { return sink.Count() >= want })
}

func (r *peersRun) relay() {
	bare := startBare(r.t, "queue")
	sink := r.sink()
	defer sink.Close()
	speed := newTable("through the queue, letters/s", "relayd, at the sink", "Postfix", "ratio", "relayd, accepted", "Postfix", "ratio", "bare queue, accepted")
	spent := newTable("through the queue", "CPU s / 1000: relayd", "Postfix", "ratio", "memory: relayd", "Postfix", "ratio")
	for _, sessions := range peerSessions {
		l := relaytest.Load{Sessions: sessions, Letters: *peersLetters, Rcpt: to("bob@sink.test")}
		limit := r.burst(bare, l, func() bool { return true })
		ours := r.throughTo(sink, r.ours, sessions, 0)
		theirs := r.throughTo(sink, r.theirs, sessions, 0)
		name := rowName(sessions, 0)
		speed.add(name, rate(ours.arrived), rate(theirs.arrived), over(ours.arrived, theirs.arrived),
			rate(ours.accepted), rate(theirs.accepted), over(ours.accepted, theirs.accepted), rate(limit.accepted))
		spent.add(name, ours.cpu, theirs.cpu, over(ours.cpu, theirs.cpu), octet(ours.peak), octet(theirs.peak), over(float64(ours.peak), float64(theirs.peak)))
	}
	r.paper.table("Into the queue and out to a sink on loopback.", speed)
	r.paper.table("What that cost.", spent)
}

// idleMemory is what the servers need before anything happens, and what connections cost that say
// nothing. A Postfix as shipped takes 100 at once.
func (r *peersRun) idleMemory() {
	out := newTable("idle", "relayd", "Postfix", "ratio")
	var start, memory, each [2]float64
	for i, s := range r.both() {
		start[i] = s.startUp(r.t).Seconds()
		if i == 0 { // it is quick enough for the best of a few
			for range 4 {
				start[i] = min(start[i], s.startUp(r.t).Seconds())
			}
		}
		<-time.After(settled + time.Second) // it is at rest when its start is over
		memory[i] = float64(s.tree.memory())
		each[i] = r.idleConnections(s, []int{1000, 100}[i])
	}
	duration := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
	out.add("start to the first greeting", duration(start[0]), duration(start[1]), over(start[0], start[1]))
	out.add("memory", octet(memory[0]), octet(memory[1]), over(memory[0], memory[1]))
	out.add("each idle connection (relayd 1000, Postfix 100)", octet(each[0]), octet(each[1]), over(each[0], each[1]))
	r.paper.table("Idle.", out)
}

func (r *peersRun) idleConnections(s *mailServer, n int) float64 {
	r.t.Helper()
	before := s.tree.memory()
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for i := range n {
		c, err := greeted(s.addr)
		if err != nil {
			r.t.Fatalf("%s: connection %d: %v", s.name, i+1, err)
		}
		conns = append(conns, c)
	}
	return float64(s.tree.memory()-before) / float64(n)
}

// backlog fills the queue for a dead destination, looks, and lets it out.
func (r *peersRun) backlog() {
	n := *peersBacklog
	out := newTable(fmt.Sprintf("%d letters for a dead destination", n), "relayd", "Postfix", "ratio")
	var ours, theirs = r.behind(r.ours, n), r.behind(r.theirs, n)
	out.add("accepted into an empty queue, letters/s", rate(ours.empty), rate(theirs.empty), over(ours.empty, theirs.empty))
	out.add("accepted behind the backlog, letters/s", rate(ours.full), rate(theirs.full), over(ours.full, theirs.full))
	out.add("behind / empty", over(ours.full, ours.empty), over(theirs.full, theirs.empty), "")
	out.add("list of all", ours.list, theirs.list, over(ours.list.Seconds(), theirs.list.Seconds()))
	out.add("start to the first greeting", ours.start, theirs.start, over(ours.start.Seconds(), theirs.start.Seconds()))
	out.add("memory after the start", octet(ours.memory), octet(theirs.memory), over(float64(ours.memory), float64(theirs.memory)))
	out.add("heap of a letter queued", octet(ours.item), "-", "")
	out.add("CPU in 3 s with nothing due", ours.idle, theirs.idle, "")
	out.add("drained once it lives, letters/s", rate(ours.drain), rate(theirs.drain), over(ours.drain, theirs.drain))
	out.add("CPU s / 1000 of that", ours.cpu, theirs.cpu, over(ours.cpu, theirs.cpu))
	r.paper.table("A backlog.", out)
}

type behind struct {
	empty, full, drain, cpu float64
	list, start, idle       time.Duration
	memory, item            int64
}

func (r *peersRun) behind(s *mailServer, n int) (b behind) {
	part := min(*peersLetters, n/3)
	fill := func(letters int) float64 {
		return r.burst(s, relaytest.Load{Sessions: 50, Letters: letters, Rcpt: to("bob@sink.test")}, func() bool { return true }).accepted
	}
	s.startUp(r.t)
	r.quiet(s)
	heap := r.heap(s)
	b.empty = fill(part)
	fill(n - 2*part)
	r.quiet(s)
	b.full = fill(part)
	r.quiet(s)
	begin := time.Now()
	listed := output(r.t, s.list)
	b.list = time.Since(begin)
	if lines := bytes.Count(listed, []byte("bob@sink.test")); lines < n {
		r.t.Errorf("%s listed %d letters of %d", s.name, lines, n)
	}
	b.start = s.startUp(r.t)
	r.quiet(s)
	b.memory = s.tree.memory()
	b.item = (r.heap(s) - heap) / int64(n)
	before := s.tree.cpu()
	<-time.After(3 * time.Second)
	b.idle = s.tree.cpu() - before
	r.drain(s, n, &b)
	return b
}

// quiet waits until a server has tried the dead destination for all it got and has nothing to do.
func (r *peersRun) quiet(s *mailServer) {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		before := s.tree.cpu()
		<-time.After(500 * time.Millisecond)
		if s.tree.cpu()-before <= clockTick {
			return
		}
	}
	r.t.Logf("%s is still busy", s.name)
}

func (r *peersRun) drain(s *mailServer, n int, b *behind) {
	sink := r.sink()
	defer sink.Close()
	w := s.tree.watch()
	output(r.t, s.retry)
	r.until(s, func() bool { return sink.Count() >= n })
	c := w.end()
	b.drain, b.cpu = float64(n)/c.took.Seconds(), c.cpu.Seconds()*1000/float64(n)
}

// heap is what relayd's live objects take, asked over its control socket.
func (r *peersRun) heap(s *mailServer) int64 {
	if s != r.ours {
		return 0
	}
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(s.dir, "data/control.sock"))
	}}}
	answer, err := client.Get("http://relayd/debug/pprof/heap?gc=1&debug=1")
	if err != nil {
		r.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "# HeapAlloc = "); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
			return n
		}
	}
	r.t.Fatal("no HeapAlloc in the heap profile")
	return 0
}
