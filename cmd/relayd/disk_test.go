//go:build interop

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"relayd/queue"
	"relayd/relay/relaytest"
)

// smallDisk mounts an ext4 file system of so many MB and inodes at dir until the test ends.
func smallDisk(t *testing.T, dir string, megabytes, inodes int) *disk {
	t.Helper()
	return newDisk(t, dir, megabytes, "mke2fs", "-q", "-t", "ext4", "-m", "0", "-N", fmt.Sprint(inodes))
}

// newDisk mounts the file system of so many MB that a command makes at dir until the test ends.
func newDisk(t *testing.T, dir string, megabytes int, mkfs ...string) *disk {
	t.Helper()
	d := &disk{t: t, image: filepath.Join(t.TempDir(), "image"), dir: dir, options: "loop"}
	if mkfs[0] == "mke2fs" {
		d.options += ",errors=remount-ro"
	}
	if err := os.WriteFile(d.image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(d.image, int64(megabytes)<<20); err != nil {
		t.Fatal(err)
	}
	d.run(mkfs[0], append(mkfs[1:], d.image)...)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	d.mount()
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return d
}

type disk struct {
	t          *testing.T
	image, dir string
	options    string
	filler     int
}

func (d *disk) run(name string, args ...string) string {
	d.t.Helper()
	out, err := (&office{t: d.t}).try("", name, args...)
	if err != nil {
		d.t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return out
}

func (d *disk) mount() { d.t.Helper(); d.run("mount", "-o", d.options, d.image, d.dir) }

// repair takes the file system away, has it checked as at a boot, and brings it back.
func (d *disk) repair() {
	d.t.Helper()
	d.run("umount", d.dir)
	(&office{t: d.t}).try("", "e2fsck", "-fy", d.image) // its exit status says that it mended something
	d.mount()
}

// fillSpace writes until nothing goes in any more, fillInodes makes empty files.
func (d *disk) fillSpace() {
	f, err := os.Create(filepath.Join(d.dir, "filler"))
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 4<<10)
	for {
		if _, err := f.Write(block); err != nil {
			f.Sync()
			return
		}
	}
}

// fillNearly leaves room for a small letter or two.
func (d *disk) fillNearly() {
	d.fillSpace()
	filler := filepath.Join(d.dir, "filler")
	info, err := os.Stat(filler)
	if err == nil {
		err = os.Truncate(filler, info.Size()-80<<10)
	}
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d *disk) fillInodes() {
	for {
		f, err := os.Create(filepath.Join(d.dir, fmt.Sprint("filler", d.filler)))
		if err != nil {
			return
		}
		d.filler++
		f.Close()
	}
}

func (d *disk) free() {
	names, _ := filepath.Glob(filepath.Join(d.dir, "filler*"))
	for _, name := range names {
		os.Remove(name)
	}
}

// stricken is an office on a small, failing disk with one correspondent, who is away at first.
type stricken struct {
	*office
	disk     *disk
	peer     string
	promised []string // X-Number of the letters answered 250
	refused  map[string]int
	sent     int
}

func strike(t *testing.T, floor string) *stricken {
	t.Helper()
	dir := t.TempDir()
	return strikeOn(t, dir, smallDisk(t, filepath.Join(dir, "data"), 24, 1024), floor)
}

func strikeOn(t *testing.T, dir string, disk *disk, floor string) *stricken {
	t.Helper()
	b := &stricken{disk: disk, refused: map[string]int{}}
	dns := relaytest.ServeDNS(t, "partner.test. MX 10 mx.partner.test.\nmx.partner.test. A 127.0.0.5\n")
	port := freePort()
	b.peer = fmt.Sprintf("127.0.0.5:%d", port)
	b.office = openOfficeIn(t, dir, officeConfig+fmt.Sprintf(
		"[dns]\nservers = [%q]\n[outbound]\nport = %d\nallow_loopback = true\n[limits]\nmin_free_disk = %q\n", dns.Addr(), port, floor))
	return b
}

// send gives one letter to ann, to the correspondent, or to both, and returns the reply's first
// word. A refusal must be temporary and leave the session in step.
func (b *stricken) send(size int, rcpts ...string) string {
	b.t.Helper()
	b.sent++
	number := fmt.Sprintf("N%04d", b.sent)
	text := "X-Number: " + number + "\nSubject: siege\n\n" + strings.Repeat("The quick brown fox jumps over the lazy dog.\n", size/45) + "The end.\n"
	d, err := dial(b.addrs["smtp"])
	if err != nil {
		b.t.Fatal(err)
	}
	defer d.Close()
	d.expect("220")
	d.say("EHLO client.example")
	out, ok := d.letter("writer@partner.example", rcpts, toWire([]byte(text)))
	noop := d.say("NOOP")
	if d.err != nil || !strings.HasPrefix(noop, "250") {
		b.t.Fatalf("the session is out of step: %v %s after\n%s", d.err, noop, out)
	}
	if ok {
		for _, r := range rcpts {
			b.promised = append(b.promised, number+" "+r)
		}
		return "250"
	}
	when := " at MAIL"
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "4") {
			b.refused[strings.Join(strings.Fields(line)[:2], " ")+when]++
			return line[:3]
		}
		when = " later"
	}
	b.t.Fatalf("not a temporary refusal:\n%s", out)
	return ""
}

