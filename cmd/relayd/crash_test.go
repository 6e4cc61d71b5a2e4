package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"relayd/queue"
	"relayd/relay/relaytest"
)

// crashes is how often a test kills the daemon; `make crash` asks each of the two for 200.
func crashes(usual int) int {
	if n, err := strconv.Atoi(os.Getenv("RELAYD_CRASHES")); err == nil {
		return n
	}
	if testing.Short() {
		return 2
	}
	return usual
}

// TestCrash kills the daemon at random moments of bursts of numbered letters: local, linked,
// foreign, mixed, refused by the remote. Whenever it is down, what a reader can see is whole, and
// every local letter answered 250 is there. In the end every letter answered 250 has reached each
// recipient's mailbox, the sink, or the sender in a report.
func TestCrash(t *testing.T) {
	t.Parallel()
	c := newCrashRun(t)
	for range crashes(6) {
		c.burst("", time.Duration(20+rand.IntN(400))*time.Millisecond)
	}
	c.finish()
}

// TestCrashAtSteps kills it right after each named step of accept, attempt, settling and report.
func TestCrashAtSteps(t *testing.T) {
	t.Parallel()
	steps := stepNames(t)
	c := newCrashRun(t)
	for i := range crashes(len(steps)) {
		name := steps[i%len(steps)]
		c.burst(fmt.Sprintf("%s@%d", name, 1+rand.IntN(12)), 0)
	}
	c.finish()
}

// stepNames reads from the source which steps there are, so that a new one is tried as well.
func stepNames(t *testing.T) []string {
	var names []string
	call := regexp.MustCompile(`\.[sS]tep\("([a-z]+: [a-z ]+)"\)`)
	for _, dir := range []string{"queue", "delivery", "delivery/maildir", "relay/intake"} {
		files, _ := filepath.Glob(filepath.Join("../..", dir, "*.go"))
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range call.FindAllSubmatch(text, -1) {
				names = append(names, string(m[1]))
			}
		}
	}
	slices.Sort(names)
	if names = slices.Compact(names); len(names) < 19 {
		t.Fatalf("only these steps are named: %q", names)
	}
	return names
}

// dieAtEnv makes a relayd of the tests kill itself: "STEP@N" at the Nth time of the step since it got its
// first letter. What the start itself commits comes before READY, for which the test waits.
const dieAtEnv = "RELAYD_TEST_DIE_AT"

func dieAt(at string) func(string) {
	name, times, ok := strings.Cut(at, "@")
	if !ok {
		return nil
	}
	n, _ := strconv.ParseInt(times, 10, 64)
	var count atomic.Int64
	var serving atomic.Bool
	return func(step string) {
		if strings.HasPrefix(step, "accept: ") {
			serving.Store(true)
		}
		if serving.Load() && step == name && count.Add(1) == n {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // the goroutine must not get one line further
		}
	}
}

// crashRun is a data directory that outlives many daemons.
type crashRun struct {
	t         *testing.T
	dir, path string
	sink      *relaytest.MXServer
	ledger    *ledger
	next      int
	kills     int
}

const crashConfig = `
hostname = "mail.office.test"
data_dir = "data"
[listen]
smtp = "127.0.0.1:0"
[domains."office.test"]
postmaster = "ann"
[trust]
networks = ["127.0.0.0/8"]
[dns]
servers = [%q]
[outbound]
port = %d
allow_loopback = true
[limits]
min_free_disk = "1MB"
`

func newCrashRun(t *testing.T) *crashRun {
	port := freePort()
	rules, err := relaytest.ParseMXScript("rcpt nobody@* 550 5.1.1 no such user")
	if err != nil {
		t.Fatal(err)
	}
	sink, err := relaytest.NewMX(fmt.Sprintf("127.0.0.4:%d", port), rules)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sink.Close() })
	dns := relaytest.ServeDNS(t, "sink.test. MX 10 mx.sink.test.\nother.test. MX 10 mx.sink.test.\nmx.sink.test. A 127.0.0.4\n")
	c := &crashRun{t: t, dir: t.TempDir(), sink: sink}
	c.ledger = newLedger(t, filepath.Join(c.dir, "data/mail/office.test"))
	if c.path, err = exec.LookPath("relayd"); err != nil {
		t.Fatal(err)
	}
	config := fmt.Appendf(nil, crashConfig, dns.Addr(), port)
	if err := os.WriteFile(filepath.Join(c.dir, "relayd.toml"), config, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, user := range []string{"ann", "carol"} {
		c.ctl("correct horse", "user", "add", user+"@office.test", "--password-stdin")
	}
	return c
}

