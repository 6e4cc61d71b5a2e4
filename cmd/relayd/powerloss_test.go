//go:build interop

package main

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"relayd/relay/relaytest"
)

// The order of writes, names and flushes of the real daemon, as strace sees it, says what a power
// cut at any moment leaves: whatever was not flushed is gone. At each 250 the letter's octets and
// names must have been flushed after the last of them was made, a queued letter's with the trailer
// that says whom it is for, and before any record of it. A body is removed only when the letter has gone out whole
// to every host, and the report of a refused recipient been flushed; and one that has a record only
// after a commit that began then.
func TestInteropPowerLoss(t *testing.T) {
	dns := relaytest.ServeDNS(t, "sink.test. MX 10 mx.sink.test.\nother.test. MX 10 mx.sink.test.\nmx.sink.test. A 127.0.0.6\n")
	port := freePort()
	rules, err := relaytest.ParseMXScript("rcpt nobody@* 550 5.1.1 no such user")
	if err != nil {
		t.Fatal(err)
	}
	sink, err := relaytest.NewMX(fmt.Sprintf("127.0.0.6:%d", port), rules)
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	o := &office{t: t, dir: t.TempDir()}
	o.write("relayd.toml", officeConfig+fmt.Sprintf("[dns]\nservers = [%q]\n[outbound]\nport = %d\nallow_loopback = true\n", dns.Addr(), port))
	for _, user := range []string{"ann", "carol"} {
		o.ctl(officePassword, "user", "add", user+"@office.test", "--password-stdin")
	}
	// -D: strace stands aside, so that the process we start is relayd.
	cmd := exec.Command("strace", "-D", "-f", "--seccomp-bpf", "-y", "-s", "200000", "-o", o.path("trace"),
		"-e", "trace=write,pwrite64,writev,sendto,rename,renameat,renameat2,link,linkat,unlink,unlinkat,fsync,fdatasync,syncfs,sync_file_range,ftruncate",
		bin(t, "relayd"), "--config", o.path("relayd.toml"))
	cmd.Dir = o.dir
	if o.server, err = launchCommand(cmd); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	promised := map[string][]string{}
	_, err = relaytest.Load{
		Addr: o.addrs["smtp"], Sessions: 6, Letters: 120, Size: 4 << 10, From: "ann@office.test", Rcpt: crashRcpts,
		Accepted: func(n int, id string) {
			mu.Lock()
			promised[id] = crashRcpts(n)
			mu.Unlock()
			if n%8 == 0 {
				o.ctl("", "queue", "ls") // whoever looks gives every letter its record
			}
		},
	}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	o.await(patience, func() string {
		left, _ := filepath.Glob(o.path("data/queue/bodies/*"))
		return strings.Join(left, " ")
	})
	o.close()
	events := o.readTrace()
	flushes := map[string]int{}
	for id, rcpts := range promised {
		p := &promise{t: t, id: id, events: events, flushes: flushes}
		p.check(rcpts)
		p.checkSettled(rcpts)
	}
	t.Logf("%d letters promised, %d events, proved by %v", len(promised), len(events), flushes)
}

// event is one system call; it began and ended at these lines of the trace.
type event struct {
	begin, end int
	call, args string
}

var traceLine = regexp.MustCompile(`^(\d+) +(?:<\.\.\. )?([a-z0-9_]+)(?: resumed>|\()(.*)$`)

