//go:build interop

package main

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"relayd/queue"
	"relayd/relay/admin"
	"relayd/relay/relaytest"
)

// clocked is an office whose wall clock the test sets while it runs. A static program reads the clock
// from a page of the kernel's, where nobody can come between; under qemu-user there is no such page, and
// qemu asks its C library, into which libfaketime has been loaded. The monotonic clock goes on as it
// does when an operator or NTP sets the time.
type clocked struct {
	*office
	offset time.Duration // of its wall clock
	mx     *relaytest.MXServer
	locals int
	may    map[string]int // how often the schedule, the operator and restarts let each foreign letter be tried

	restarted bool
}

const (
	clockLongest = time.Hour
	clockFuture  = 20 * 24 * time.Hour
	clockJump    = 10 * 24 * time.Hour
)

// The first pause is one that the test can wait for; it never sees the end of the second. Thirteen attempts
// are enough to give up a letter of a day.
const clockConfig = `[dns]
servers = [%q]
[outbound]
port = %d
allow_loopback = true
[queue]
retry = ["2s", "1h"]
give_up_after = "1d"
`

// Whoever wants a letter back unless it arrives in time is not served by those who do not offer that.
const clockScript = "deliverby\n"

func openClocked(t *testing.T) *clocked {
	t.Helper()
	dns := relaytest.ServeDNS(t, "dead.test. MX 10 mx.dead.test.\nmx.dead.test. A 127.0.0.6\n")
	port := freePort()
	c := &clocked{office: &office{t: t, dir: t.TempDir()}, may: map[string]int{}}
	c.script(fmt.Sprintf("127.0.0.6:%d", port), clockScript+"rcpt tardy@* stall 1500ms\ndata 451 4.3.0 not today\nrcpt * 451 4.3.0 not today\n")
	c.write("relayd.toml", officeConfig+fmt.Sprintf(clockConfig, dns.Addr(), port))
	// The hash that relayctl makes costs the emulated processor ten seconds.
	hash, err := bcrypt.GenerateFromPassword([]byte(officePassword), bcrypt.MinCost)
	if err == nil {
		err = os.Mkdir(c.path("data"), 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	c.write("data/users", "ann@office.test:{BLF-CRYPT}"+string(hash)+"\n")
	c.set(0)
	c.start()
	t.Cleanup(c.close)
	return c
}

// script makes the dead destination, or changes it.
func (c *clocked) script(addr, script string) {
	c.t.Helper()
	parsed, err := relaytest.ParseMXScript(script)
	if err == nil && c.mx == nil {
		c.mx, err = relaytest.NewMX(addr, parsed)
		c.t.Cleanup(func() { c.mx.Close() })
	} else if err == nil {
		c.mx.SetScript(parsed)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// command is one of our programs under the wall clock of the test.
func (c *clocked) command(name string, args ...string) *exec.Cmd {
	c.t.Helper()
	fake, _ := filepath.Glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
	if len(fake) != 1 {
		c.t.Fatalf("libfaketime is not installed: %q", fake)
	}
	qemu := map[string]string{"amd64": "qemu-x86_64", "arm64": "qemu-aarch64"}[runtime.GOARCH]
	cmd := exec.Command(qemu, append([]string{bin(c.t, name), "--config", c.path("relayd.toml")}, args...)...)
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), "LD_PRELOAD="+fake[0], "FAKETIME_TIMESTAMP_FILE="+c.path("clock"), "FAKETIME_NO_CACHE=1",
		"FAKETIME_DONT_FAKE_MONOTONIC=1", "NO_FAKE_STAT=1", "GODEBUG=asyncpreemptoff=1")
	return cmd
}

// set sets the wall clock to so far from the true time.
func (c *clocked) set(offset time.Duration) {
	c.t.Helper()
	c.offset = offset
	c.write("clock.new", fmt.Sprintf("%+d\n", int(offset/time.Second)))
	if err := os.Rename(c.path("clock.new"), c.path("clock")); err != nil {
		c.t.Fatal(err)
	}
}

func (c *clocked) now() time.Time { return time.Now().Add(c.offset) }

func (c *clocked) start() {
	c.t.Helper()
	d, err := launchCommand(c.command("relayd"))
	if err != nil {
		c.t.Fatal(err)
	}
	c.server = d
}

// restart starts the daemon again under another clock. What its records say is due by then is tried once.
func (c *clocked) restart(offset time.Duration) {
	c.t.Helper()
	c.close()
	c.set(offset)
	c.start()
	c.restarted = true
	for name := range c.may {
		c.may[name]++
	}
}

// look runs relayctl under the clock of the office.
func (c *clocked) look(args ...string) string {
	c.t.Helper()
	out, err := c.command("relayctl", args...).Output()
	if err != nil {
		c.t.Fatalf("relayctl %q: %v\n%s", args, err, out)
	}
	return string(out)
}

// session is one with the submission service, over TLS and logged in.
func (c *clocked) session() *dialogue {
	c.t.Helper()
	d, err := dial(c.addrs["submission"])
	if err != nil {
		c.t.Fatal(err)
	}
	d.hello("starttls")
	if reply := d.say("AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00ann@office.test\x00"+officePassword))); !strings.HasPrefix(reply, "235") {
		c.t.Fatalf("AUTH: %s %v", reply, d.err)
	}
	return d
}