const ann, bob = "ann@office.test", "bob@partner.test"

// flows waits until mail is accepted again.
func (b *stricken) flows() {
	b.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); b.send(1000, ann, bob) != "250"; <-tick.C {
		if time.Now().After(deadline) {
			b.t.Fatal("mail does not flow again")
		}
	}
}

// collect reads all of ann's mail by POP3 and, if asked to, deletes the first letter.
func (b *stricken) collect(remove bool) string {
	b.t.Helper()
	d, err := dial(b.addrs["pop3"])
	if err != nil {
		b.t.Fatal(err)
	}
	defer d.Close()
	d.expect("+OK")
	d.pop("USER ann@office.test")
	if reply := d.pop("PASS " + officePassword); !strings.HasPrefix(reply, "+OK") {
		b.t.Fatalf("POP3: %s", reply)
	}
	var count int
	fmt.Sscanf(d.pop("STAT"), "+OK %d", &count)
	var all strings.Builder
	for i := range count {
		all.WriteString(d.pop(fmt.Sprintf("RETR %d", i+1)))
	}
	if remove {
		d.pop("DELE 1")
	}
	if reply := d.pop("QUIT"); !strings.HasPrefix(reply, "+OK") || d.err != nil {
		b.t.Errorf("POP3: QUIT: %s %v", reply, d.err)
	}
	return all.String()
}

// correspondent opens the other side, which takes whatever the queue has for it.
func (b *stricken) correspondent() *relaytest.MXServer {
	b.t.Helper()
	mx, err := relaytest.NewMX(b.peer, relaytest.MXScript{})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { mx.Close() })
	return mx
}

// account wants every promised letter in ann's hands or at the correspondent's, whole and once,
// and nothing else; taken is what ann has collected and deleted before.
func (b *stricken) account(mx *relaytest.MXServer, taken string) {
	b.t.Helper()
	emptyQueue(b.t, b.ctl, 2*patience)
	inbox, sink := taken+b.collect(false), ""
	for _, l := range mx.Letters() {
		sink += string(l.Body)
	}
	for _, p := range b.promised {
		number, rcpt, _ := strings.Cut(p, " ")
		place := map[string]string{ann: inbox, bob: sink}[rcpt]
		if n := strings.Count(place, "X-Number: "+number+"\r\n"); n != 1 {
			b.t.Errorf("letter %s came to %s %d times", number, rcpt, n)
		}
	}
	came, whole := strings.Count(inbox+sink, "X-Number: "), strings.Count(inbox+sink, "The end.\r\n")
	// A client that went away unanswered cannot know.
	if came < len(b.promised) || came > len(b.promised)+2*b.refused["no answer"] || whole != came {
		b.t.Errorf("%d letters came, %d of them whole; %d were promised", came, whole, len(b.promised))
	}
	b.close()
	q, err := queue.Open(b.path("data/queue"), queue.Options{})
	if err != nil {
		b.t.Fatal(err)
	}
	defer q.Close()
	if err := q.Check(b.t.Context()); err != nil {
		b.t.Error(err)
	}
	if corrupt, _ := filepath.Glob(b.path("data/queue/corrupt/*")); len(corrupt) > 0 {
		b.t.Errorf("set aside: %q", corrupt)
	}
	b.t.Logf("%d deliveries promised and made, refusals %v", len(b.promised), b.refused)
}