// readTrace reads what strace wrote, which ends a moment after the daemon. Calls that failed are
// left out: they promise nothing.
func (o *office) readTrace() []event {
	o.t.Helper()
	var text []byte
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !strings.HasSuffix(string(text), "+++ exited with 0 +++\n"); <-tick.C {
		text, _ = os.ReadFile(o.path("trace"))
		if time.Now().After(deadline) {
			o.t.Fatal("strace has not seen the end")
		}
	}
	var events []event
	open := map[string]event{}
	for i, line := range strings.Split(string(text), "\n") {
		m := traceLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		pid, e := m[1], event{begin: i, end: i, call: m[2], args: m[3]}
		if begun, ok := open[pid]; ok && begun.call == e.call {
			delete(open, pid)
			e.begin, e.args = begun.begin, begun.args+e.args
		}
		if args, ok := strings.CutSuffix(e.args, " <unfinished ...>"); ok {
			e.args = args
			open[pid] = e
			continue
		}
		if !strings.Contains(e.args[strings.LastIndexByte(e.args, ')')+1:], "= -1") {
			events = append(events, e)
		}
	}
	slices.SortStableFunc(events, func(a, b event) int { return cmp.Compare(a.end, b.end) })
	return events
}

// promise is one letter answered 250.
type promise struct {
	t       *testing.T
	id      string
	events  []event
	flushes map[string]int // how letters were made durable
	at      int            // when the 250 began
}

func (p *promise) check(rcpts []string) {
	p.t.Helper()
	said := p.find("the 250", 0, func(e event) bool { return strings.Contains(e.args, `"250 2.0.0 queued as `+p.id) })
	p.at = said.begin
	for _, r := range rcpts {
		if box, ok := strings.CutSuffix(r, "@office.test"); ok {
			p.checkMaildir(box)
		} else {
			p.checkQueue()
		}
	}
}

// checkMaildir wants the last write and the name of the letter flushed before the 250.
func (p *promise) checkMaildir(box string) {
	p.t.Helper()
	named := p.last("a name for "+box, func(e event) bool {
		return strings.Contains(e.call, "rename") || strings.Contains(e.call, "link") && !strings.Contains(e.call, "unlink")
	}, "/"+box+"/new/", "R"+p.id)
	written := p.last("a write to the maildir", func(e event) bool { return e.call == "write" && !strings.Contains(e.args, "queued as") }, "R"+p.id)
	if written.end > named.begin {
		p.t.Errorf("%s: named before it was written", p.id)
	}
	p.flushed(named.end, p.at, "R"+p.id, "/"+box+"/new>")
}

// checkQueue wants the body flushed whole, with its trailer, before the 250 and before any record of
// it is written.
func (p *promise) checkQueue() {
	p.t.Helper()
	body := p.last("the end of the body", func(e event) bool { return e.call == "write" }, "/queue/bodies/"+p.id+">", "relayd1 ")
	before := p.at
	if record, ok := p.record(p.at); ok {
		before = record.begin
	}
	p.flushed(body.end, before, "/bodies/"+p.id+">", "/queue/bodies>")
}

// record is the first write of a record of the letter that begins before a line of the trace.
func (p *promise) record(before int) (event, bool) {
	for _, e := range p.events {
		if e.begin < before && isDB(e, "pwrite64") && strings.Contains(e.args, p.id+"/") {
			return e, true
		}
	}
	return event{}, false
}

// checkSettled wants the last that was owed for a queued letter before the removal of its body, and
// a whole commit between them if the letter had a record.
func (p *promise) checkSettled(rcpts []string) {
	p.t.Helper()
	if !slices.ContainsFunc(rcpts, func(r string) bool { return !strings.HasSuffix(r, "@office.test") }) {
		return
	}
	gone := p.find("the removal of the body", 0, func(e event) bool {
		_, behind, ok := strings.Cut(e.args, "/queue/bodies/"+p.id+`"`)
		return ok && (strings.Contains(e.call, "unlink") || strings.Contains(e.call, "rename") && strings.Contains(behind, "/queue/spare/"))
	})
	p.at = gone.begin
	owed := 0
	for _, r := range rcpts {
		if strings.HasPrefix(r, "bob@") || strings.HasPrefix(r, "dora@") {
			// Logged when the remote has taken the letter, before that is recorded.
			taken := p.last("the delivery to "+r, func(e event) bool { return strings.Contains(e.args, "msg=delivered") }, "id="+p.id, "rcpt="+r)
			owed = max(owed, taken.end)
		}
	}
	if slices.Contains(rcpts, "nobody@sink.test") {
		owed = max(owed, p.checkReport())
	}
	if owed >= gone.begin {
		p.t.Errorf("%s: its body was removed before it was settled", p.id)
	}
	if _, ok := p.record(gone.begin); !ok {
		p.flushes["no record"]++
		return
	}
	first := p.find("a commit of the outcome", owed, func(e event) bool { return isDB(e, "fdatasync") && e.begin > owed })
	meta := p.find("its meta page", first.end, func(e event) bool { return isMeta(e) && e.begin > first.end })
	second := p.find("its last flush", meta.end, func(e event) bool { return isDB(e, "fdatasync") && e.begin > meta.end })
	if second.end >= gone.begin {
		p.t.Errorf("%s: its body was removed before its outcome was durable", p.id)
	}
}

