package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"relayd/relay/relaytest"
)

// siege is a relayd with its default limits that strangers from 127.1.0.0/16 besiege while a
// neighbour goes on sending letters to ann. Only 127.0.0.1 is trusted.
type siege struct {
	t      *testing.T
	d      *server
	dir    string
	mxPort int
	ctl    *http.Client
}

const siegeConfig = `
hostname = "mail.office.test"
data_dir = "data"
[listen]
smtp = "127.0.0.1:0"
submissions = "127.0.0.1:0"
pop3 = "127.0.0.1:0"
[domains."office.test"]
postmaster = "ann"
[trust]
networks = ["127.0.0.1/32"]
[dns]
servers = [%q]
[outbound]
port = %d
allow_loopback = true
[log]
level = "error"
[limits]
min_free_disk = "1MB"
`

// hostileStages name the domains STAGE.hostile.test, whose hosts are no friends at that stage of a
// session; hostileAddr is where a test may put them.
var hostileStages = []string{"banner", "ehlo", "mail", "rcpt", "data", "eom"}

func hostileAddr(i int) string { return fmt.Sprintf("127.0.5.%d", i+1) }

func besiege(t *testing.T) *siege {
	t.Helper()
	s := &siege{t: t, dir: t.TempDir(), mxPort: freePort()}
	var zone strings.Builder
	for i, stage := range hostileStages {
		fmt.Fprintf(&zone, "%[1]s.hostile.test. MX 10 mx.%[1]s.hostile.test.\nmx.%[1]s.hostile.test. A %[2]s\n", stage, hostileAddr(i))
	}
	dns := relaytest.ServeDNS(t, zone.String())
	config := filepath.Join(s.dir, "relayd.toml")
	if err := os.WriteFile(config, fmt.Appendf(nil, siegeConfig, dns.Addr(), s.mxPort), 0o600); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(s.dir, "data")
	if err := errors.Join(os.Mkdir(data, 0o700), os.WriteFile(filepath.Join(data, "users"), siegeUsers(), 0o600)); err != nil {
		t.Fatal(err)
	}
	path, err := exec.LookPath("relayd")
	if err != nil {
		t.Fatal(err)
	}
	if s.d, err = launch(path, s.dir, "--config", config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.d.stop(); err != nil || t.Failed() {
			t.Errorf("%v\n%s", err, s.d.log.String())
		}
	})
	s.ctl = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(s.dir, "data/control.sock"))
	}}}
	t.Cleanup(s.ctl.CloseIdleConnections)
	return s
}

// siegeUsers is a users file with ann in it; its one hash serves all sieges.
var siegeUsers = sync.OnceValue(func() []byte {
	dir, err := os.MkdirTemp("", "siege")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	add := exec.Command("relayctl", "--data-dir", dir, "user", "add", "ann@office.test", "--password-stdin")
	add.Stdin = strings.NewReader("correct horse battery")
	if out, err := add.CombinedOutput(); err != nil {
		panic(fmt.Sprintf("%v: %s", err, out))
	}
	users, err := os.ReadFile(filepath.Join(dir, "users"))
	if err != nil {
		panic(err)
	}
	return users
})

// ask gets a page of the control socket.
func (s *siege) ask(page string) []byte {
	s.t.Helper()
	resp, err := s.ctl.Get("http://relayd" + page)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		s.t.Fatalf("%s: %s, %v", page, resp.Status, err)
	}
	return b
}

// gauge reads one figure of /metrics.
func (s *siege) gauge(name string) int {
	s.t.Helper()
	for line := range bytes.Lines(s.ask("/metrics")) {
		if text, ok := bytes.CutPrefix(line, []byte(name+" ")); ok {
			n, err := strconv.ParseFloat(string(bytes.TrimSpace(text)), 64)
			if err != nil {
				s.t.Fatal(err)
			}
			return int(n)
		}
	}
	s.t.Fatalf("no %s in /metrics", name)
	return 0
}

func (s *siege) goroutines() int { s.t.Helper(); return s.gauge("go_goroutines") }