func (c *crashRun) ctl(stdin string, args ...string) string {
	c.t.Helper()
	cmd := exec.Command("relayctl", append([]string{"--config", "relayd.toml"}, args...)...)
	cmd.Dir, cmd.Stdin = c.dir, strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		c.t.Fatalf("relayctl %q: %v\n%s", args, err, out)
	}
	return string(out)
}

func (c *crashRun) launch(env ...string) *server {
	c.t.Helper()
	cmd := exec.Command(c.path, "--config", "relayd.toml")
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), env...)
	d, err := launchCommand(cmd)
	if err != nil {
		c.t.Fatal(err)
	}
	return d
}

// crashSessions send at the same time, so each kill leaves at most so many letters unanswered.
const crashSessions = 8

// burst starts the daemon and sends until it is dead: by itself at a step, or after a time.
func (c *crashRun) burst(at string, after time.Duration) {
	c.t.Helper()
	d := c.launch(dieAtEnv + "=" + at)
	if after > 0 {
		kill := time.AfterFunc(after, func() { d.cmd.Process.Kill() })
		defer kill.Stop()
	}
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	const letters = 100_000
	relaytest.Load{
		Addr: d.addrs["smtp"], Sessions: crashSessions, Letters: letters, First: c.next, Size: 4 << 10, PerSession: 20,
		From: "ann@office.test", Rcpt: crashRcpts, Accepted: c.ledger.accept,
	}.Run(ctx) // it ends with an error: the daemon is gone
	c.next += letters
	c.kills++
	d.kill()
	if ctx.Err() != nil {
		c.t.Fatalf("the daemon never came to %q; it said:\n%s", at, d.log.String())
	}
	c.ledger.readMailboxes()
	c.ledger.checkLocal(at)
}

// emptyQueue has all that waits tried until nothing is left; ctl is relayctl.
func emptyQueue(t *testing.T, ctl func(stdin string, args ...string) string, within time.Duration) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(within); ctl("", "--json", "queue", "ls") != ""; <-tick.C {
		ctl("", "queue", "retry", "--all", "--yes")
		if time.Now().After(deadline) {
			t.Fatalf("the queue does not empty:\n%s", ctl("", "queue", "ls"))
		}
	}
}

// finish starts the daemon once more, lets it bring everything out, and counts.
func (c *crashRun) finish() {
	c.t.Helper()
	d := c.launch()
	emptyQueue(c.t, c.ctl, 4*patience)
	if err := d.stop(); err != nil {
		c.t.Errorf("%v\n%s", err, d.log.String())
	}
	c.ledger.readMailboxes()
	c.ledger.readSink(c.sink.Letters())
	c.ledger.check(c.kills)
	c.checkQueue()
	c.checkLitter()
}

// checkQueue wants an empty and consistent queue without anything set aside.
func (c *crashRun) checkQueue() {
	dir := filepath.Join(c.dir, "data/queue")
	q, err := queue.Open(dir, queue.Options{})
	if err != nil {
		c.t.Fatal(err)
	}
	if err := q.Check(c.t.Context()); err != nil {
		c.t.Error(err)
	}
	if err := q.Close(); err != nil {
		c.t.Error(err)
	}
	left, _ := filepath.Glob(dir + "/bodies/*")
	corrupt, _ := filepath.Glob(dir + "/corrupt/*")
	if len(left)+len(corrupt) > 0 {
		c.t.Errorf("%d bodies are left, %d were set aside", len(left), len(corrupt))
	}
}

// checkLitter turns the clock of what is left in tmp/ and wants it gone after the next start.
func (c *crashRun) checkLitter() {
	pattern := filepath.Join(c.dir, "data/mail/office.test/*/tmp/*")
	litter, _ := filepath.Glob(pattern)
	old := time.Now().Add(-37 * time.Hour)
	for _, name := range litter {
		if err := os.Chtimes(name, old, old); err != nil {
			c.t.Error(err)
		}
	}
	d := c.launch()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		if left, _ := filepath.Glob(pattern); len(left) == 0 {
			break
		} else if time.Now().After(deadline) {
			c.t.Errorf("%d files of %d stay in tmp/", len(left), len(litter))
			break
		}
	}
	if err := d.stop(); err != nil {
		c.t.Error(err)
	}
	c.t.Logf("%d files of interrupted letters lay in tmp/ and were cleaned", len(litter))
}