// send sends a letter by the name of its recipient, with more parameters of MAIL.
func (c *clocked) send(name, domain, params string) {
	c.t.Helper()
	d := c.session()
	defer d.Close()
	out := d.say("MAIL FROM:<ann@office.test>"+params) + d.say("RCPT TO:<"+name+"@"+domain+">") + d.say("DATA")
	d.write("From: ann@office.test\r\nSubject: " + name + "\r\n\r\nThe end.\r\n.\r\n")
	if reply := d.reply(); !strings.HasPrefix(reply, "250") {
		c.t.Fatalf("%s was not accepted: %s%s %v", name, out, reply, d.err)
	}
	if domain == "office.test" {
		c.locals++
	}
}

// tries is how often each foreign letter was offered to the destination.
func (c *clocked) tries() map[string]int {
	tries := map[string]int{}
	for _, line := range c.mx.Commands() {
		if rest, ok := strings.CutPrefix(strings.ToUpper(line), "RCPT TO:<"); ok {
			name, _, _ := strings.Cut(rest, "@")
			tries[strings.ToLower(name)]++
		}
	}
	return tries
}

// await waits until a letter has been tried so often.
func (c *clocked) await(name string, n int) {
	c.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(2 * patience); c.tries()[name] < n; <-tick.C {
		if time.Now().After(deadline) {
			c.t.Fatalf("%s was tried %d times of %d\n%s", name, c.tries()[name], n, c.ctl("", "queue", "ls"))
		}
	}
}

// queued are the foreign letters in the queue, by name.
func (c *clocked) queued() map[string]admin.Item {
	c.t.Helper()
	items := map[string]admin.Item{}
	for line := range strings.Lines(c.look("--json", "queue", "ls")) {
		var it admin.Item
		if err := json.Unmarshal([]byte(line), &it); err != nil || len(it.To) != 1 {
			c.t.Fatalf("%v: %s", err, line)
		}
		name, _, _ := strings.Cut(it.To[0], "@")
		items[name] = it
	}
	return items
}

// live uses the office for a while under its clock, and then wants everything to be as it must: mail comes
// in and is collected, every foreign letter waits and was tried no oftener than it may, and nobody was
// told that one has failed. A letter sent now is tried, and once more after the first pause; whoever
// knocks at doors without end has done it by then.
func (c *clocked) live(when string) {
	c.t.Helper()
	probe := "probe" + when
	c.send("ann", "office.test", "")
	c.send(probe, "dead.test", "")
	c.may[probe] = 2
	c.await(probe, 2)
	for name, n := range c.tries() {
		if n > c.may[name] {
			c.t.Errorf("%s: %s was tried %d times, and may be %d times", when, name, n, c.may[name])
		}
	}
	c.waits(when)
	c.told(when)
	c.collects(when)
}