// settled waits until no more goroutines run than before the siege.
func (s *siege) settled(before int) {
	s.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(patience)
	for s.goroutines() > before {
		if time.Now().After(deadline) {
			s.t.Errorf("%d goroutines, %d before:\n%s", s.goroutines(), before, s.ask("/debug/pprof/goroutine?debug=1"))
			return
		}
		<-tick.C
	}
}

// memory reads a figure of the daemon's /proc/PID/status, in octets: VmRSS is what it holds now,
// VmHWM the most it ever held.
func (s *siege) memory(field string) int {
	s.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.d.cmd.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			kb, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
			if err != nil {
				s.t.Fatal(err)
			}
			return kb << 10
		}
	}
	s.t.Fatalf("no %s in /proc", field)
	return 0
}

// stranger connects to a service from an address of its own; n chooses it, 50 to an address as
// the default limit has it.
func (s *siege) stranger(service string, n int) (*dialogue, error) {
	from := &net.TCPAddr{IP: net.IPv4(127, 1, byte(len(service)), byte(n/50)+1)}
	conn, err := (&net.Dialer{LocalAddr: from, Timeout: patience}).Dial("tcp", s.d.addrs[service])
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(siegePatience))
	return &dialogue{Conn: conn, r: bufio.NewReaderSize(conn, 512)}, nil
}

// siegePatience bounds what one stranger may have to wait for.
const siegePatience = time.Minute

// strangers runs n of them at once and reports what goes wrong with any.
func (s *siege) strangers(service string, n int, do func(d *dialogue, i int) error) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			d, err := s.stranger(service, i)
			if err != nil {
				s.t.Error(err)
				return
			}
			defer d.Close()
			if err := do(d, i); err != nil {
				s.t.Errorf("stranger %d: %v", i, err)
			}
		})
	}
	wg.Wait()
}

// neighbour sends a letter now and then over one session, and says when told to stop how long
// each took.
func (s *siege) neighbour() (stop func() []time.Duration) {
	s.t.Helper()
	d, err := dial(s.d.addrs["smtp"])
	if err != nil {
		s.t.Fatal(err)
	}
	d.SetDeadline(time.Now().Add(5 * time.Minute))
	d.expect("220")
	d.say("EHLO neighbour.test")
	over := make(chan struct{})
	var took []time.Duration
	var wg sync.WaitGroup
	wg.Go(func() {
		defer d.Close()
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			start := time.Now()
			if said, ok := d.letter("neighbour@partner.example", []string{"ann@office.test"}, []byte("Subject: hello\r\n\r\nhello\r\n")); !ok {
				s.t.Errorf("the neighbour's letter was answered %q, %v", said, d.err)
				return
			}
			took = append(took, time.Since(start))
			select {
			case <-over:
				return
			case <-tick.C:
			}
		}
	})
	return func() []time.Duration { close(over); wg.Wait(); return took }
}

// run lets the neighbour send during the attack, and checks what is left of us afterwards: memory
// within bound, the neighbour served, no goroutine left behind.
func (s *siege) run(bound int, attack func()) {
	s.t.Helper()
	s.ask("/metrics")
	before, memory := s.goroutines(), s.memory("VmRSS")
	start := time.Now()
	stop := s.neighbour()
	attack()
	took := stop()
	peak := s.memory("VmHWM")
	slices.Sort(took)
	if len(took) == 0 {
		s.t.Fatal("the neighbour sent nothing")
	}
	median, slowest := took[len(took)/2], took[len(took)-1]
	s.t.Logf("%v; neighbour: %d letters, median %v, slowest %v; memory: %.1f MB before, %.1f MB at most",
		time.Since(start).Round(time.Millisecond), len(took), median.Round(100*time.Microsecond), slowest.Round(100*time.Microsecond),
		float64(memory)/1e6, float64(peak)/1e6)
	// Wide enough for a machine that has other things to do; somebody who is starved waits longer.
	// Under the race detector everything takes its several times as long, and only races count. A
	// short siege sees too few letters for a median to mean anything.
	if !raceEnabled && (len(took) >= 20 && median > 2*time.Second || slowest > 15*time.Second) {
		s.t.Errorf("the neighbour's letters took %v, the slowest %v", median, slowest)
	}
	if !raceEnabled && peak > bound {
		s.t.Errorf("it took %d octets of memory, the bound is %d", peak, bound)
	}
	s.settled(before)
}
