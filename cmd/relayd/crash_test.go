package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"relayd/relay/relaytest"
)

// crashes is how often TestCrash kills the daemon; `make crash` asks for 200.
func crashes(t *testing.T) int {
	if n, err := strconv.Atoi(os.Getenv("RELAYD_CRASHES")); err == nil {
		return n
	}
	if testing.Short() {
		return 2
	}
	return 6
}

// TestCrash kills the daemon at random moments of bursts of numbered letters, local, foreign and
// mixed. Afterwards every letter that was answered 250 is in its maildir or at the sink, and
// whatever a reader can see is whole.
func TestCrash(t *testing.T) {
	t.Parallel()
	c := newCrashRun(t)
	var unsure int
	for range crashes(t) {
		unsure += c.burst()
	}
	c.finish()
	lost, duplicates := c.count()
	t.Logf("%d letters promised, %d lost, %d duplicates among %d unanswered at a kill", len(c.promised), lost, duplicates, unsure)
	if lost > 0 {
		t.Errorf("%d letters were promised and lost", lost)
	}
}

type crashRun struct {
	t          *testing.T
	dir, path  string
	sink       *relaytest.MXServer
	mu         sync.Mutex
	next       int
	promised   map[int]bool
	wantLocal  map[int]bool
	wantRemote map[int]bool
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
	sink, err := relaytest.NewMX(fmt.Sprintf("127.0.0.4:%d", port), relaytest.MXScript{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sink.Close() })
	dns := relaytest.ServeDNS(t, "sink.test. MX 10 mx.sink.test.\nmx.sink.test. A 127.0.0.4\n")
	c := &crashRun{t: t, dir: t.TempDir(), sink: sink, promised: map[int]bool{}, wantLocal: map[int]bool{}, wantRemote: map[int]bool{}}
	if c.path, err = exec.LookPath("relayd"); err != nil {
		t.Fatal(err)
	}
	config := fmt.Appendf(nil, crashConfig, dns.Addr(), port)
	if err := os.WriteFile(filepath.Join(c.dir, "relayd.toml"), config, 0o600); err != nil {
		t.Fatal(err)
	}
	c.ctl("correct horse", "user", "add", "ann@office.test", "--password-stdin")
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

func (c *crashRun) launch() *server {
	c.t.Helper()
	d, err := launch(c.path, c.dir, "--config", "relayd.toml")
	if err != nil {
		c.t.Fatal(err)
	}
	return d
}

// rcpts makes every third letter local, foreign, or both.
func (c *crashRun) rcpts(n int) []string {
	return [][]string{{"ann@office.test"}, {"bob@sink.test"}, {"ann@office.test", "bob@sink.test"}}[n%3]
}

// burst starts the daemon, sends until it is killed, and says how many letters were left without
// an answer.
func (c *crashRun) burst() (unanswered int) {
	d := c.launch()
	kill := time.AfterFunc(time.Duration(20+rand.IntN(400))*time.Millisecond, func() { d.cmd.Process.Kill() })
	defer kill.Stop()
	const letters = 100_000
	relaytest.Load{
		Addr: d.addrs["smtp"], Sessions: 8, Letters: letters, First: c.next, Size: 4 << 10, Rcpt: c.rcpts, PerSession: 20,
		Accepted: func(n int, _ string) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.promised[n] = true
			c.wantLocal[n] = n%3 != 1
			c.wantRemote[n] = n%3 != 0
		},
	}.Run(c.t.Context()) // it ends with an error: the daemon is gone
	c.next += letters
	d.kill()
	return 8
}

// finish starts the daemon once more and lets it bring everything out.
func (c *crashRun) finish() {
	c.t.Helper()
	d := c.launch()
	c.ctl("", "queue", "retry", "--all", "--yes")
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(2 * patience); c.ctl("", "--json", "queue", "ls") != ""; <-tick.C {
		if time.Now().After(deadline) {
			c.t.Fatalf("the queue does not empty:\n%s", c.ctl("", "queue", "ls"))
		}
	}
	if err := d.stop(); err != nil {
		c.t.Errorf("%v\n%s", err, d.log.String())
	}
}

func (c *crashRun) count() (lost, duplicates int) {
	c.t.Helper()
	local, remote := map[int]int{}, map[int]int{}
	names, err := filepath.Glob(filepath.Join(c.dir, "data/mail/office.test/ann/new/*"))
	if err != nil {
		c.t.Fatal(err)
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			c.t.Fatal(err)
		}
		if !bytes.HasSuffix(data, []byte("\nThe end.\n")) {
			c.t.Errorf("%s is visible and not whole", name)
		}
		local[number(data)]++
	}
	for _, l := range c.sink.Letters() {
		if !bytes.HasSuffix(l.Body, []byte("\r\nThe end.\r\n")) {
			c.t.Errorf("the sink got a letter that is not whole")
		}
		remote[number(l.Body)]++
	}
	for n := range c.promised {
		if c.wantLocal[n] && local[n] == 0 {
			lost++
			c.t.Errorf("letter %d was promised and is not in the maildir", n)
		}
		if c.wantRemote[n] && remote[n] == 0 {
			lost++
			c.t.Errorf("letter %d was promised and did not reach the sink", n)
		}
	}
	for _, m := range []map[int]int{local, remote} {
		for _, times := range m {
			duplicates += times - 1
		}
	}
	return lost, duplicates
}

func number(letter []byte) int {
	_, rest, _ := bytes.Cut(letter, []byte("X-Number: "))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	n, err := strconv.Atoi(strings.TrimSpace(string(line)))
	if err != nil {
		return -1
	}
	return n
}