// waits looks at the queue as the operator sees it.
func (c *clocked) waits(when string) {
	c.t.Helper()
	items := c.queued()
	if got, want := slices.Sorted(maps.Keys(items)), slices.Sorted(maps.Keys(c.may)); !slices.Equal(got, want) {
		c.t.Errorf("%s: the queue holds %q, want %q", when, got, want)
	}
	slack := 2 * patience
	for name, it := range items {
		if name == "future" || it.Held {
			continue
		}
		if wait := it.Next.Sub(c.now()); wait < -slack || wait > clockLongest*11/10+slack {
			c.t.Errorf("%s: %s is tried next in %v", when, name, wait)
		}
	}
	for line := range strings.Lines(c.look("--json", "queue", "why", "--domain", "dead.test")) {
		var why struct{ At, End time.Time }
		if err := json.Unmarshal([]byte(line), &why); err != nil {
			c.t.Fatal(err)
		}
		if !why.At.IsZero() && (why.At.Before(c.now().Add(-slack)) || why.End.Before(why.At)) {
			c.t.Errorf("%s: %s", when, line)
		}
	}
}

// told reads what ann was told of her letters: never that one has failed, and of a delay, once relayd was
// started under a wrong clock, once a letter, with an end that lies ahead.
func (c *clocked) told(when string) {
	c.t.Helper()
	field := func(text, name string) string {
		_, value, _ := strings.Cut(text, "\n"+name+": ")
		value, _, _ = strings.Cut(value, "\n")
		return value
	}
	warned := map[string]int{}
	for _, text := range c.inbox() {
		switch action := field(text, "Action"); action {
		case "":
			continue
		case "delayed":
		default:
			c.t.Errorf("%s: ann was told:\n%s", when, text)
			continue
		}
		id := field(text, "X-Relayd-Queue-ID")
		if warned[id]++; warned[id] > 1 || !c.restarted {
			c.t.Errorf("%s: ann was told of the delay of %s, for the %d. time", when, id, warned[id])
		}
		said, err := mail.ParseDate(field(text, "Date"))
		until, err2 := mail.ParseDate(field(text, "Will-Retry-Until"))
		if err != nil || err2 != nil || !until.After(said) {
			c.t.Errorf("%s: ann was told of an end that has been:\n%s", when, text)
		}
	}
}

// inbox are ann's letters on the disk.
func (c *clocked) inbox() (texts []string) {
	c.t.Helper()
	files, _ := filepath.Glob(c.path("data/mail/office.test/ann/new/*"))
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			c.t.Fatal(err)
		}
		texts = append(texts, string(text))
	}
	return texts
}

// collects wants all of ann's own letters by POP3, the newest with the time of the office's clock.
func (c *clocked) collects(when string) {
	c.t.Helper()
	d, err := dial(c.addrs["pop3"])
	if err != nil {
		c.t.Fatal(err)
	}
	defer d.Close()
	d.expect("+OK")
	d.pop("USER ann@office.test")
	if reply := d.pop("PASS " + officePassword); !strings.HasPrefix(reply, "+OK") {
		c.t.Fatalf("%s: POP3: %s %v", when, reply, d.err)
	}
	var count, locals int
	fmt.Sscanf(d.pop("STAT"), "+OK %d", &count)
	came := regexp.MustCompile(`\tfor <ann@office\.test>; (.*)\r\n`)
	nearest := time.Duration(1 << 62)
	for i := range count {
		text := d.pop(fmt.Sprintf("RETR %d", i+1))
		if !strings.Contains(text, "\r\nSubject: ann\r\n") {
			continue
		}
		locals++
		if m := came.FindStringSubmatch(text); m != nil {
			at, err := mail.ParseDate(m[1])
			if err == nil {
				nearest = min(nearest, c.now().Sub(at).Abs())
			}
		}
	}
	if d.pop("QUIT"); d.err != nil || locals != c.locals {
		c.t.Errorf("%s: POP3 has %d of %d letters, %v", when, locals, c.locals, d.err)
	}
	if nearest > 3*patience {
		c.t.Errorf("%s: no letter came at the time of the office, %v; the nearest is %v off", when, c.now(), nearest)
	}
}

// certificate wants one that is good by the clock of the office.
func (c *clocked) certificate(when string) {
	c.t.Helper()
	d := c.session()
	defer d.Close()
	leaf := d.Conn.(*tls.Conn).ConnectionState().PeerCertificates[0]
	if now := c.now(); now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		c.t.Errorf("%s: the certificate is good from %v to %v, now is %v", when, leaf.NotBefore, leaf.NotAfter, now)
	}
}

