package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"relayd/relay/relaytest"
)

// The rows of the five systems this project starts from that show only in the whole daemon and need
// more than a story tells (testdata/script/seed_*.txtar).

const seedConfig = `
hostname = "mail.office.test"
data_dir = "data"
[listen]
smtp = "127.0.0.1:0"
pop3 = "127.0.0.1:0"
[domains."office.test"]
postmaster = "user0"
[limits]
min_free_disk = "1MB"
`

// seedOffice starts a daemon with so many users, user0@office.test and so on, and returns a
// function that runs relayctl for it.
func seedOffice(t *testing.T, users int) (d *server, ctl func(stdin string, args ...string) string) {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "relayd.toml")
	if err := os.WriteFile(config, []byte(seedConfig), 0o600); err != nil {
		t.Fatal(err)
	}
	ctl = func(stdin string, args ...string) string {
		t.Helper()
		cmd := exec.Command("relayctl", append([]string{"--config", config}, args...)...)
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("relayctl %q: %v: %s", args, err, out)
		}
		return string(out)
	}
	for i := range users {
		ctl("correct horse battery", "user", "add", fmt.Sprintf("user%d@office.test", i), "--password-stdin")
	}
	path, err := exec.LookPath("relayd")
	if err != nil {
		t.Fatal(err)
	}
	if d, err = launch(path, dir, "--config", config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.kill)
	return d, ctl
}

// Many users and connections at once: twenty sessions write to four people, who collect meanwhile
// again and again; everybody has got everything once, and in the end nothing is left.
func TestSeed_S1_13(t *testing.T) {
	t.Parallel()
	const users, letters = 4, 200
	d, _ := seedOffice(t, users)
	var wg sync.WaitGroup
	got := make([]int, users)
	for u := range users {
		wg.Go(func() {
			for deadline := time.Now().Add(patience); got[u] < letters/users && time.Now().Before(deadline); {
				n, err := collect(d.addrs["pop3"], fmt.Sprintf("user%d@office.test", u))
				if err != nil {
					t.Error(err)
					return
				}
				got[u] += n
			}
		})
	}
	_, err := relaytest.Load{
		Addr: d.addrs["smtp"], Sessions: 20, Letters: letters, Size: 2 << 10,
		Rcpt: func(i int) []string { return []string{fmt.Sprintf("user%d@office.test", i%users)} },
	}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	for u, n := range got {
		if n != letters/users {
			t.Errorf("user%d collected %d letters of %d", u, n, letters/users)
		}
	}
}

// collect fetches and deletes whatever is in a maildrop, and says how many letters it was.
func collect(addr, user string) (n int, err error) {
	p, err := dial(addr)
	if err != nil {
		return 0, err
	}
	defer p.Close()
	p.expect("+OK")
	p.pop("USER " + user)
	p.pop("PASS correct horse battery")
	if _, err := fmt.Sscanf(p.pop("STAT"), "+OK %d", &n); err != nil {
		return 0, err
	}
	for i := range n {
		if letter := p.pop(fmt.Sprintf("RETR %d", i+1)); !strings.HasPrefix(letter, "+OK") {
			return 0, fmt.Errorf("RETR %d of %d: %s", i+1, n, letter)
		}
		p.pop(fmt.Sprintf("DELE %d", i+1))
	}
	if bye := p.pop("QUIT"); !strings.HasPrefix(bye, "+OK") {
		return 0, fmt.Errorf("QUIT: %s", bye)
	}
	return n, p.err
}

// A clean stop on SIGINT and on SIGTERM, with clients in the middle of things: they are told, and
// the exit status is 0 within the ten seconds promised.
func TestSeed_S4_2_CleanStop(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		d, _ := seedOffice(t, 0)
		idle, err := dial(d.addrs["smtp"])
		if err != nil {
			t.Fatal(err)
		}
		defer idle.Close()
		idle.expect("220")
		idle.say("EHLO client.example")
		pop, err := dial(d.addrs["pop3"])
		if err != nil {
			t.Fatal(err)
		}
		defer pop.Close()
		pop.expect("+OK")
		start := time.Now()
		if err := d.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if last := idle.reply(); !strings.HasPrefix(last, "421 4.3.2 ") {
			t.Errorf("%v: the client heard %q", sig, last)
		}
		if err := d.cmd.Wait(); err != nil {
			t.Errorf("%v: %v\n%s", sig, err, d.log.String())
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("%v: it took %v", sig, took)
		}
	}
}

// A log that a person can follow, each line with its time: who connected, logged in, fetched,
// logged out and left; and a letter's way.
func TestSeed_S4_7(t *testing.T) {
	t.Parallel()
	d, _ := seedOffice(t, 1)
	c, err := dial(d.addrs["smtp"])
	if err != nil {
		t.Fatal(err)
	}
	c.expect("220")
	c.say("EHLO client.example")
	c.letter("w@x.test", []string{"user0@office.test"}, []byte("Subject: x\r\n\r\nx\r\n"))
	c.say("QUIT")
	c.Close()
	if n, err := collect(d.addrs["pop3"], "user0@office.test"); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	text := d.log.String()
	for _, words := range [][]string{{"smtpd", "connected", "accepted", "delivered", "disconnected"},
		{"pop3", "connected", "logged in", "fetched", "logged out", "disconnected"}} {
		rest := text
		for _, word := range words[1:] {
			line := regexp.MustCompile(`(?m)^time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S+ level=INFO msg="?` + word + `"? .*$`)
			at := line.FindStringIndex(rest)
			if at == nil {
				t.Fatalf("no line %q of %s where it belongs in\n%s", word, words[0], text)
			}
			rest = rest[at[1]:]
		}
	}
}

// Monitoring: connections ever and now, octets in and out, as numbers and as sentences (S4.9).
func TestSeed_S4_8(t *testing.T) {
	t.Parallel()
	d, ctl := seedOffice(t, 1)
	for range 3 {
		if _, err := collect(d.addrs["pop3"], "user0@office.test"); err != nil {
			t.Fatal(err)
		}
	}
	c, err := dial(d.addrs["pop3"])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.expect("+OK")
	// A connection that ended a moment ago may still count as one of now.
	want := regexp.MustCompile(`(?m)^pop3: 4 connections ever, [1-4] now, [1-9][0-9.]* k?B received, [1-9][0-9.]* k?B sent$`)
	if out := ctl("", "stats"); !want.MatchString(out) {
		t.Errorf("stats says\n%s", out)
	}
	want = regexp.MustCompile(`"service":"pop3"`)
	if out := ctl("", "stats", "--json"); !want.MatchString(out) {
		t.Errorf("stats --json says\n%s", out)
	}
}