var reportFile = regexp.MustCompile(`/ann/tmp/[^>]*R([0-9a-z]+)`)

// checkReport wants the report in ann's maildir, flushed before the body of its letter went, and
// returns where its name was made.
func (p *promise) checkReport() int {
	p.t.Helper()
	written := p.last("the report", func(e event) bool {
		m := reportFile.FindStringSubmatch(e.args[:min(len(e.args), 300)])
		return e.call == "write" && m != nil && m[1] != p.id
	}, "id "+p.id, "nobody@sink.test")
	id := reportFile.FindStringSubmatch(written.args)[1]
	named := p.last("the name of the report", func(e event) bool { return strings.Contains(e.call, "rename") }, "/ann/new/", "R"+id)
	p.flushed(named.end, p.at, "R"+id, "/ann/new>")
	return named.end
}

func isDB(e event, call string) bool {
	return e.call == call && strings.Contains(e.args[:min(len(e.args), 300)], "/queue/relayd.db>")
}

var metaOffset = regexp.MustCompile(`, (0|4096|16384|65536)\) += `)

func isMeta(e event) bool { return isDB(e, "pwrite64") && metaOffset.MatchString(e.args) }

// oneJournal says whether fsync of a file makes its names durable where the tests write.
func oneJournal(t *testing.T) bool {
	var st unix.Statfs_t
	if err := unix.Statfs(os.TempDir(), &st); err != nil {
		t.Fatal(err)
	}
	return st.Type == unix.EXT4_SUPER_MAGIC || st.Type == unix.XFS_SUPER_MAGIC
}

// flushed wants a flush that began after from and ended before to: of the file system, of the
// file, the first of paths, where that brings the names along, or of everything that paths name.
func (p *promise) flushed(from, to int, paths ...string) {
	p.t.Helper()
	within := func(call, path string) bool {
		return slices.ContainsFunc(p.events, func(e event) bool {
			return e.begin > from && e.end < to && e.call == call && strings.Contains(e.args, path)
		})
	}
	if within("syncfs", filepath.Base("data")) {
		p.flushes["syncfs"]++
		return
	}
	if oneJournal(p.t) && within("fsync", paths[0]) {
		p.flushes["fsync of the file"]++
		return
	}
	for _, path := range paths {
		if !within("fsync", path) {
			p.t.Errorf("%s: no flush of %s between lines %d and %d of the trace", p.id, path, from, to)
		}
	}
	p.flushes["fsync"]++
}

// find is the first event after line from that is meant.
func (p *promise) find(what string, from int, meant func(event) bool) event {
	p.t.Helper()
	for _, e := range p.events {
		if e.begin >= from && meant(e) {
			return e
		}
	}
	p.t.Fatalf("%s: the trace shows nowhere %s", p.id, what)
	return event{}
}

// last is the last event before the 250 that is meant and speaks of all words.
func (p *promise) last(what string, meant func(event) bool, words ...string) event {
	p.t.Helper()
	for _, e := range slices.Backward(p.events) {
		if e.begin < p.at && meant(e) && !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(e.args, w) }) {
			return e
		}
	}
	p.t.Fatalf("%s: the trace shows nowhere %s", p.id, what)
	return event{}
}