// A full disk, by octets with and without a floor, and by inodes: new mail waits outside, POP3,
// relayctl and the drain go on, and with room again mail flows without a restart.
func TestInteropDiskFull(t *testing.T) {
	for _, c := range []struct {
		name, floor string
		fill        func(*disk)
	}{
		{"space", "1KB", (*disk).fillSpace},
		{"nearly", "1KB", (*disk).fillNearly},
		{"floor", "2MB", (*disk).fillSpace},
		{"inodes", "1KB", (*disk).fillInodes},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := strike(t, c.floor)
			for range 5 {
				b.send(20_000, ann)
				b.send(20_000, bob)
				b.send(3_000, ann, bob)
			}
			c.fill(b.disk)
			for range 10 {
				b.send(100_000, ann)
				b.send(100_000, bob)
				b.send(100_000, ann, bob)
				b.send(500, ann)
				b.send(500, bob)
			}
			if len(b.refused) == 0 {
				t.Fatal("the disk never filled")
			}
			taken := b.collect(true)
			taken = taken[:strings.Index(taken, "The end.\r\n")+len("The end.\r\n")]
			if ls := b.ctl("", "queue", "ls"); !strings.Contains(ls, "partner.test") {
				t.Errorf("queue ls:\n%s", ls)
			}
			b.ctl("", "status")
			mx := b.correspondent()
			b.ctl("", "queue", "retry", "--all", "--yes")
			if err := mx.Wait(t.Context(), 10); err != nil {
				t.Error(err)
			}
			b.disk.free()
			b.flows()
			b.account(mx, taken)
		})
	}
}

// A file system that turns read-only, as ext4 does when it meets damage: no new mail, but people
// and operator still read; once it has been repaired and relayd started, everything promised is
// there.
func TestInteropReadOnlyDisk(t *testing.T) {
	b := strike(t, "1KB")
	for range 5 {
		b.send(3_000, ann, bob)
	}
	device := filepath.Base(b.disk.run("findmnt", "-no", "SOURCE", b.disk.dir))
	trigger := "/sys/fs/ext4/" + strings.TrimSpace(device) + "/trigger_fs_error"
	if err := os.WriteFile(trigger, []byte("a test of relayd\n"), 0); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		for _, rcpts := range [][]string{{ann}, {bob}, {ann, bob}} {
			if reply := b.send(3_000, rcpts...); reply == "250" {
				t.Errorf("accepted on a read-only disk: %q", rcpts)
			}
		}
	}
	if got := strings.Count(b.collect(false), "The end.\r\n"); got != 5 {
		t.Errorf("POP3 reads %d letters of 5", got)
	}
	if ls := b.ctl("", "--json", "queue", "ls"); strings.Count(ls, "\n") != 5 {
		t.Errorf("queue ls:\n%s", ls)
	}
	b.ctl("", "status")
	mx := b.correspondent()
	b.server.kill()
	b.disk.repair()
	b.open()
	b.flows()
	b.account(mx, "")
}

// Without a descriptor left nobody is bounced: clients wait or hear 421 and 4xx; with descriptors
// again mail flows.
func TestInteropDescriptors(t *testing.T) {
	b := strike(t, "1KB")
	for range 5 {
		b.send(3_000, ann, bob)
	}
	pid := b.cmd.Process.Pid
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	var before unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &before); err != nil {
		t.Fatal(err)
	}
	for spare := range 12 {
		limit := unix.Rlimit{Cur: uint64(len(open) + spare), Max: before.Max}
		if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
			t.Fatal(err)
		}
		b.crowd(10)
	}
	if b.refused["421 banner"] == 0 || b.refused["451 to a letter"] == 0 {
		t.Errorf("want clients turned away, and letters refused: %v", b.refused)
	}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &before, nil); err != nil {
		t.Fatal(err)
	}
	b.flows()
	b.account(b.correspondent(), "")
}

// crowd has n clients connected at once, each with a letter to send; each hears 250, a temporary
// refusal, or a closed connection.
func (b *stricken) crowd(n int) {
	b.t.Helper()
	var clients []*dialogue
	for range n {
		d, err := dial(b.addrs["smtp"])
		if err != nil {
			b.t.Fatal(err)
		}
		defer d.Close()
		d.SetDeadline(time.Now().Add(time.Second))
		clients = append(clients, d)
	}
	for _, d := range clients {
		b.sent++
		number := fmt.Sprintf("N%04d", b.sent)
		banner := d.reply()
		d.say("EHLO client.example")
		out, ok := d.letter("writer@partner.example", []string{ann, bob}, toWire([]byte("X-Number: "+number+"\n\nThe end.\n")))
		last := out[strings.LastIndexByte(strings.TrimSpace(out), '\n')+1:]
		switch {
		case ok:
			b.promised = append(b.promised, number+" "+ann, number+" "+bob)
		case strings.HasPrefix(banner, "4"):
			b.refused[banner[:3]+" banner"]++
		case strings.HasPrefix(last, "4"):
			b.refused[last[:3]+" to a letter"]++
		case d.err != nil:
			b.refused["no answer"]++
		default:
			b.t.Errorf("%s: banner %q, then\n%s", number, banner, out)
		}
	}
}