// fill queues letters of every kind: due soon, tried often enough to be given up at their age, to be
// returned unless they arrive within a day, held, of the future.
func (c *clocked) fill() {
	c.t.Helper()
	const often = 13
	c.send("tired", "dead.test", "")
	c.send("hasty", "dead.test", " BY=86400;R")
	c.send("held", "dead.test", "")
	c.send("future", "dead.test", fmt.Sprintf(" HOLDFOR=%d", int(clockFuture/time.Second)))
	c.await("held", 1)
	c.ctl("", "queue", "hold", "--to", "held@", "--yes")
	c.may = map[string]int{"tired": 2, "hasty": 2, "held": 2, "future": 0} // a first attempt, and one after the first pause
	for range often {
		c.insist("tired")
	}
	for i := range 5 {
		c.send(fmt.Sprintf("soon%d", i), "dead.test", "")
		c.may[fmt.Sprintf("soon%d", i)] = 2
	}
	c.await("soon4", 1)
	// The clock is set during its attempt.
	c.may["tardy"] = 2
	c.send("tardy", "dead.test", " BY=86400;R")
	c.await("tardy", 1)
}

// insist has the operator try a letter at once.
func (c *clocked) insist(name string) {
	c.t.Helper()
	n := c.tries()[name]
	c.ctl("", "queue", "retry", "--to", name+"@", "--yes")
	c.may[name]++
	c.await(name, n+1)
}

// jump sets the clock of the running daemon, and has it try those letters that age would end.
func (c *clocked) jump(when string, offset time.Duration) {
	c.t.Helper()
	c.set(offset)
	c.insist("tired")
	c.insist("hasty")
	c.live(when)
}

// arrive lets the destination take mail, and the operator be impatient: every letter arrives once.
func (c *clocked) arrive() {
	c.t.Helper()
	c.script("", clockScript)
	c.ctl("", "queue", "release", "--all", "--yes")
	c.ctl("", "queue", "retry", "--all", "--yes")
	if err := c.mx.Wait(c.t.Context(), len(c.may)); err != nil {
		c.t.Error(err)
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(2 * patience); len(c.queued()) > 0; <-tick.C {
		if time.Now().After(deadline) {
			c.t.Fatalf("the queue does not empty:\n%s", c.ctl("", "queue", "ls"))
		}
	}
	came := map[string]int{}
	for _, l := range c.mx.Letters() {
		_, subject, _ := strings.Cut(string(l.Body), "Subject: ")
		name, _, _ := strings.Cut(subject, "\r\n")
		came[name]++
	}
	for name := range c.may {
		if came[name] != 1 {
			c.t.Errorf("%s arrived %d times", name, came[name])
		}
	}
	if len(came) != len(c.may) {
		c.t.Errorf("arrived: %v", came)
	}
}

// The wall clock of a running relayd jumps ten days ahead, then to ten days behind, and relayd is
// started under both: nothing bounces, nobody's door is knocked at more often than the schedule allows,
// mail comes in and is collected, and when the destination lives and the clock is right again, every
// letter arrives once.
func TestInteropClockJumps(t *testing.T) {
	c := openClocked(t)
	c.fill()
	c.jump("ahead", clockJump)
	c.jump("behind", -clockJump)
	// Whoever starts under a wrong clock knows only what the records say: these would be given up.
	for _, name := range []string{"tired@", "hasty@", "tardy@"} {
		c.ctl("", "queue", "hold", "--to", name, "--yes")
	}
	c.restart(-clockJump)
	c.certificate("startedbehind")
	c.live("startedbehind")
	c.restart(clockJump)
	c.certificate("startedahead")
	c.live("startedahead")
	c.set(0)
	c.live("back")
	c.arrive()
	for _, text := range c.inbox() {
		if strings.Contains(text, "\nAction: failed\n") {
			t.Errorf("ann was told:\n%s", text)
		}
	}
	c.close()
	q, err := queue.Open(c.path("data/queue"), queue.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	if err := q.Check(t.Context()); err != nil {
		t.Error(err)
	}
}
